package journal_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTidy(t *testing.T) {
	j, dir := open(t)
	for name, age := range map[string]time.Duration{
		".tmp-1": 2 * time.Hour, ".tmp-2": 0, "c1:eth0.json": 2 * time.Hour, "c1:eth0.json.corrupt": 2 * time.Hour, "lock": 2 * time.Hour,
	} {
		path, at := filepath.Join(dir, name), time.Now().Add(-age)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Tidy(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{".tmp-2", "c1:eth0.json", "c1:eth0.json.corrupt", "lock"}, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

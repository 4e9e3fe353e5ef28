package journal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/journal"
)

// put writes a record as it lies on a disk.
func put(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "c1:eth0.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func decoded(t *testing.T, text []byte) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// TestFormat holds today's records against every later version, which has to read all of them: a file of testdata is never
// changed, and a change of the format that loses something of one is seen here.
func TestFormat(t *testing.T) {
	files, err := filepath.Glob("testdata/version-*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %q, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			j, dir := open(t)
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			put(t, dir, string(text))
			r, err := j.Get("c1", "eth0")
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Unknown) > 0 || r.Attachments[0].Unknown != nil {
				t.Errorf("keys that are not known any more: %v %v", r.Unknown, r.Attachments[0].Unknown)
			}
			if err := j.Put(r); err != nil {
				t.Fatal(err)
			}
			again, err := os.ReadFile(filepath.Join(dir, "c1:eth0.json"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(decoded(t, text), decoded(t, again)); diff != "" {
				t.Errorf("read and written again (-want +got):\n%s", diff)
			}
		})
	}
}

// TestUnknownKeys: what a later version has added is kept.
func TestUnknownKeys(t *testing.T) {
	j, dir := open(t)
	b, err := os.ReadFile("testdata/version-1.json")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), `"version": 1,`, `"version": 1, "later": {"n": 9007199254740993, "s": "<&>"},`, 1)
	text = strings.Replace(text, `"name": "cluster",`, `"name": "cluster", "later": [1, null],`, 1)
	put(t, dir, text)
	r, err := j.Get("c1", "eth0")
	if err != nil {
		t.Fatal(err)
	}
	r.Pending = nil
	if err := j.Put(r); err != nil {
		t.Fatal(err)
	}
	again, err := os.ReadFile(filepath.Join(dir, "c1:eth0.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := decoded(t, []byte(text)).(map[string]any)
	delete(want, "pending")
	if diff := cmp.Diff(any(want), decoded(t, again)); diff != "" {
		t.Errorf("read and written again (-want +got):\n%s", diff)
	}
}

// TestNewer: a record of a newer version is none that is damaged, whatever of it can be read.
func TestNewer(t *testing.T) {
	j, dir := open(t)
	b, err := os.ReadFile("testdata/version-1.json")
	if err != nil {
		t.Fatal(err)
	}
	whole := strings.Replace(string(b), `"version": 1,`, `"version": 2,`, 1)
	for _, tt := range []struct {
		text        string
		netns       string
		attachments int
	}{
		{whole, "/run/netns/web", 3},
		{strings.Replace(whole, `"done": true`, `"done": "yes"`, 1), "/run/netns/web", 3},
		{strings.Replace(whole, `"ifName": "lan0"`, `"ifName": {"pod": "lan0"}`, 1), "/run/netns/web", 2},
		{`{"version": 2}`, "", 0},
		{`{"attachments": {}, "netns": ["/a"], "version": 99}`, "", 0},
	} {
		put(t, dir, tt.text)
		_, err := j.Get("c1", "eth0")
		var newer *journal.NewerError
		if !errors.As(err, &newer) {
			t.Fatalf("Get of %s: %v", tt.text, err)
		}
		if r := newer.Record; r.Netns != tt.netns || len(r.Attachments) != tt.attachments || r.ContainerID != "c1" || r.IfName != "eth0" {
			t.Errorf("found %+v of %s", r, tt.text)
		}
		if all, err := j.All(); len(all) != 0 || !errors.As(err, &newer) {
			t.Errorf("All = %v, %v", all, err)
		}
	}
	if err := j.SetAside("c1", "eth0"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "c1:eth0.json.newer")); err != nil {
		t.Error(err)
	}
	put(t, dir, `{"version": "2"}`)
	var corrupt *journal.CorruptError
	if _, err := j.Get("c1", "eth0"); !errors.As(err, &corrupt) {
		t.Errorf("Get of a version that is none: %v", err)
	}
}

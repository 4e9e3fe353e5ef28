package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMkdirAll: that the folders last is seen by e2e/crash, which takes the power away.
func TestMkdirAll(t *testing.T) {
	base := t.TempDir()
	dir := filepath.Join(base, "a", "b", "c")
	for range 2 {
		if err := MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode() != os.ModeDir|0o700 {
		t.Errorf("found %v, %v", info, err)
	}
	file := filepath.Join(base, "file")
	if err := Write(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "a")} {
		if err := MkdirAll(path, 0o700); err == nil {
			t.Errorf("%s is made, where there is a file", path)
		}
	}
}

package install

import (
	"os"
	"path/filepath"
	"testing"
)

// TestMkdir: a folder that only root may enter does not close those above it, which are for others too.
func TestMkdir(t *testing.T) {
	top := t.TempDir()
	s := &state{}
	if err := s.mkdir(filepath.Join(top, "net.d", "braid.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]os.FileMode{"net.d": 0o755, "net.d/braid.d": 0o700} {
		info, err := os.Stat(filepath.Join(top, dir))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s: found %v, want %v", dir, info.Mode().Perm(), want)
		}
	}
	if len(s.Dirs) != 2 {
		t.Errorf("noted %v, want both", s.Dirs)
	}
}

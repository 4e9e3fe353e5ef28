package refplugins

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/braid-cni/braid/internal/nettest"
)

func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }

var plugins = []string{
	"bandwidth", "bridge", "dhcp", "firewall", "host-device", "host-local", "ipvlan", "loopback", "macvlan",
	"portmap", "ptp", "sbr", "static", "tuning",
}

func TestDirHasEveryPlugin(t *testing.T) {
	dir := Dir(t)
	for _, name := range plugins {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(filepath.Join(dir, name))
			cmd.Env = []string{"CNI_COMMAND=VERSION"}
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("VERSION: %v\n%s", err, out)
			}
			var answer struct{ SupportedVersions []string }
			if err := json.Unmarshal(out, &answer); err != nil || len(answer.SupportedVersions) == 0 {
				t.Errorf("VERSION answered %s (%v), want supportedVersions", out, err)
			}
		})
	}
	if _, err := exec.LookPath(filepath.Join(dir, "cnitool")); err != nil {
		t.Error(err)
	}
}

func TestOnceFillsOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "dir")
	var fills atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			err := once(dir, func(tmp string) error {
				fills.Add(1)
				return os.WriteFile(filepath.Join(tmp, "plugin"), nil, 0o755)
			})
			if err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(filepath.Join(dir, "plugin")); err != nil {
				t.Errorf("once returned before the folder was whole: %v", err)
			}
		})
	}
	wg.Wait()
	if n := fills.Load(); n != 1 {
		t.Errorf("filled %d times, want once", n)
	}
}

func TestOnceLeavesNothingHalfMade(t *testing.T) {
	parent := t.TempDir()
	broken := errors.New("broken")
	err := once(filepath.Join(parent, "dir"), func(tmp string) error {
		return errors.Join(broken, os.WriteFile(filepath.Join(tmp, "plugin"), nil, 0o755))
	})
	if !errors.Is(err, broken) {
		t.Fatalf("got %v, want the error of the build", err)
	}
	entries, err := os.ReadDir(parent)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "dir.lock" {
			t.Errorf("left %s behind", e.Name())
		}
	}
}

func TestDirGivenByEnvironment(t *testing.T) {
	want := t.TempDir()
	t.Setenv("BRAID_REFPLUGINS_DIR", want)
	if got := Dir(t); got != want {
		t.Errorf("Dir() = %s, want %s", got, want)
	}
}

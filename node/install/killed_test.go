package install

import (
	"encoding/json"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var discard = slog.New(slog.NewTextHandler(io.Discard, nil))

// Whenever an install is killed, the binaries are whole, no plugin and no configuration is there that is not one, and the
// next install finishes the work.
func TestKilledInstall(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	self, err := os.Executable()
	must(t, err)
	for range 15 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "BRAID_TEST_INSTALL="+n.root)
		cmd.Stderr = t.Output()
		must(t, cmd.Start())
		time.Sleep(time.Duration(5+rand.IntN(120)) * time.Millisecond)
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		n.checkWhole()
	}
	n.write("image/braid", "last", 0o755)
	n.install()
	n.checkWhole()
	if got := n.read("opt/cni/bin/braid"); got != "last" {
		t.Errorf("found %.20q, want the last binary", got)
	}
	for _, dir := range []string{n.BinDir, n.ConfDir, n.NetworksDir, n.CNIDir} {
		left, _ := filepath.Glob(filepath.Join(dir, tmpPrefix+"*"))
		if len(left) > 0 {
			t.Errorf("%v were left", left)
		}
	}
}

// An uninstall that is killed at any moment is finished by the next one, and the node is what it was.
func TestKilledUninstall(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.write("opt/cni/bin/bridge", "the reference bridge", 0o755)
	n.write("opt/cni/bin/braid", "by hand", 0o700)
	n.conf("10-calico.conflist", calico)
	n.Plugins, n.Overwrite = []string{AllPlugins}, true
	before := n.tree()
	self, err := os.Executable()
	must(t, err)
	for range 10 {
		n.install()
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "BRAID_TEST_UNINSTALL="+n.CNIDir)
		cmd.Stderr = t.Output()
		must(t, cmd.Start())
		time.Sleep(time.Duration(5+rand.IntN(100)) * time.Millisecond)
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		n.checkWhole()
		must(t, n.uninstall(false))
		if diff := cmp.Diff(before, n.tree()); diff != "" {
			t.Fatalf("after uninstall (-before +after):\n%s", diff)
		}
	}
}

// checkWhole looks at what a runtime would see.
func (n *testNode) checkWhole() {
	n.Helper()
	entries, _ := os.ReadDir(n.BinDir) // the first one may have been killed before it was made
	for _, e := range entries {
		info, err := e.Info()
		must(n.T, err)
		if strings.HasPrefix(e.Name(), tmpPrefix) {
			if info.Mode().IsRegular() && info.Mode()&0o111 != 0 && info.Size() == 0 {
				n.Errorf("%s could be taken for a plugin", e.Name())
			}
			continue
		}
		if e.Name() == "braid" {
			if b := n.read("opt/cni/bin/braid"); !strings.HasSuffix(b, "braid ") && b != "first braid" && b != "last" && b != "by hand" {
				n.Errorf("braid has %d bytes, and is not whole", len(b))
			}
		}
	}
	names, err := confFiles(n.ConfDir)
	must(n.T, err)
	for _, name := range names {
		text := n.read("etc/cni/net.d/" + name)
		if err := validate([]byte(text)); err != nil {
			n.Errorf("%s: %v", name, err)
		}
		for _, needed := range []string{"braid", "braid-shim"} {
			if strings.Contains(text, `"braid-shim"`) && !exists(n.path("opt/cni/bin/"+needed)) {
				n.Errorf("%s is there, and %s is not", name, needed)
			}
		}
	}
	if b, err := os.ReadFile(statePath(n.CNIDir)); err == nil && !json.Valid(b) {
		n.Errorf("the state is torn: %s", b)
	}
}

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
			if b := n.read("opt/cni/bin/braid"); !strings.HasSuffix(b, "braid ") && b != "first braid" && b != "last" {
				n.Errorf("braid has %d bytes, and is not whole", len(b))
			}
		}
	}
	names, err := confFiles(n.ConfDir)
	must(n.T, err)
	for _, name := range names {
		if err := validate([]byte(n.read("etc/cni/net.d/" + name))); err != nil {
			n.Errorf("%s: %v", name, err)
		}
	}
	if b, err := os.ReadFile(statePath(n.CNIDir)); err == nil && !json.Valid(b) {
		n.Errorf("the state is torn: %s", b)
	}
}

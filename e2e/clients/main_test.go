// Package clients tests Braid with the programs that call it, other than Kubernetes' own: each is real, and drives the
// built binaries in network namespaces. What was learned of each is in docs/clients.md.
//
//	containerd   its CNI driver go-cni, as a library
//	CRI-O        its CNI driver ocicni, as a library
//	cnitool      the command of the CNI project
//	podman       the command, with its CNI backend
//	nerdctl      the command, with containerd
//
// The programs are installed by the script setup in this folder, and built from Go modules.
package clients

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
)

// binEnv names the folder with braid and braidd. If it is not set they are built.
const binEnv = "BRAID_BIN"

// dirEnv hands the folder of this run down to the node, see [nettest.Main].
const dirEnv = "BRAID_CLIENTS_DIR"

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	prepare := outside
	if nettest.Inside() {
		prepare = inside
	}
	cleanup, err := prepare()
	defer cleanup()
	if err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		return 1
	}
	return nettest.Main(m)
}

// outside makes the folder of this run, with everything that a runtime finds in its CNI binary folder, and cnitool.
func outside() (cleanup func(), err error) {
	dir, err := os.MkdirTemp("", "braid-clients-")
	if err != nil {
		return func() {}, err
	}
	cleanup = func() { _ = os.RemoveAll(dir) }
	cni := filepath.Join(dir, "cni")
	if ready := os.Getenv(binEnv); ready != "" {
		err = errors.Join(os.Mkdir(cni, 0o755), copyFile(ready, cni, "braid"), copyFile(ready, cni, "braidd"), copyFile(ready, cni, "braid-shim"))
	} else {
		err = command("go", "build", "-C", "../..", "-o", cni+"/", "./cmd/...")
	}
	if err != nil {
		return cleanup, err
	}
	for _, name := range []string{"bridge", "host-local", "loopback", "macvlan", "static"} {
		if err := os.Symlink("braid", filepath.Join(cni, name)); err != nil {
			return cleanup, err
		}
	}
	if err := command("go", "build", "-o", filepath.Join(dir, "cnitool"), "github.com/containernetworking/cni/cnitool"); err != nil {
		return cleanup, err
	}
	return cleanup, os.Setenv(dirEnv, dir)
}

// inside gives the node what programs have at fixed places: /run, the folders of CNI, and shared memory. Nothing of the
// machine's is seen or touched, and nothing stays.
func inside() (cleanup func(), err error) {
	cleanup = func() {}
	for _, dir := range []string{"/var/lib/cni", "/etc/cni", "/dev/shm"} {
		if err := mountTmpfs(dir); err != nil {
			return cleanup, err
		}
	}
	// What outlives its parent, as monitors of containers do, becomes a child of the tests: see reapOrphans.
	return cleanup, errors.Join(mountRun(), unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
}

func mountRun() error {
	return errors.Join(mountTmpfs("/run"), os.MkdirAll("/run/netns", 0o755), os.MkdirAll("/run/lock", 0o755))
}

func mountTmpfs(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount a tmpfs on %s: %w", dir, err)
	}
	return nil
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %q: %w: %s", name, args, err, out)
	}
	return nil
}

func copyFile(from, to, name string) error {
	b, err := os.ReadFile(filepath.Join(from, name))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, name), b, 0o755)
}

// binaries returns the CNI binary folder: braid, braidd and links of the own plugins' names.
func binaries() string { return filepath.Join(os.Getenv(dirEnv), "cni") }

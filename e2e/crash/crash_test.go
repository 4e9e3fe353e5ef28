//go:build crash && linux && amd64

// Package crash attacks the promises about crashes: the built binaries are killed, and their system calls made to fail,
// at every one of them that matters. What then follows has to put everything right.
package crash

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/braid-cni/braid/internal/nettest"
)

// binEnv hands the folder with the built binaries down to the node, see [nettest.Main].
const binEnv = "BRAID_CRASH_BIN"

func binaries() string { return os.Getenv(binEnv) }

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if nettest.Inside() {
		return nettest.Main(m)
	}
	bin, err := os.MkdirTemp("", "braid-crash-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(bin)
	build := exec.Command("go", "build", "-o", bin+"/", "../../cmd/braid", "../../cmd/braidd", "../../cmd/braid-resolve", "./third")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	if err := os.Chmod(bin, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	os.Setenv(binEnv, filepath.Clean(bin))
	return nettest.Main(m)
}

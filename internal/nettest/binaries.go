package nettest

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// binEnv hands the folder with the built binaries down to the node.
const binEnv = "BRAID_TEST_BIN"

// Binaries returns the folder that [MainWithBinaries] has had filled.
func Binaries() string { return os.Getenv(binEnv) }

// MainWithBinaries is [Main] for tests of binaries: build puts them into a folder before, with the machine's own network,
// since modules may have to be downloaded. The folder goes with the tests.
func MainWithBinaries(m *testing.M, build func(bin string) error) int {
	if Inside() {
		return Main(m)
	}
	bin, err := os.MkdirTemp("", "braid-test-")
	if err == nil {
		defer os.RemoveAll(bin)
		if err = os.Chmod(bin, 0o755); err == nil { // for those who are not root on the node
			err = build(bin)
		}
	}
	if err == nil {
		err = os.Setenv(binEnv, bin)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nettest: build the binaries:", err)
		return 1
	}
	return Main(m)
}

// GoBuild builds commands into a folder, as they are built for a node.
func GoBuild(bin string, packages ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-o", bin + "/"}, packages...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

//go:build storm && linux

// Package storm attacks the promises about what happens at the same time: the built binaries, one process for each call, by
// the hundred, against each other and against those who kill them. No two pods ever have one address, nothing that lives
// loses anything, and nothing stays of what is gone.
package storm

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/braid-cni/braid/internal/nettest"
)

// full asks for more rounds. The short run is the same, but briefer.
var full = os.Getenv("BRAID_STORM") == "full"

// rounds returns how often something is done.
func rounds(n int) int {
	if full {
		return 8 * n
	}
	return n
}

// tier is what figures are noted under.
const tier = "test-storm"

// binEnv hands the folder with the built binaries down to the node, see [nettest.Main].
const binEnv = "BRAID_STORM_BIN"

func binary(name string) string { return filepath.Join(os.Getenv(binEnv), name) }

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if nettest.Inside() {
		return nettest.Main(m)
	}
	bin, err := os.MkdirTemp("", "braid-storm-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(bin)
	build := exec.Command("go", "build", "-o", bin+"/", "../../cmd/braid", "../../cmd/braidd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	os.Setenv(binEnv, bin)
	return nettest.Main(m)
}

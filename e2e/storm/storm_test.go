//go:build storm && linux

// Package storm attacks the promises about what happens at the same time: the built binaries, one process for each call, by
// the hundred, against each other and against those who kill them. No two pods ever have one address, nothing that lives
// loses anything, and nothing stays of what is gone.
package storm

import (
	"os"
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

func binary(name string) string { return filepath.Join(nettest.Binaries(), name) }

func TestMain(m *testing.M) {
	os.Exit(nettest.MainWithBinaries(m, func(bin string) error {
		return nettest.GoBuild(bin, "../../cmd/braid", "../../cmd/braid-shim", "../../cmd/braidd")
	}))
}

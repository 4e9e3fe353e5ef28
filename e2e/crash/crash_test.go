//go:build crash && linux && amd64

// Package crash attacks the promises about crashes: the built binaries are killed, and their system calls made to fail,
// at every one of them that matters. What then follows has to put everything right.
package crash

import (
	"os"
	"testing"

	"github.com/braid-cni/braid/internal/nettest"
)

func TestMain(m *testing.M) {
	os.Exit(nettest.MainWithBinaries(m, func(bin string) error {
		return nettest.GoBuild(bin, "../../cmd/braid", "../../cmd/braidd", "../../cmd/braid-shim", "./third")
	}))
}

func binaries() string { return nettest.Binaries() }

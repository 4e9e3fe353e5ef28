package nft_test

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
)

// TestFewDescriptors: a socket that cannot be had is an error, and no panic.
func TestFewDescriptors(t *testing.T) {
	n := newNode(t)
	must(t, n.Available(t.Context()))
	for free := 0; ; free++ {
		var err error
		nettest.WithDescriptors(t, free, func() { err = n.Available(t.Context()) })
		if err == nil {
			if free < 2 { // the thread's own namespace, the socket
				t.Errorf("%d descriptors are enough", free)
			}
			break
		}
		if !errors.Is(err, unix.EMFILE) {
			t.Fatalf("with %d descriptors: found %v, want that there are too few", free, err)
		}
	}
}

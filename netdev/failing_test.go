package netdev

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
)

// TestDoThatDoesNotComeBack: a thread that cannot leave the namespace is not used again.
func TestDoThatDoesNotComeBack(t *testing.T) {
	p := newPod(t)
	before, err := os.Readlink("/proc/thread-self/ns/net")
	must(t, err)
	for range 4 {
		err := p.Do(dropCapabilities) // of the thread
		if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "leave "+p.Path()) {
			t.Errorf("found %v, want that the namespace cannot be left", err)
		}
	}
	for range 20 {
		must(t, outside(before))
	}
	must(t, p.Do(func() error { return nil }))
}

// dropCapabilities takes from the thread what it needs to enter a namespace.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}

// TestOpenWithFewDescriptors: whatever cannot be opened is an error, and every thread is where it was.
func TestOpenWithFewDescriptors(t *testing.T) {
	path := nettest.NewNS(t).Path() // that nobody has open
	before, err := os.Readlink("/proc/thread-self/ns/net")
	must(t, err)
	runtime.GC() // nothing is closed meanwhile
	failed := 0
	for free := 0; ; free++ {
		var ns *Namespace
		nettest.WithDescriptors(t, free, func() { ns, err = Open(path) })
		must(t, outside(before))
		if err == nil {
			_, err = ns.Names()
			must(t, errors.Join(err, ns.Close()))
			break
		}
		if failed++; !errors.Is(err, unix.EMFILE) {
			t.Fatalf("with %d descriptors: found %v, want that there are too few", free, err)
		}
	}
	if failed < 3 { // the namespace, the thread's own, the socket
		t.Errorf("it failed %d times", failed)
	}
}

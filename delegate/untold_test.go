package delegate_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNothingIsUndoneWhileTheNamespaceCannotBeTold: what is in a namespace goes with it. So one that cannot be looked at is not
// taken for one that is gone.
func TestNothingIsUndoneWhileTheNamespaceCannotBeTold(t *testing.T) {
	w := newWorld(t)
	w.mustAdd()
	w.calls()
	see := unseen(t, w.netns.Path())
	for verb, err := range map[string]error{
		"DEL": w.delegator().Del(t.Context(), w.request("")),
		"ADD": func() error { _, err := w.delegator().Add(t.Context(), w.request("")); return err }(),
	} {
		if !errors.Is(err, unix.ENOTCONN) {
			t.Errorf("%s: found %v, want why it cannot be told", verb, err)
		}
	}
	w.wantCalls()
	w.wantRecords(1)
	see()
	if err := w.delegator().Del(t.Context(), w.request("")); err != nil {
		t.Error(err)
	}
	w.wantCalls("fake-two DEL net2", "fake-one DEL net1", "fake-default DEL eth0")
	w.wantRecords(0)
}

// unseen has the kernel answer every question about a file with an error, until it is seen again: a file system in user space
// whose server has ended lies over it.
func unseen(t *testing.T, path string) (see func()) {
	server, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("this kernel has no FUSE: %v", err)
	}
	err = unix.Mount("braid-test", path, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=100000,user_id=0,group_id=0", server.Fd()))
	if err := errors.Join(err, server.Close()); err != nil {
		t.Fatal(err)
	}
	see = func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}
	return see
}

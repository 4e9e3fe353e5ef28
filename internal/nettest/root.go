package nettest

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// Root returns a folder in which all files are to be seen, for a chroot. It is in the mount namespace of [Main] alone, which the
// test has to be in.
func Root(t testing.TB) string {
	t.Helper()
	dir := EmptyFolder(t)
	Bind(t, "/", dir)
	return dir
}

// EmptyFolder returns one that is removed when it is empty again, and never with what is shown in it.
func EmptyFolder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "empty")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// Bind shows a folder and all below it in the place of another, which must not be one that somebody removes with all that is
// seen in it.
func Bind(t testing.TB, from, to string) {
	t.Helper()
	NeedRoot(t)
	if !Inside() {
		t.Fatal("the mounts of a test that is not run by nettest.Main would be everybody's")
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(to, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

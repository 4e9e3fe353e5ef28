package plainfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path, unix.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if f.Name() != path {
		t.Errorf("its name is %s", f.Name())
	}
	if err := f.SetDeadline(time.Now()); !errors.Is(err, os.ErrNoDeadline) { // of a pipe it would have one
		t.Errorf("the poller knows it (%v)", err)
	}
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("other programs get it: %x, %v", flags, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	none := filepath.Join(filepath.Dir(path), "none")
	f, err = Open(none, unix.O_RDWR, 0)
	if at, ok := errors.AsType[*fs.PathError](err); f != nil || !ok || at.Path != none || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("found %v, %v", f, err)
	}
}

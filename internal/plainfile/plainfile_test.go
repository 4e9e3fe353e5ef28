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
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	path := filepath.Join(dir.Name(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func(name string) (*os.File, error){
		"by its path": func(name string) (*os.File, error) { return Open(filepath.Join(dir.Name(), name), unix.O_RDWR, 0) },
		"in a folder": func(name string) (*os.File, error) { return OpenAt(int(dir.Fd()), dir.Name(), name, unix.O_RDWR, 0) },
	} {
		f, err := open("pipe")
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if f.Name() != path {
			t.Errorf("%s: its name is %s", name, f.Name())
		}
		if err := f.SetDeadline(time.Now()); !errors.Is(err, os.ErrNoDeadline) { // of a pipe it would have one
			t.Errorf("%s: the poller knows it (%v)", name, err)
		}
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s: other programs get it: %x, %v", name, flags, err)
		}
		if err := f.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		f, err = open("none")
		at, ok := errors.AsType[*fs.PathError](err)
		if f != nil || !ok || at.Path != filepath.Join(dir.Name(), "none") || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: found %v, %v", name, f, err)
		}
	}
}

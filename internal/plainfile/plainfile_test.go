package plainfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	f, err := Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write([]byte("01234567"))
	_, err2 := f.WriteAt([]byte("ab"), 1)
	if err := errors.Join(err, err2, f.Truncate(6), f.Chmod(0o640), f.Sync()); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4)
	if n, err := f.ReadAt(b, 1); n != 4 || err != nil || string(b) != "ab34" {
		t.Errorf("found %d, %v, %q", n, err, b)
	}
	if n, err := f.ReadAt(b, 4); n != 2 || err != io.EOF || string(b[:n]) != "45" {
		t.Errorf("at the end: %d, %v, %q", n, err, b[:n])
	}
	if n, err := f.Read(b); n != 0 || err != io.EOF {
		t.Errorf("behind the end: %d, %v", n, err)
	}
	if st, err := f.Stat(); err != nil || st.Size != 6 || st.Mode != unix.S_IFREG|0o640 {
		t.Errorf("found %+v, %v", st, err)
	}
	if flags, err := unix.FcntlInt(uintptr(f), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("other programs get it: %x, %v", flags, err)
	}
	if err := errors.Join(f.Close(), None.Close()); err != nil {
		t.Error(err)
	}
	for limit, want := range map[int]string{100: "0ab345", 6: "0ab345", 2: "0a", 0: ""} {
		if b, err := ReadAll(path, limit); err != nil || string(b) != want {
			t.Errorf("%d bytes at most: %q, %v", limit, b, err)
		}
	}
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "none"), filepath.Join(dir, "other")
	_, openErr := Open(path, unix.O_RDONLY, 0)
	_, readErr := ReadAll(path, 1)
	for what, err := range map[string]error{"open": openErr, "ReadAll": readErr, "rename": Rename(path, other), "remove": Remove(path)} {
		var at *fs.PathError
		var link *os.LinkError
		if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &at) && !errors.As(err, &link) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := Remove(dir); !errors.Is(err, unix.EISDIR) {
		t.Errorf("a folder: %v", err)
	}
	if _, err := ReadAll(dir, 1); !errors.Is(err, unix.EISDIR) {
		t.Errorf("a folder is read: %v", err)
	}
}

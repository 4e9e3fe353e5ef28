// Package plainfile has open files without what os.File adds to them. An os.File introduces itself to the runtime's poller,
// which has no use for files on a disk: five system calls for each file that is opened.
package plainfile

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// A File is an open file, by its descriptor. Nobody closes it but its owner. Errors of methods are those of the system
// calls and name no path.
type File int

// None is no file. It can be closed.
const None File = -1

// Open opens a file by its path, with the flags and modes of open(2). It is closed when another program is executed. The
// error is a [fs.PathError].
func Open(path string, flags int, perm uint32) (File, error) {
	f, err := OpenAt(unix.AT_FDCWD, path, flags, perm)
	if err != nil {
		return None, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return f, nil
}

// OpenAt opens a file by its name in an open folder.
func OpenAt(folder int, name string, flags int, perm uint32) (f File, err error) {
	f = None
	err = again(func() error {
		fd, err := unix.Openat(folder, name, flags|unix.O_CLOEXEC, perm)
		f = File(fd)
		return err
	})
	return f, err
}

// ReadAll returns the content of a file of limit bytes at most, or as many of its first ones.
func ReadAll(path string, limit int) ([]byte, error) {
	f, err := Open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	b := make([]byte, limit)
	n, err := io.ReadFull(f, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	if err = errors.Join(err, f.Close()); err != nil {
		err = &fs.PathError{Op: "read", Path: path, Err: err}
	}
	return b[:n], err
}

// Rename is rename(2). The error is an [os.LinkError].
func Rename(from, to string) error {
	if err := again(func() error { return unix.Rename(from, to) }); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}

// Remove is unlink(2): no folder is removed. The error is a [fs.PathError].
func Remove(path string) error {
	if err := again(func() error { return unix.Unlink(path) }); err != nil {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// again makes a system call until no signal gets in its way.
func again(call func() error) error {
	err := call()
	for err == unix.EINTR {
		err = call()
	}
	return err
}

// Close closes the file.
func (f File) Close() error {
	if f == None {
		return nil
	}
	return unix.Close(int(f))
}

// Stat returns the metadata.
func (f File) Stat() (st unix.Stat_t, err error) {
	err = again(func() error { return unix.Fstat(int(f), &st) })
	return st, err
}

// Read implements [io.Reader].
func (f File) Read(b []byte) (n int, err error) {
	err = again(func() (err error) { n, err = unix.Read(int(f), b); return err })
	if err == nil && n == 0 && len(b) > 0 {
		err = io.EOF
	}
	return max(n, 0), err
}

// ReadAt implements [io.ReaderAt], for regular files.
func (f File) ReadAt(b []byte, at int64) (n int, err error) {
	err = again(func() (err error) { n, err = unix.Pread(int(f), b, at); return err })
	if err == nil && n < len(b) {
		err = io.EOF
	}
	return max(n, 0), err
}

// Write implements [io.Writer].
func (f File) Write(b []byte) (written int, err error) {
	for written < len(b) && err == nil {
		n := 0
		err = again(func() (err error) { n, err = unix.Write(int(f), b[written:]); return err })
		written += max(n, 0)
	}
	return written, err
}

// WriteAt implements [io.WriterAt].
func (f File) WriteAt(b []byte, at int64) (written int, err error) {
	for written < len(b) && err == nil {
		n := 0
		err = again(func() (err error) { n, err = unix.Pwrite(int(f), b[written:], at+int64(written)); return err })
		written += max(n, 0)
	}
	return written, err
}

// Truncate sets the length.
func (f File) Truncate(size int64) error {
	return again(func() error { return unix.Ftruncate(int(f), size) })
}

// Chmod sets the permissions.
func (f File) Chmod(perm fs.FileMode) error {
	return again(func() error { return unix.Fchmod(int(f), uint32(perm.Perm())) })
}

// Sync waits until the disk has what the file has.
func (f File) Sync() error { return again(func() error { return unix.Fsync(int(f)) }) }

package store

import (
	"io"

	"golang.org/x/sys/unix"
)

// A handle is an open file. An os.File would do as well, but for three system calls more each: it introduces itself to the
// runtime's poller, which has no use for files on a disk.
type handle int

// none is the handle of no file.
const none handle = -1

// open opens a file; it does not wait for the other end if it is a pipe.
func (d folder) open(name string, flags int) (handle, error) {
	fd, err := unix.Openat(d.fd, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return none, d.failed("open", name, err)
	}
	return handle(fd), nil
}

// close closes the file, if it is one.
func (h handle) close() {
	if h != none {
		_ = unix.Close(int(h))
	}
}

// ReadAt implements [io.ReaderAt].
func (h handle) ReadAt(b []byte, at int64) (int, error) {
	n, err := unix.Pread(int(h), b, at)
	if err == nil && n < len(b) {
		err = io.EOF
	}
	return max(n, 0), err
}

// WriteAt implements [io.WriterAt].
func (h handle) WriteAt(b []byte, at int64) (int, error) {
	n, err := unix.Pwrite(int(h), b, at)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	return max(n, 0), err
}

// Truncate sets the length.
func (h handle) Truncate(size int64) error { return unix.Ftruncate(int(h), size) }

// set makes content the whole of a small file that has had a number of bytes. What is there already needs no more space on
// the disk: the old content goes only when the new one is in place.
func (h handle) set(content string, had int64) error {
	if _, err := h.WriteAt([]byte(content), 0); err != nil || had <= int64(len(content)) {
		return err
	}
	return h.Truncate(int64(len(content)))
}

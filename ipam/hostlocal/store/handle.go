package store

import (
	"io"

	"golang.org/x/sys/unix"
)

// A handle is an open file. What an [os.File] does besides, for pipes and terminals, would be most of the system calls of an ADD.
type handle struct {
	fd   int
	dir  folder
	name string
}

// Close closes it, if it is not nil.
func (h *handle) Close() {
	if h != nil {
		_ = unix.Close(h.fd)
	}
}

// ReadAt implements [io.ReaderAt].
func (h *handle) ReadAt(b []byte, at int64) (n int, err error) {
	for n < len(b) {
		switch m, err := unix.Pread(h.fd, b[n:], at+int64(n)); {
		case err == unix.EINTR:
		case err != nil:
			return n, h.dir.failed("read", h.name, err)
		case m == 0:
			return n, io.EOF
		default:
			n += m
		}
	}
	return n, nil
}

// WriteAt implements [io.WriterAt].
func (h *handle) WriteAt(b []byte, at int64) (n int, err error) {
	for n < len(b) {
		m, err := unix.Pwrite(h.fd, b[n:], at+int64(n))
		if err != nil && err != unix.EINTR {
			return n, h.dir.failed("write", h.name, err)
		}
		n += max(m, 0)
	}
	return n, nil
}

func (h *handle) Truncate(size int64) error {
	return h.dir.failed("truncate", h.name, unix.Ftruncate(h.fd, size))
}

func (h *handle) stat() (st unix.Stat_t, err error) {
	err = unix.Fstat(h.fd, &st)
	return st, h.dir.failed("stat", h.name, err)
}

// read returns what the file is, and has. One that is no regular file has no content.
func (h *handle) read() (f file, err error) {
	st, err := h.stat()
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return file{}, err
	}
	b := make([]byte, min(st.Size, maxContent))
	n, err := h.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return file{}, err
	}
	return file{string(b[:n]), st.Ino, st.Mtim.Nano(), uint64(st.Nlink), st.Size, true}, nil
}

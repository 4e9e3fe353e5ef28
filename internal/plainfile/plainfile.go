// Package plainfile opens files as os.OpenFile does, but for what that does for pipes and terminals: it introduces each
// file to the runtime's poller, which does not take files of a disk, by five system calls. Here it is one.
package plainfile

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Open opens a file with the flags and the mode of open(2). It is closed when another program is executed. The
// error is a [fs.PathError]. With O_NONBLOCK the poller is asked all the same, by one call more.
func Open(path string, flags int, perm uint32) (*os.File, error) {
	for {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, perm)
		if err == nil {
			return os.NewFile(uintptr(fd), path), nil
		}
		if err != unix.EINTR {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

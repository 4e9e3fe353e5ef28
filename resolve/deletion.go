package resolve

import (
	"fmt"
	"os"
	"syscall"
)

// A Deletion asks the daemon for one request to the kernel: to delete all interfaces of a group in the network namespace of
// a netlink socket, whose descriptor comes with the line (SCM_RIGHTS). The kernel has a process wait long after the interfaces
// are gone, a daemon rather than one that the runtime waits for. The plugin, which has the socket too, hears from the kernel
// what becomes of it; the daemon answers only if it does nothing.
type Deletion struct {
	Group uint32 `json:"group"`
}

// DeleteLinks hands a deletion to the daemon at a socket, and does not wait. The descriptor that it returns, which the caller
// closes, becomes readable if the daemon refuses, or is no more.
func DeleteLinks(socket string, netlink int, d Deletion) (refusal int, err error) {
	// Connecting would wait while the backlog of the daemon is full.
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket}); err == nil {
		line := fmt.Appendf(nil, "{\"deleteLinks\":{\"group\":%d}}\n", d.Group)
		err = syscall.Sendmsg(fd, line, syscall.UnixRights(netlink), nil, syscall.MSG_NOSIGNAL)
	}
	if err != nil {
		_ = syscall.Close(fd)
		return -1, fmt.Errorf("ask braidd at %s to delete interfaces: %w", socket, err)
	}
	return fd, nil
}

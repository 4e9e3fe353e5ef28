package resolve

import (
	"fmt"
	"os"
	"syscall"
)

// A Deletion asks the daemon for one request to the kernel: to delete all interfaces of a group in the network namespace of
// a netlink socket, whose descriptor comes with the line (SCM_RIGHTS). The kernel has whoever asks wait long after the interfaces
// are gone: a daemon rather than a process that the runtime waits for. The plugin, which has the socket too, hears from the
// kernel what becomes of it; the daemon answers only if it does nothing.
type Deletion struct {
	Group uint32 `json:"group"`
}

// DeleteLinks hands a deletion to the daemon at a socket, and waits for nothing. The descriptor that it returns, which the
// caller closes, becomes readable if the daemon refuses, or is no more.
func DeleteLinks(socket string, netlink int, d Deletion) (refusal int, err error) {
	return hand(socket, &request{DeleteLinks: &d}, netlink)
}

// Observe tells the daemon at a socket what a call of the runtime took. It waits for nothing, and reports only that
// there is nobody to tell.
func Observe(socket string, o *Observation) error {
	conn, err := hand(socket, &request{Observe: o})
	if err != nil {
		return err
	}
	return syscall.Close(conn)
}

// hand connects to a daemon, and sends it a request, and perhaps descriptors. It waits for nothing, not even for room in the
// backlog. So it needs nothing of package net, which would be cold code in a process that lives for one call.
func hand(socket string, req *request, descriptors ...int) (conn int, err error) {
	line, err := marshalLine(req, maxRequest)
	if err != nil {
		return -1, errorf(Invalid, "encode request: %v", err)
	}
	conn, err = syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err = syscall.Connect(conn, &syscall.SockaddrUnix{Name: socket}); err == nil {
		err = send(conn, line, descriptors)
	}
	if err != nil {
		_ = syscall.Close(conn)
		return -1, fmt.Errorf("tell the daemon at %s: %w", socket, err)
	}
	return conn, nil
}

func send(conn int, line []byte, descriptors []int) error {
	var rights []byte
	if len(descriptors) > 0 {
		rights = syscall.UnixRights(descriptors...)
	}
	n, err := syscall.SendmsgN(conn, line, rights, nil, syscall.MSG_NOSIGNAL)
	if err == nil && n < len(line) {
		err = fmt.Errorf("it took %d of %d bytes", n, len(line))
	}
	return err
}

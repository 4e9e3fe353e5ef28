package resolve

import (
	"fmt"
	"os"
	"syscall"
)

// Observe tells the daemon at a socket what a call of the runtime took. It waits for nothing, not even for room in the
// backlog, and reports only that there is nobody to tell. So it needs nothing of package net, which would be cold code in a process
// that lives for one call.
func Observe(socket string, o *Observation) error {
	conn, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer syscall.Close(conn)
	if err = syscall.Connect(conn, &syscall.SockaddrUnix{Name: socket}); err == nil {
		err = o.send(conn)
	}
	if err != nil {
		return fmt.Errorf("tell the daemon at %s: %w", socket, err)
	}
	return nil
}

// send encodes what is told, which is not done for nobody.
func (o *Observation) send(conn int) error {
	line, err := marshalLine(&request{Observe: o}, maxRequest)
	if err != nil {
		return errorf(Invalid, "encode request: %v", err)
	}
	n, err := syscall.SendmsgN(conn, line, nil, nil, syscall.MSG_NOSIGNAL)
	if err == nil && n < len(line) {
		err = fmt.Errorf("it took %d of %d bytes", n, len(line))
	}
	return err
}

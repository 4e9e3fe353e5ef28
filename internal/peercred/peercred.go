// Package peercred tells who is at the other end of a unix socket.
package peercred

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Root returns an error, which names the process, if the other end was not opened by root.
func Root(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var peer *unix.Ucred
	control := raw.Control(func(fd uintptr) {
		peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(control, err); err != nil {
		return err
	}
	if peer.Uid != 0 {
		return fmt.Errorf("the user of process %d is %d, not root", peer.Pid, peer.Uid)
	}
	return nil
}

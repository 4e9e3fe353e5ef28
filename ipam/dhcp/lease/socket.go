package lease

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/netdev"
)

// ListenPacket opens a socket as net.ListenPacket does, but inside a namespace and bound to an interface of it. So
// addresses need no zone, which package net would look up on the node. Whatever thread uses it later, the socket
// is of the namespace, and keeps it alive.
func ListenPacket(ctx context.Context, ns *netdev.Namespace, ifName, network, address string) (conn net.PacketConn, err error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		control := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, ifName)
		})
		return errors.Join(control, err)
	}}
	err = ns.Do(func() error {
		conn, err = config.ListenPacket(ctx, network, address)
		return err
	})
	return conn, err
}

// PeerIsRoot returns an error if the other end of a unix socket was not opened by root.
func PeerIsRoot(conn *net.UnixConn) error {
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

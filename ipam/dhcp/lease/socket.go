package lease

import (
	"context"
	"errors"
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

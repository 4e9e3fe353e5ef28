package client4

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// unicast returns how to reach the server of a lease from the leased address: directly, or through the gateway of the
// lease. The routes of the pod do not matter. Its default route need not lead through this interface, nor need the
// interface have the address yet, or still.
func (s *session) unicast(ctx context.Context, held *lease.Lease) (destination, error) {
	server, ok := netip.AddrFromSlice(held.Server)
	if !ok {
		return destination{}, fmt.Errorf("no address of a DHCP server: %x", held.Server)
	}
	to := destination{source: held.Address.Addr(), ip: server.Unmap(), mac: nclient4.BroadcastMac}
	mac, err := s.resolve(ctx, to.source, held.NextHop(to.ip))
	if err != nil {
		return destination{}, err
	}
	if mac != nil {
		to.mac = mac
	}
	return to, nil
}

// resolve asks for the MAC of a neighbour by ARP. It returns nil if there is no answer within a second.
func (s *session) resolve(ctx context.Context, source, neighbour netip.Addr) (net.HardwareAddr, error) {
	question, err := arp.NewPacket(arp.OperationRequest, s.mac, source, make(net.HardwareAddr, 6), neighbour)
	if err != nil {
		return nil, err
	}
	frame, err := question.MarshalBinary()
	if err != nil {
		return nil, err
	}
	conn, err := s.listen(unix.ETH_P_ARP, nil)
	if err != nil {
		return nil, err
	}
	defer dispose(conn)
	for range 3 {
		if _, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: ethernet.Broadcast}); err != nil {
			return nil, fmt.Errorf("send an ARP request: %w", err)
		}
		if mac := answerOf(ctx, conn, neighbour); mac != nil || ctx.Err() != nil {
			return mac, ctx.Err()
		}
	}
	return nil, nil
}

// answerOf waits a third of a second for what a neighbour says its MAC is.
func answerOf(ctx context.Context, conn *packet.Conn, neighbour netip.Addr) net.HardwareAddr {
	_ = conn.SetReadDeadline(time.Now().Add(time.Second / 3))
	buf := make([]byte, 128)
	for ctx.Err() == nil {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			return nil
		}
		var p arp.Packet
		if p.UnmarshalBinary(buf[:n]) == nil && p.Operation == arp.OperationReply && p.SenderIP == neighbour &&
			len(p.SenderHardwareAddr) == 6 {
			return p.SenderHardwareAddr
		}
	}
	return nil
}

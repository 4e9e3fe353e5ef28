package netdev

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxFrame is more than what an answer has; what is behind it does not matter.
const maxFrame = 1514

const (
	ethernetHeader = 14
	ipv6Header     = 40
)

// arpQuestion has ARP probes: "An ARP Request packet, broadcast on the local link, with an all-zero 'sender IP
// address'."
func arpQuestion(link netlink.Link, addrs []netip.Addr) (q question, err error) {
	mac := link.Attrs().HardwareAddr
	for _, a := range addrs {
		packet, err := arp.NewPacket(arp.OperationRequest, mac, netip.IPv4Unspecified(), make(net.HardwareAddr, len(mac)), a)
		if err != nil {
			return q, err
		}
		payload, err := packet.MarshalBinary()
		if err != nil {
			return q, err
		}
		if err := q.add(ethernet.Broadcast, mac, ethernet.EtherTypeARP, payload); err != nil {
			return q, err
		}
	}
	q.claim = func(frame []byte) (netip.Addr, net.HardwareAddr) { return arpClaim(frame, mac) }
	q.socket, err = packetSocket(link, unix.ETH_P_ARP, nil, nil)
	return q, err
}

// arpClaim returns whom an ARP packet says to have an address, in the two ways of RFC 5227, section 2.1.1.
func arpClaim(frame []byte, own net.HardwareAddr) (netip.Addr, net.HardwareAddr) {
	packet := new(arp.Packet)
	if len(frame) < ethernetHeader || packet.UnmarshalBinary(frame[ethernetHeader:]) != nil {
		return netip.Addr{}, nil
	}
	// "any ARP packet (Request *or* Reply) [...] where the packet's 'sender IP address' is the address being probed for"
	if !packet.SenderIP.IsUnspecified() {
		return packet.SenderIP, packet.SenderHardwareAddr
	}
	// "any ARP Probe where the packet's 'target IP address' is the address being probed for, and the packet's 'sender
	// hardware address' is not the hardware address of any of the host's interfaces"
	if packet.Operation == arp.OperationRequest && !bytes.Equal(packet.SenderHardwareAddr, own) {
		return packet.TargetIP, packet.SenderHardwareAddr
	}
	return netip.Addr{}, nil
}

// ndpQuestion has neighbour solicitations: "the IP source is set to the unspecified address, and the IP destination is
// set to the solicited-node multicast address of the target address."
func ndpQuestion(link netlink.Link, addrs []netip.Addr) (q question, err error) {
	mac := link.Attrs().HardwareAddr
	// "the interface MUST join the all-nodes multicast address and the solicited-node multicast address of the tentative
	// address": answers come to the first, the solicitations of somebody who is about to take the address to the second.
	groups := []net.HardwareAddr{multicastMAC(netip.IPv6LinkLocalAllNodes())}
	for _, a := range addrs {
		group, err := ndp.SolicitedNodeMulticast(a)
		if err != nil {
			return q, err
		}
		groups = append(groups, multicastMAC(group))
		packet, err := solicitation(a, group)
		if err != nil {
			return q, err
		}
		if err := q.add(multicastMAC(group), mac, ethernet.EtherTypeIPv6, packet); err != nil {
			return q, err
		}
	}
	q.claim = func(frame []byte) (netip.Addr, net.HardwareAddr) { return ndpClaim(frame, mac) }
	q.socket, err = packetSocket(link, unix.ETH_P_IPV6, groups, neighbourDiscovery)
	return q, err
}

func solicitation(target, group netip.Addr) ([]byte, error) {
	message, err := ndp.MarshalMessageChecksum(&ndp.NeighborSolicitation{TargetAddress: target}, netip.IPv6Unspecified(), group)
	if err != nil {
		return nil, err
	}
	packet := make([]byte, ipv6Header, ipv6Header+len(message))
	packet[0] = 6 << 4
	binary.BigEndian.PutUint16(packet[4:], uint16(len(message)))
	packet[6], packet[7] = unix.IPPROTO_ICMPV6, 255
	copy(packet[24:], group.AsSlice())
	return append(packet, message...), nil
}

// ndpClaim returns whom a message says to have an address: the sender of an advertisement, and, by RFC 4862, section
// 5.4.3, of a solicitation: "If the source address of the Neighbor Solicitation is the unspecified address, the
// solicitation is from a node performing Duplicate Address Detection."
func ndpClaim(frame []byte, own net.HardwareAddr) (netip.Addr, net.HardwareAddr) {
	if len(frame) < ethernetHeader+ipv6Header {
		return netip.Addr{}, nil
	}
	sender, packet := net.HardwareAddr(frame[6:12]), frame[ethernetHeader:]
	// Whoever has sent a hop limit of 255 is on the link: no router has decremented it.
	if packet[6] != unix.IPPROTO_ICMPV6 || packet[7] != 255 {
		return netip.Addr{}, nil
	}
	message, err := ndp.ParseMessage(packet[ipv6Header:])
	if err != nil {
		return netip.Addr{}, nil
	}
	switch m := message.(type) {
	case *ndp.NeighborAdvertisement:
		return m.TargetAddress, sender
	case *ndp.NeighborSolicitation:
		source := netip.AddrFrom16([16]byte(packet[8:24]))
		if source.IsUnspecified() && !bytes.Equal(sender, own) { // a switch may send our own back
			return m.TargetAddress, sender
		}
	}
	return netip.Addr{}, nil
}

// multicastMAC is by RFC 2464, section 7.
func multicastMAC(group netip.Addr) net.HardwareAddr {
	b := group.As16()
	return net.HardwareAddr{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

func (q *question) add(to, from net.HardwareAddr, kind ethernet.EtherType, payload []byte) error {
	frame, err := (&ethernet.Frame{Destination: to, Source: from, EtherType: kind, Payload: payload}).MarshalBinary()
	q.frames = append(q.frames, frame)
	return err
}

// neighbourDiscovery passes solicitations and advertisements only, so that a busy link does not crowd them out.
var neighbourDiscovery = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: ethernetHeader + 6},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_ICMPV6, Jf: 4},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: ethernetHeader + ipv6Header},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 135, Jt: 1},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 136, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: maxFrame},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

// packetSocket opens a socket for the frames of a protocol on a link, which receives those to multicast groups as well.
func packetSocket(link netlink.Link, protocol uint16, groups []net.HardwareAddr, filter []unix.SockFilter) (*os.File, error) {
	// Without a protocol it receives nothing, until the bind, so that nothing gets past the filter and from other links.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "packet socket")
	if err := prepare(fd, link.Attrs().Index, protocol, groups, filter); err != nil {
		_ = socket.Close()
		return nil, fmt.Errorf("prepare a packet socket: %w", err)
	}
	return socket, nil
}

func prepare(fd, index int, protocol uint16, groups []net.HardwareAddr, filter []unix.SockFilter) error {
	if filter != nil {
		program := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, program); err != nil {
			return err
		}
	}
	for _, mac := range groups {
		member := &unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_MULTICAST, Alen: uint16(len(mac))}
		copy(member.Address[:], mac)
		if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, member); err != nil {
			return err
		}
	}
	bigEndian := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian, Ifindex: index})
}

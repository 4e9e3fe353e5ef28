package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Announce tells everybody on the link which MAC the addresses of an interface have now: by a gratuitous ARP request
// for IPv4 (RFC 5227, section 2.3) and an unsolicited neighbour advertisement for IPv6 (RFC 4861, section 7.2.6).
// Hosts that knew an address from a pod that had it before would send to that one's MAC for minutes otherwise. The
// sysctls arp_notify and ndisc_notify do not do it for an address that is added to a link which is up.
//
// It does nothing on an interface that has no neighbours (ipvlan in its L3 modes).
func (ns *Namespace) Announce(ifName string, res *types100.Result) error {
	link, err := ns.Link(ifName)
	if err != nil {
		return err
	}
	ips, err := AddressesOf(ifName, res)
	if err != nil {
		return err
	}
	if len(ips) == 0 || link.Attrs().RawFlags&unix.IFF_NOARP != 0 || len(link.Attrs().HardwareAddr) != 6 {
		return nil
	}
	return ns.Do(func() error {
		// The kernel puts the Ethernet header before what this kind of socket sends.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a packet socket: %w", err)
		}
		defer unix.Close(fd)
		for _, ip := range ips {
			if err := announce(fd, link, ip.Address.IP); err != nil {
				return fmt.Errorf("announce %s on %s: %w", ip.Address.IP, ifName, err)
			}
		}
		return nil
	})
}

func announce(fd int, link netlink.Link, ip net.IP) error {
	packet, to, err := announcement(link.Attrs().HardwareAddr, ip)
	if err != nil {
		return err
	}
	to.Ifindex = link.Attrs().Index
	if err := unix.Sendto(fd, packet, 0, to); err != nil && !errors.Is(err, unix.ENETDOWN) {
		return err
	}
	return nil // without carrier there is nobody to be told
}

func announcement(mac net.HardwareAddr, ip net.IP) ([]byte, *unix.SockaddrLinklayer, error) {
	addr, _ := netip.AddrFromSlice(ip)
	if addr = addr.Unmap(); addr.Is4() {
		p, err := arp.NewPacket(arp.OperationRequest, mac, addr, make(net.HardwareAddr, 6), addr)
		if err != nil {
			return nil, nil, err
		}
		packet, err := p.MarshalBinary()
		return packet, linkLayer(unix.ETH_P_ARP, ethernet.Broadcast), err
	}
	allNodes := netip.MustParseAddr("ff02::1")
	icmp, err := ndp.MarshalMessageChecksum(&ndp.NeighborAdvertisement{
		Override:      true,
		TargetAddress: addr,
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac}},
	}, addr, allNodes)
	if err != nil {
		return nil, nil, err
	}
	return append(ipv6Header(len(icmp), addr, allNodes), icmp...),
		linkLayer(unix.ETH_P_IPV6, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}), nil
}

// ipv6Header is one for ICMPv6, with the hop limit of 255 that receivers of neighbour discovery insist on.
func ipv6Header(length int, from, to netip.Addr) []byte {
	header := []byte{6 << 4, 0, 0, 0, byte(length >> 8), byte(length), unix.IPPROTO_ICMPV6, 255}
	header = append(header, from.AsSlice()...)
	return append(header, to.AsSlice()...)
}

func linkLayer(protocol uint16, to net.HardwareAddr) *unix.SockaddrLinklayer {
	sa := &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Halen: uint8(len(to))} // in network byte order
	copy(sa.Addr[:], to)
	return sa
}

package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/mdlayher/ndp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Announce tells everybody on the link which MAC the addresses of an interface have now: by gratuitous ARP requests for
// IPv4 (RFC 5227, section 2.3) and an unsolicited neighbour advertisement for IPv6 (RFC 4861, section 7.2.6). Hosts that
// knew an address from a pod that had it before would send to that one's MAC for minutes otherwise. The sysctls
// arp_notify and ndisc_notify do not do it for an address that is added to a link which is up.
//
// It does nothing on an interface that has no neighbours (ipvlan in its L3 modes).
func (ns *Namespace) Announce(link netlink.Link, res *types100.Result) error {
	ips, err := AddressesOf(link.Attrs().Name, res)
	if err != nil {
		return err
	}
	b := ns.Batch()
	b.announceIPv4(link, ips)
	if err := b.Send(); err != nil {
		return err
	}
	return ns.announceIPv6(link, ips)
}

func hasNeighbours(link netlink.Link) bool {
	return link.Attrs().RawFlags&unix.IFF_NOARP == 0 && len(link.Attrs().HardwareAddr) == 6
}

// announceIPv4 makes the kernel look for the interface's own address as if it were a neighbour's. What it sends, three
// times with a second in between, are gratuitous ARP requests. A packet socket could send them too, but to close one
// takes the kernel an RCU grace period: ten milliseconds and more.
func (b *Batch) announceIPv4(link netlink.Link, ips []*types100.IPConfig) {
	for _, ip := range ips {
		ip := ip.Address.IP.To4()
		if ip == nil || !hasNeighbours(link) {
			continue
		}
		header := &netlink.Ndmsg{Family: unix.AF_INET, Index: uint32(link.Attrs().Index), Flags: netlink.NTF_USE}
		b.add(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK, func(_ [][]byte, err error) error {
			if err == nil || errors.Is(err, unix.ENOBUFS) {
				return nil // the table of neighbours, which all namespaces share, is full: no reason to have no network
			}
			return fmt.Errorf("announce %s on %s: %w", ip, link.Attrs().Name, err)
		}, header, nl.NewRtAttr(netlink.NDA_DST, ip))
	}
}

func (ns *Namespace) announceIPv6(link netlink.Link, ips []*types100.IPConfig) error {
	var v6 []net.IP
	for _, ip := range ips {
		if family(ip.Address.IP) == netlink.FAMILY_V6 && hasNeighbours(link) {
			v6 = append(v6, ip.Address.IP)
		}
	}
	if len(v6) == 0 {
		return nil
	}
	return ns.Do(func() error { return advertiseAll(link, v6) })
}

func advertiseAll(link netlink.Link, ips []net.IP) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		return fmt.Errorf("open an ICMPv6 socket: %w", err)
	}
	defer unix.Close(fd)
	// Receivers of neighbour discovery insist on a hop limit that no router has decremented.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
		return fmt.Errorf("set the hop limit: %w", err)
	}
	for _, ip := range ips {
		if err := advertise(fd, link, ip); err != nil {
			return fmt.Errorf("announce %s on %s: %w", ip, link.Attrs().Name, err)
		}
	}
	return nil
}

func advertise(fd int, link netlink.Link, ip net.IP) error {
	index := link.Attrs().Index
	from := &unix.Inet6Pktinfo{Ifindex: uint32(index)}
	copy(from.Addr[:], ip.To16())
	message, err := ndp.MarshalMessage(&ndp.NeighborAdvertisement{
		Override:      true,
		TargetAddress: netip.AddrFrom16(from.Addr),
		Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: link.Attrs().HardwareAddr}},
	})
	if err != nil {
		return err
	}
	allNodes := &unix.SockaddrInet6{Addr: netip.MustParseAddr("ff02::1").As16(), ZoneId: uint32(index)}
	err = unix.Sendmsg(fd, message, unix.PktInfo6(from), allNodes, 0)
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.ENOBUFS):
		return nil // without carrier the address cannot be used yet, and nobody can be told
	}
	return err
}

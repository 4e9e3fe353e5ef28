package netdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func netlinkAddrs(ips []*types100.IPConfig) (addrs []*netlink.Addr) {
	for _, ip := range ips {
		addrs = append(addrs, &netlink.Addr{IPNet: &net.IPNet{IP: ip.Address.IP, Mask: ip.Address.Mask}})
	}
	return addrs
}

func hasIPv6(addrs []*netlink.Addr) bool {
	for _, a := range addrs {
		if family(a.IP) == netlink.FAMILY_V6 {
			return true
		}
	}
	return false
}

func family(ip net.IP) int {
	if ip.To4() != nil {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

func (b *Batch) addAddress(link netlink.Link, addr *netlink.Addr) {
	ip, ones, bits := rawIP(addr.IP), 0, 0
	if ones, bits = addr.Mask.Size(); bits > 8*len(ip) { // of an IPv4 address written as IPv6
		ones -= bits - 8*len(ip)
	}
	header := nl.NewIfAddrmsg(family(addr.IP))
	header.Index, header.Prefixlen = uint32(link.Attrs().Index), uint8(ones)
	header.IfAddrmsg.Flags = uint8(addr.Flags)
	data := []nl.NetlinkRequestData{header, nl.NewRtAttr(unix.IFA_LOCAL, ip), nl.NewRtAttr(unix.IFA_ADDRESS, ip)}
	if len(ip) == net.IPv4len && ones < 31 { // RFC 3021: a subnet of two has no broadcast address
		broadcast := binary.BigEndian.Uint32(ip) | ^uint32(0)>>ones
		data = append(data, nl.NewRtAttr(unix.IFA_BROADCAST, binary.BigEndian.AppendUint32(nil, broadcast)))
	}
	b.add(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK, func(_ [][]byte, err error) error {
		if errors.Is(err, unix.EEXIST) {
			// The kernel knows an IPv6 address with another prefix length as the same one.
			if have, listErr := b.ns.Addresses(link); listErr == nil && find(have, addr) != nil {
				return nil
			}
		}
		if err != nil {
			return fmt.Errorf("add address %s to %s: %w", addr.IPNet, link.Attrs().Name, err)
		}
		return nil
	}, data...)
}

// rawIP returns an address in the length of its family.
func rawIP(ip net.IP) net.IP {
	if v4 := ip.To4(); v4 != nil {
		return v4
	}
	return ip.To16()
}

// Addresses returns those of an interface.
func (ns *Namespace) Addresses(link netlink.Link) ([]netlink.Addr, error) {
	index := link.Attrs().Index
	header := nl.NewIfAddrmsg(unix.AF_UNSPEC)
	header.Index = uint32(index)
	addrs, err := list(ns, unix.RTM_GETADDR, decodeAddress, header)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", link.Attrs().Name, err)
	}
	// A kernel before 4.20 lists them all.
	return slices.DeleteFunc(addrs, func(a netlink.Addr) bool { return a.LinkIndex != index }), nil
}

// decodeAddress reads of an address what a configuration says of one.
func decodeAddress(message []byte) (a netlink.Addr, err error) {
	if len(message) < unix.SizeofIfAddrmsg {
		return a, unix.EBADMSG
	}
	header := nl.DeserializeIfAddrmsg(message)
	attributes, err := nl.ParseRouteAttr(message[unix.SizeofIfAddrmsg:])
	if err != nil {
		return a, err
	}
	a.LinkIndex, a.Flags = int(header.Index), int(header.IfAddrmsg.Flags)
	var local, address net.IP
	for _, attr := range attributes {
		switch {
		case attr.Attr.Type == unix.IFA_LOCAL:
			local = attr.Value
		case attr.Attr.Type == unix.IFA_ADDRESS:
			address = attr.Value // of the other end, if the link has only two
		case attr.Attr.Type == unix.IFA_FLAGS && len(attr.Value) >= 4:
			a.Flags = int(nl.NativeEndian().Uint32(attr.Value))
		}
	}
	if local == nil {
		local = address
	}
	a.IPNet = &net.IPNet{IP: local, Mask: net.CIDRMask(int(header.Prefixlen), 8*len(local))}
	return a, nil
}

// find returns the address that equals another one, prefix length included.
func find(have []netlink.Addr, want *netlink.Addr) *netlink.Addr {
	for i, a := range have {
		if a.IP.Equal(want.IP) && bytes.Equal(a.Mask, want.Mask) {
			return &have[i]
		}
	}
	return nil
}

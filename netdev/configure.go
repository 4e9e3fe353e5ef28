package netdev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Options say how an interface is configured beyond what a result holds. CHECK needs the same as ADD.
type Options struct {
	// UniqueAddresses says that nobody else can have the addresses, so that IPv6 duplicate address detection, which
	// takes a second or two, is skipped.
	UniqueAddresses bool

	// SourceRouting makes replies leave by the interface that the request came in on, see sourcerouting.go.
	SourceRouting bool
}

// Configure sets an interface up and gives it those addresses of the result that refer to it, and all routes of the
// result. What is there already is left as it is. It returns when the addresses can be used: it waits for duplicate
// address detection, at most 5 seconds, and fails if another host has an address.
func (ns *Namespace) Configure(ctx context.Context, link netlink.Link, res *types100.Result, opts Options) error {
	ifName := link.Attrs().Name
	ips, err := AddressesOf(ifName, res)
	if err != nil {
		return err
	}
	addrs := netlinkAddrs(ips, opts)
	if hasIPv6(addrs) {
		if err := ns.enableIPv6(ifName); err != nil {
			return err
		}
	}
	detection := hasIPv6(addrs) && !opts.UniqueAddresses
	var restore func() error
	if detection {
		if restore, err = ns.hastenDetection(ifName); err != nil {
			return err
		}
	}
	for _, addr := range addrs {
		if err := ns.addAddress(link, addr); err != nil {
			return err
		}
	}
	if err := ns.SetUp(link); err != nil {
		return err
	}
	for _, route := range netlinkRoutes(link, ips, res.Routes) {
		if err := ns.addRoute(route); err != nil {
			return err
		}
	}
	if opts.SourceRouting {
		if err := ns.addSourceRouting(link, ips, res.Routes); err != nil {
			return err
		}
	}
	if !detection {
		return nil
	}
	return errors.Join(ns.waitDAD(ctx, link, addrs), restore())
}

// AddressesOf returns the addresses of a result that refer to an interface of the pod, and fails if an index points nowhere.
func AddressesOf(ifName string, res *types100.Result) (ips []*types100.IPConfig, err error) {
	for i, ip := range res.IPs {
		if ip.Interface == nil {
			continue
		}
		n := *ip.Interface
		if n < 0 || n >= len(res.Interfaces) {
			return nil, fmt.Errorf("ips[%d] of the result refers to interface %d of %d", i, n, len(res.Interfaces))
		}
		if of := res.Interfaces[n]; of.Name == ifName && of.Sandbox != "" {
			ips = append(ips, ip)
		}
	}
	return ips, nil
}

func netlinkAddrs(ips []*types100.IPConfig, opts Options) (addrs []*netlink.Addr) {
	for _, ip := range ips {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: ip.Address.IP, Mask: ip.Address.Mask}}
		if opts.UniqueAddresses && family(addr.IP) == netlink.FAMILY_V6 {
			addr.Flags = unix.IFA_F_NODAD
		}
		addrs = append(addrs, addr)
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

func (ns *Namespace) addAddress(link netlink.Link, addr *netlink.Addr) error {
	err := ns.handle.AddrAdd(link, addr)
	if errors.Is(err, unix.EEXIST) {
		// The kernel knows an IPv6 address with another prefix length as the same one.
		have, list := Dump(func() ([]netlink.Addr, error) { return ns.handle.AddrList(link, family(addr.IP)) })
		if list == nil && find(have, addr) != nil {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("add address %s to %s: %w", addr.IPNet, link.Attrs().Name, err)
	}
	return nil
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

package netdev

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// WaitAddress waits until an interface has an IPv6 address that is wanted and that duplicate address detection has
// accepted, and returns it. The error wraps that of the context if it ends before; an address that another host has is
// an error at once.
func (ns *Namespace) WaitAddress(ctx context.Context, ifName string, wanted func(netlink.Addr) bool) (netlink.Addr, error) {
	link, err := ns.Link(ifName)
	if err != nil {
		return netlink.Addr{}, err
	}
	var found netlink.Addr
	err = ns.waitFor(ctx, func() (bool, error) {
		have, err := ns.Addresses(link)
		for _, a := range have {
			switch {
			case a.IP.To4() != nil || !wanted(a):
			case a.Flags&unix.IFA_F_DADFAILED != 0:
				return false, fmt.Errorf("address %s is in use by another host", a.IPNet)
			case a.Flags&unix.IFA_F_TENTATIVE == 0:
				found = a
				return true, nil
			}
		}
		return false, err
	}, unix.RTNLGRP_IPV6_IFADDR)
	if err != nil {
		return netlink.Addr{}, fmt.Errorf("wait for an address of %s: %w", ifName, err)
	}
	return found, nil
}

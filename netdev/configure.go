package netdev

import (
	"context"
	"errors"
	"fmt"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
)

// Options say how an interface is configured beyond what a result holds. CHECK needs the same as ADD.
type Options struct {
	// Detection of duplicates among IPv6 addresses.
	Detection Detection

	// SourceRouting makes replies leave by the interface that the request came in on, see sourcerouting.go.
	SourceRouting bool
}

// Configure sets an interface up, gives it those addresses of the result that refer to it, and all routes of the result, and
// announces the addresses. What is there already is left as it is. It returns when the addresses can be used: where duplicate
// address detection is awaited it takes at most 5 seconds, and an address that another host has is an error.
func (ns *Namespace) Configure(ctx context.Context, link netlink.Link, res *types100.Result, opts Options) error {
	ifName := link.Attrs().Name
	ips, err := AddressesOf(ifName, res)
	if err != nil {
		return err
	}
	addrs, detection := netlinkAddrs(ips), Skipped
	if hasIPv6(addrs) {
		detection = opts.Detection
		if err := ns.enableIPv6(ifName); err != nil {
			return err
		}
	}
	if detection == Optimistic {
		if ok, err := ns.allowOptimistic(ifName); err != nil {
			return err
		} else if !ok {
			detection = Awaited
		}
	}
	restore := func() error { return nil }
	if detection == Awaited {
		if restore, err = ns.hastenDetection(ifName); err != nil {
			return err
		}
	}
	b := ns.Batch()
	for _, addr := range addrs {
		addr.Flags = detection.flags(addr.IP)
		b.addAddress(link, addr)
	}
	b.setUp(link)
	for _, route := range netlinkRoutes(link, ips, res.Routes) {
		b.addRoute(route)
	}
	if opts.SourceRouting {
		b.addSourceRoutes(link, ips, res.Routes)
	}
	b.announceIPv4(link, ips)
	if err := b.Send(); err != nil {
		return err
	}
	if opts.SourceRouting {
		if err := ns.addSourceRules(link, ips); err != nil {
			return err
		}
	}
	switch detection {
	case Optimistic:
		return nil // an announcement overrides what neighbours know, and the address may be another host's (RFC 4429, section 2.2)
	case Awaited:
		if err := errors.Join(ns.waitDAD(ctx, link, addrs), restore()); err != nil {
			return err
		}
	}
	return ns.announceIPv6(link, ips)
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

package dhcp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
	"github.com/braid-cni/braid/ipam/dhcp/ra"
	"github.com/braid-cni/braid/netdev"
)

const (
	// slaacPatience is how long a router is waited for that advertises a prefix.
	slaacPatience = 30 * time.Second
	// routerPatience is how long one is waited for where the address comes from DHCPv6: that says nothing of routers,
	// but a network can do without.
	routerPatience = 5 * time.Second
)

// What routers have advertised: everything for slaac, the gateway only for DHCPv6, nothing without IPv6.
type advertised struct {
	address netip.Prefix
	router  *ra.Advertisement
	metric  int
	err     error
}

// advertised has the kernel take what routers say, and returns it.
func (c *config) advertised(ctx context.Context, req *cni.Request) (r advertised) {
	r.metric = c.IPAM.Priority
	switch c.IPAM.IPv6 {
	case slaac:
		ctx, cancel := context.WithTimeoutCause(ctx, slaacPatience,
			fmt.Errorf("no router advertises a prefix for autoconfiguration within %s", slaacPatience))
		defer cancel()
		r.err = r.autoconfigure(ctx, req)
	case stateful:
		ctx, cancel := context.WithTimeout(ctx, routerPatience)
		defer cancel()
		err := r.listen(ctx, req, false, func(a *ra.Advertisement) bool { return a.Default }, nil)
		if ctx.Err() == nil {
			r.err = err
		}
	}
	return r
}

func (r *advertised) autoconfigure(ctx context.Context, req *cni.Request) error {
	err := r.listen(ctx, req, true, func(a *ra.Advertisement) bool { return len(a.Prefixes) > 0 },
		func(l *ra.Listener) (err error) {
			r.address, err = l.Address(ctx, r.router.Prefixes)
			return err
		})
	if err != nil && ctx.Err() != nil {
		return tryAgain(err)
	}
	return err
}

// listen waits for an advertisement that is wanted, and calls then.
func (r *advertised) listen(ctx context.Context, req *cni.Request, autoconf bool,
	wanted func(*ra.Advertisement) bool, then func(*ra.Listener) error) error {
	ns, err := netdev.Open(req.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	l, err := ra.Listen(ctx, ns, req.IfName, autoconf)
	if err != nil {
		return err
	}
	defer l.Close()
	if r.router, err = l.Wait(ctx, wanted); err != nil || then == nil {
		return err
	}
	return then(l)
}

// addTo completes the result of the leases.
func (r *advertised) addTo(res *types100.Result) {
	if r.router == nil {
		return
	}
	var gateway net.IP
	if r.router.Default {
		gateway = r.router.Router.AsSlice()
		res.Routes = append(res.Routes, &types.Route{
			Dst: net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}, GW: gateway, Priority: r.metric,
		})
	}
	if r.address.IsValid() {
		res.IPs = append(res.IPs, &types100.IPConfig{Address: *lease.IPNet(r.address), Gateway: gateway})
	} else if gateway != nil {
		for _, ip := range res.IPs {
			if ip.Address.IP.To4() == nil {
				ip.Gateway = gateway
			}
		}
	}
	res.DNS.Nameservers = lease.Union(res.DNS.Nameservers, r.router.Servers)
	res.DNS.Search = lease.Union(res.DNS.Search, r.router.Search)
}

// checkAdvertised fails if the interface has lost an IPv6 address of prevResult, which the kernel removes when no
// router advertises its prefix any more.
func checkAdvertised(req *cni.Request, prev *types100.Result) error {
	ns, err := netdev.Open(req.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	link, err := ns.Link(req.IfName)
	if err != nil {
		return err
	}
	have, err := netdev.Dump(func() ([]netlink.Addr, error) { return ns.Handle().AddrList(link, netlink.FAMILY_V6) })
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", req.IfName, err)
	}
	var errs []error
	for _, ip := range prev.IPs {
		if ip.Address.IP.To4() != nil || !of(req.IfName, ip, prev) {
			continue
		}
		if !slices.ContainsFunc(have, func(a netlink.Addr) bool { return a.IP.Equal(ip.Address.IP) }) {
			errs = append(errs, fmt.Errorf("the address %s of prevResult is not on %s any more", ip.Address.String(), req.IfName))
		}
	}
	return errors.Join(errs...)
}

// of tells whether an address is that of an interface, as far as the result says.
func of(ifName string, ip *types100.IPConfig, res *types100.Result) bool {
	n := ip.Interface
	return n == nil || *n >= 0 && *n < len(res.Interfaces) && res.Interfaces[*n].Name == ifName
}

func sorted(m map[string]uint8) []string { return slices.Sorted(maps.Keys(m)) }

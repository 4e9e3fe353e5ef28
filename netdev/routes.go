package netdev

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// netlinkRoutes turns the routes of a result into those of an interface.
//
// "The next hop address. If unset, a value in `gateway` in the `ips` array may be used."
func netlinkRoutes(link netlink.Link, ips []*types100.IPConfig, routes []*types.Route) (out []*netlink.Route) {
	for _, r := range routes {
		route := &netlink.Route{
			LinkIndex: link.Attrs().Index,
			Dst:       &net.IPNet{IP: r.Dst.IP, Mask: r.Dst.Mask},
			Gw:        r.GW,
			MTU:       r.MTU,
			AdvMSS:    r.AdvMSS,
			Priority:  r.Priority,
		}
		if r.Table != nil {
			route.Table = *r.Table
		}
		if r.Scope != nil {
			route.Scope = netlink.Scope(*r.Scope)
		}
		// A next hop on the link's own scope is a contradiction that the kernel refuses.
		if route.Gw == nil && route.Scope < netlink.SCOPE_LINK {
			route.Gw = gateway(ips, family(r.Dst.IP))
		}
		if route.Gw.IsUnspecified() {
			route.Gw = nil // said on purpose: everything is on the link
		}
		// With this scope it can lead to the gateway of a later route, outside the subnets of the interface.
		if route.Gw == nil && r.Scope == nil {
			route.Scope = netlink.SCOPE_LINK
		}
		out = append(out, route)
	}
	return out
}

// gateway returns the last gateway of a family, as the reference plugins do.
func gateway(ips []*types100.IPConfig, fam int) (gw net.IP) {
	for _, ip := range ips {
		if ip.Gateway != nil && family(ip.Gateway) == fam {
			gw = ip.Gateway
		}
	}
	return gw
}

func (b *Batch) addRoute(route *netlink.Route) {
	data, err := routeMessage(route)
	if err != nil {
		b.fail(fmt.Errorf("add route %s: %w", routeString(route), err))
		return
	}
	// With neither "exclusive" nor "replace" a route of another interface to the same destination stays, and only the very
	// same one is EEXIST.
	b.add(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_ACK, func(_ [][]byte, err error) error {
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add route %s: %w", routeString(route), err)
		}
		return nil
	}, data...)
}

// routeMessage has of a route what [netlinkRoutes] puts into one.
func routeMessage(r *netlink.Route) ([]nl.NetlinkRequestData, error) {
	header, dst := nl.NewRtMsg(), rawIP(r.Dst.IP)
	ones, _ := r.Dst.Mask.Size()
	header.Family, header.Dst_len, header.Scope = uint8(family(dst)), uint8(ones), uint8(r.Scope)
	data := []nl.NetlinkRequestData{header, nl.NewRtAttr(unix.RTA_DST, dst), nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(r.LinkIndex)))}
	if r.Gw != nil {
		gw := rawIP(r.Gw)
		if len(gw) != len(dst) {
			return nil, errors.New("the gateway is of the other IP family")
		}
		data = append(data, nl.NewRtAttr(unix.RTA_GATEWAY, gw))
	}
	if r.Table > 0 {
		header.Table = unix.RT_TABLE_UNSPEC
		data = append(data, nl.NewRtAttr(unix.RTA_TABLE, nl.Uint32Attr(uint32(r.Table))))
	}
	if r.Priority > 0 {
		data = append(data, nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(uint32(r.Priority))))
	}
	metrics := nl.NewRtAttr(unix.RTA_METRICS, nil)
	if r.MTU > 0 {
		metrics.AddRtAttr(unix.RTAX_MTU, nl.Uint32Attr(uint32(r.MTU)))
	}
	if r.AdvMSS > 0 {
		metrics.AddRtAttr(unix.RTAX_ADVMSS, nl.Uint32Attr(uint32(r.AdvMSS)))
	}
	if r.MTU > 0 || r.AdvMSS > 0 {
		data = append(data, metrics)
	}
	return data, nil
}

func routeString(r *netlink.Route) string {
	s := r.Dst.String()
	if r.Gw != nil {
		s += " via " + r.Gw.String()
	}
	if r.Table != 0 {
		s += fmt.Sprintf(" table %d", r.Table)
	}
	return s
}

// everywhere returns the destination of a default route.
func everywhere(fam int) *net.IPNet {
	bits := 128
	if fam == netlink.FAMILY_V4 {
		bits = 32
	}
	return &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
}

func isDefault(dst *net.IPNet) bool {
	ones, _ := dst.Mask.Size()
	return ones == 0 && dst.IP.IsUnspecified()
}

func sameRoute(have netlink.Route, want *netlink.Route) bool {
	return sameDst(have.Dst, want.Dst) && viaGateway(have, want.Gw) &&
		(want.Priority == 0 || have.Priority == want.Priority) &&
		(want.MTU == 0 || have.MTU == want.MTU) &&
		(want.AdvMSS == 0 || have.AdvMSS == want.AdvMSS)
}

func sameDst(have, want *net.IPNet) bool {
	return have != nil && have.IP.Equal(want.IP.Mask(want.Mask)) && have.Mask.String() == want.Mask.String()
}

func viaGateway(have netlink.Route, gw net.IP) bool {
	return have.Gw.Equal(gw) || slices.ContainsFunc(have.MultiPath, func(hop *netlink.NexthopInfo) bool {
		return hop.Gw.Equal(gw)
	})
}

// routes lists the unicast routes of all tables but the local one. The destination of a default route is never nil.
func (ns *Namespace) routes(fam int) (routes []netlink.Route, err error) {
	all, err := Dump(func() ([]netlink.Route, error) {
		return ns.handle.RouteListFiltered(fam, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list the routes of %s: %w", ns.path, err)
	}
	for _, r := range all {
		if r.Type != unix.RTN_UNICAST || r.Table == unix.RT_TABLE_LOCAL {
			continue
		}
		if r.Dst == nil {
			r.Dst = everywhere(r.Family)
		}
		routes = append(routes, single(r)...)
	}
	return routes, nil
}

// single takes an IPv6 route with several next hops apart: to the kernel these are several routes, which it only shows
// as one, for instance the default routes that two interfaces have with the same metric.
func single(route netlink.Route) (routes []netlink.Route) {
	if route.Family != netlink.FAMILY_V6 || len(route.MultiPath) == 0 {
		return []netlink.Route{route}
	}
	for _, hop := range route.MultiPath {
		r := route
		r.MultiPath, r.LinkIndex, r.Gw = nil, hop.LinkIndex, hop.Gw
		routes = append(routes, r)
	}
	return routes
}

// through tells whether a route, or one of its next hops, leads through an interface.
func through(route netlink.Route, index int) bool {
	return route.LinkIndex == index || slices.ContainsFunc(route.MultiPath, func(hop *netlink.NexthopInfo) bool {
		return hop.LinkIndex == index
	})
}

package netdev

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Check returns an error that names everything of an interface that is not as the result says: the interface itself,
// up, with its MAC and MTU, the addresses with their prefix length, and the routes with gateway, metric and table.
//
// "The plugin must allow for a later chained plugin to have modified networking resources, e.g. routes, on `ADD`." So
// a route that names no table may be in any, and may lead through any interface.
func (ns *Namespace) Check(ifName string, res *types100.Result, opts Options) error {
	link, err := ns.Link(ifName)
	if err != nil {
		return err
	}
	ips, err := AddressesOf(ifName, res)
	if err != nil {
		return err
	}
	errs := []error{checkLink(link, res), ns.checkAddresses(link, ips), ns.checkRoutes(link, res)}
	if opts.SourceRouting {
		errs = append(errs, ns.checkSourceRouting(link, ips, res))
	}
	return errors.Join(errs...)
}

func checkLink(link netlink.Link, res *types100.Result) error {
	var errs []error
	have := link.Attrs()
	if have.Flags&net.FlagUp == 0 {
		errs = append(errs, fmt.Errorf("interface %s is down", have.Name))
	}
	i := slices.IndexFunc(res.Interfaces, func(i *types100.Interface) bool {
		return i.Name == have.Name && i.Sandbox != ""
	})
	if i < 0 {
		return errors.Join(append(errs, fmt.Errorf("the result has no interface %s", have.Name))...)
	}
	want := res.Interfaces[i]
	if mac, err := net.ParseMAC(want.Mac); err == nil && mac.String() != have.HardwareAddr.String() {
		errs = append(errs, fmt.Errorf("interface %s has MAC %s, want %s", have.Name, have.HardwareAddr, mac))
	}
	if want.Mtu != 0 && want.Mtu != have.MTU {
		errs = append(errs, fmt.Errorf("interface %s has MTU %d, want %d", have.Name, have.MTU, want.Mtu))
	}
	return errors.Join(errs...)
}

func (ns *Namespace) checkAddresses(link netlink.Link, ips []*types100.IPConfig) error {
	have, err := Dump(func() ([]netlink.Addr, error) { return ns.handle.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list the addresses of %s: %w", link.Attrs().Name, err)
	}
	var errs []error
	for _, want := range netlinkAddrs(ips, Options{}) {
		switch a := find(have, want); {
		case a == nil:
			errs = append(errs, fmt.Errorf("interface %s lacks address %s", link.Attrs().Name, want.IPNet))
		case a.Flags&unix.IFA_F_DADFAILED != 0:
			errs = append(errs, fmt.Errorf("address %s is in use by another host", want.IPNet))
		}
	}
	return errors.Join(errs...)
}

// checkRoutes expects a route that names no gateway to have that of some interface of the result: which plugin of the
// chain it was applied by is not said.
func (ns *Namespace) checkRoutes(link netlink.Link, res *types100.Result) error {
	if len(res.Routes) == 0 {
		return nil
	}
	have, err := ns.routes(netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range res.Routes {
		choices := applied(link, res, r)
		if !slices.ContainsFunc(choices, func(want *netlink.Route) bool {
			return slices.ContainsFunc(have, func(h netlink.Route) bool {
				return sameRoute(h, want) && (want.Table == 0 || h.Table == want.Table)
			})
		}) {
			errs = append(errs, fmt.Errorf("route %s is missing", routeString(choices[0])))
		}
	}
	return errors.Join(errs...)
}

// applied returns what a route of a result becomes, by the interface that it is applied to.
func applied(link netlink.Link, res *types100.Result, route *types.Route) (choices []*netlink.Route) {
	byInterface := map[int][]*types100.IPConfig{}
	for _, ip := range res.IPs {
		if ip.Interface != nil {
			byInterface[*ip.Interface] = append(byInterface[*ip.Interface], ip)
		}
	}
	for _, i := range slices.Sorted(maps.Keys(byInterface)) {
		choices = append(choices, netlinkRoutes(link, byInterface[i], []*types.Route{route})...)
	}
	if len(choices) == 0 {
		return netlinkRoutes(link, nil, []*types.Route{route})
	}
	return choices
}

func (ns *Namespace) checkSourceRouting(link netlink.Link, ips []*types100.IPConfig, res *types100.Result) error {
	have, err := ns.routes(netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	rules, err := ns.sourceRulesOf()
	if err != nil {
		return err
	}
	var errs []error
	for _, want := range sourceRoutes(link, ips, res.Routes) {
		if !slices.ContainsFunc(have, func(h netlink.Route) bool {
			return sameRoute(h, want) && h.Table == want.Table && h.LinkIndex == want.LinkIndex
		}) {
			errs = append(errs, fmt.Errorf("route %s is missing", routeString(want)))
		}
	}
	for _, want := range sourceRules(link, ips) {
		if !slices.ContainsFunc(rules[want.Table], func(have netlink.Rule) bool { return have.Src.IP.Equal(want.Src.IP) }) {
			errs = append(errs, fmt.Errorf("the rule from %s to table %d is missing", want.Src, want.Table))
		}
	}
	return errors.Join(errs...)
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

package netdev

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// DefaultRoutes returns the default routes of the main table, of netlink.FAMILY_V4, FAMILY_V6 or FAMILY_ALL.
func (ns *Namespace) DefaultRoutes(fam int) (routes []netlink.Route, err error) {
	all, err := ns.routes(fam)
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		if r.Table == unix.RT_TABLE_MAIN && isDefault(r.Dst) {
			routes = append(routes, r)
		}
	}
	return routes, nil
}

// SetDefaultRoutes makes the gateways, reached through an interface, the only default routes of their families in the
// main table, whatever interfaces those went through that it replaces. A family without a gateway is left as it is.
func (ns *Namespace) SetDefaultRoutes(ifName string, gateways ...net.IP) error {
	link, err := ns.Link(ifName)
	if err != nil {
		return err
	}
	for _, fam := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		var want []*netlink.Route
		for _, gw := range gateways {
			if family(gw) == fam {
				want = append(want, &netlink.Route{LinkIndex: link.Attrs().Index, Dst: everywhere(fam), Gw: gw})
			}
		}
		if len(want) == 0 {
			continue
		}
		if err := ns.DeleteDefaultRoutes("", fam); err != nil {
			return err
		}
		b := ns.Batch()
		for _, route := range want {
			b.addRoute(route)
		}
		if err := b.Send(); err != nil {
			return err
		}
	}
	return nil
}

// DeleteDefaultRoutes deletes the default routes of a family (or netlink.FAMILY_ALL) in the main table that lead
// through an interface; through any, if the name is empty.
func (ns *Namespace) DeleteDefaultRoutes(ifName string, fam int) error {
	index := 0
	if ifName != "" {
		link, err := ns.Link(ifName)
		if err != nil {
			return err
		}
		index = link.Attrs().Index
	}
	routes, err := ns.DefaultRoutes(fam)
	if err != nil {
		return err
	}
	for _, route := range routes {
		if index != 0 && !through(route, index) {
			continue
		}
		if err := ns.handle.RouteDel(&route); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("delete route %s: %w", routeString(&route), err)
		}
	}
	return nil
}

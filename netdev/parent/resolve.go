package parent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/netdev"
)

// ErrNotFound is wrapped by the error of Resolve if no interface meets the conditions.
var ErrNotFound = errors.New("no such parent interface")

// Resolve returns the interface of a namespace that the selector means. The error wraps ErrNotFound if there is none,
// and lists the interfaces if there are several.
func (s Selector) Resolve(ns *netdev.Namespace) (netlink.Link, error) {
	if s.IsName() {
		return s.byName(ns)
	}
	links, err := ns.Links()
	if err != nil {
		return nil, err
	}
	links = slices.DeleteFunc(links, func(l netlink.Link) bool { return !eligible(l) })
	for _, holds := range []func(*netdev.Namespace, []netlink.Link) ([]netlink.Link, error){
		s.withName, s.withSubnet, s.withDefaultRoute,
	} {
		if links, err = holds(ns, links); err != nil {
			return nil, err
		}
	}
	return s.one(links)
}

// byName answers the common case with one question to the kernel, which knows alternative names too.
func (s Selector) byName(ns *netdev.Namespace) (netlink.Link, error) {
	link, err := ns.Link(s.name)
	if errors.Is(err, netdev.ErrNotFound) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, s.name)
	}
	return link, err
}

// eligible leaves out what a search must not find: lo, and interfaces that are stacked on a parent themselves and have
// its MAC or an address of its subnet, such as the node's own macvlan for access to its pods.
func eligible(link netlink.Link) bool {
	switch link.Type() {
	case "macvlan", "macvtap", "ipvlan", "ipvtap":
		return false
	}
	return link.Attrs().Flags&net.FlagLoopback == 0
}

func (s Selector) withName(_ *netdev.Namespace, links []netlink.Link) ([]netlink.Link, error) {
	return slices.DeleteFunc(links, func(l netlink.Link) bool {
		a := l.Attrs()
		names := append([]string{a.Name}, a.AltNames...)
		return s.name != "" && !slices.Contains(names, s.name) ||
			s.altName != "" && !slices.Contains(a.AltNames, s.altName) ||
			s.regex != nil && !slices.ContainsFunc(names, s.regex.MatchString) ||
			s.mac != "" && a.HardwareAddr.String() != s.mac
	}), nil
}

func (s Selector) withSubnet(ns *netdev.Namespace, links []netlink.Link) ([]netlink.Link, error) {
	if !s.subnet.IsValid() {
		return links, nil
	}
	addrs, err := netdev.Dump(func() ([]netlink.Addr, error) { return ns.Handle().AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", ns.Path(), err)
	}
	inside := map[int]bool{}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && s.subnet.Contains(ip.Unmap()) {
			inside[a.LinkIndex] = true
		}
	}
	return slices.DeleteFunc(links, func(l netlink.Link) bool { return !inside[l.Attrs().Index] }), nil
}

// withDefaultRoute keeps the interface of the default route with the least metric, IPv4 before IPv6.
func (s Selector) withDefaultRoute(ns *netdev.Namespace, links []netlink.Link) ([]netlink.Link, error) {
	order := []int{netlink.FAMILY_V4, netlink.FAMILY_V6}
	switch {
	case s.defaultRoute == "" && !s.IsZero():
		return links, nil
	case s.defaultRoute == ipv4:
		order = order[:1]
	case s.defaultRoute == ipv6:
		order = order[1:]
	}
	for _, family := range order {
		routes, err := ns.DefaultRoutes(family)
		if err != nil {
			return nil, err
		}
		slices.SortStableFunc(routes, func(a, b netlink.Route) int { return a.Priority - b.Priority })
		for _, r := range routes {
			if i := slices.IndexFunc(links, func(l netlink.Link) bool { return l.Attrs().Index == outgoing(r) }); i >= 0 {
				return links[i : i+1], nil
			}
		}
	}
	return nil, nil
}

func outgoing(r netlink.Route) int {
	if len(r.MultiPath) > 0 {
		return r.MultiPath[0].LinkIndex
	}
	return r.LinkIndex
}

// one insists on a single interface. Of interfaces that are stacked, and so have the MAC in common, it is the one that
// carries the traffic of the others: the bond and not its members, the NIC and not its VLANs.
func (s Selector) one(links []netlink.Link) (netlink.Link, error) {
	has := func(index int) bool {
		return slices.ContainsFunc(links, func(l netlink.Link) bool { return index != 0 && l.Attrs().Index == index })
	}
	var names []string
	var found netlink.Link
	for _, l := range links {
		if has(l.Attrs().MasterIndex) || has(l.Attrs().ParentIndex) && l.Attrs().NetNsID < 0 {
			continue
		}
		found = l
		names = append(names, l.Attrs().Name)
	}
	switch len(names) {
	case 0:
		return nil, fmt.Errorf("%w: %s", ErrNotFound, s)
	case 1:
		return found, nil
	}
	return nil, fmt.Errorf("parent interface: %s means %s; it must mean one", s, strings.Join(names, ", "))
}

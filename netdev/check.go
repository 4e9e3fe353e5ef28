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
	have, err := ns.Addresses(link)
	if err != nil {
		return err
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

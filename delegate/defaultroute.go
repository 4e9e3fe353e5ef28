package delegate

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/netdev"
)

// applyDefaultRoute makes the pod's default routes those that the "default-route" key of a selection asks for, in the
// kernel and in the results, which CHECK will compare with the kernel.
//
// Network CRD specification (4.1.2.1.9): "the default route and gateway will be cleared from the cluster-wide default
// network attachment". The rule is kept for each IP family on its own: a gateway replaces the default routes of its
// family, whatever attachment they lead through. With an empty list the attachment keeps the default routes that it
// brought, and replaces those of the others in the same way. A family of which the key says nothing is left alone.
// The attachments are those of the plan, followed by what others have made of the pod.
func applyDefaultRoute(ns *netdev.Namespace, plan []Planned, attachments []journal.Attachment) error {
	owner := slices.IndexFunc(plan, func(p Planned) bool { return p.Selection.TakesDefaultRoute() })
	if owner < 0 {
		return nil
	}
	own := &attachments[owner]
	for _, family := range []family{ipv4, ipv6} {
		var gateways []net.IP
		for _, gw := range plan[owner].Selection.DefaultRoute {
			if familyOf(gw) == family {
				gateways = append(gateways, gw.AsSlice())
			}
		}
		var err error
		switch {
		case len(gateways) > 0:
			err = replaceDefaultRoutes(ns, own, attachments, family, gateways)
		case len(plan[owner].Selection.DefaultRoute) == 0 && slices.ContainsFunc(own.Result.Routes, family.isDefaultRoute):
			err = keepDefaultRoutes(ns, own, attachments, family)
		}
		if err != nil {
			return fmt.Errorf("network %s: %s: apply default-route: %w", own.Name, own.IfName, err)
		}
	}
	return nil
}

// replaceDefaultRoutes makes the gateways the only default routes of a family.
func replaceDefaultRoutes(ns *netdev.Namespace, own *journal.Attachment, attachments []journal.Attachment, family family, gateways []net.IP) error {
	if err := ns.SetDefaultRoutes(own.IfName, gateways...); err != nil {
		return err
	}
	for i := range attachments {
		dropDefaultRoutes(attachments[i].Result, family)
	}
	for _, gw := range gateways {
		own.Result.Routes = append(own.Result.Routes, &types.Route{Dst: family.everywhere(), GW: gw})
	}
	return verifyDefaultRoutes(ns, own, family, len(gateways))
}

// keepDefaultRoutes removes the default routes of a family that lead through other attachments than the owner.
func keepDefaultRoutes(ns *netdev.Namespace, own *journal.Attachment, attachments []journal.Attachment, family family) error {
	for i := range attachments {
		other := &attachments[i]
		if other == own {
			continue
		}
		err := ns.DeleteDefaultRoutes(other.IfName, int(family))
		if err != nil && !errors.Is(err, netdev.ErrNotFound) { // not every plugin makes that interface
			return err
		}
		dropDefaultRoutes(other.Result, family)
	}
	brought := 0
	for _, r := range own.Result.Routes {
		if family.isDefaultRoute(r) {
			brought++
		}
	}
	return verifyDefaultRoutes(ns, own, family, brought)
}

func dropDefaultRoutes(res *types100.Result, family family) {
	res.Routes = slices.DeleteFunc(slices.Clone(res.Routes), family.isDefaultRoute)
}

// verifyDefaultRoutes reads the routing table back. A peer has trusted its own requests here, and lost the feature for
// a year without a test or a user being told.
func verifyDefaultRoutes(ns *netdev.Namespace, own *journal.Attachment, family family, want int) error {
	routes, err := ns.DefaultRoutes(int(family))
	if err != nil {
		return err
	}
	if len(routes) != want {
		return fmt.Errorf("the kernel has %d default routes of this family instead of %d through %s: %v", len(routes), want, own.IfName, routes)
	}
	return nil
}

type family int

const (
	ipv4 family = netlink.FAMILY_V4
	ipv6 family = netlink.FAMILY_V6
)

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

// everywhere returns the destination of a default route.
func (f family) everywhere() net.IPNet {
	if f == ipv4 {
		return net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	}
	return net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
}

// isDefaultRoute says whether a route is a default route of the family in the main table.
func (f family) isDefaultRoute(r *types.Route) bool {
	ones, bits := r.Dst.Mask.Size()
	inMain := r.Table == nil || *r.Table == unix.RT_TABLE_MAIN
	return ones == 0 && (bits == 32) == (f == ipv4) && inMain
}

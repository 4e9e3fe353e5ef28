package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
	"github.com/braid-cni/braid/netdev"
)

// The plugin that made the interface has given it the address and the routes of the lease that ADD returned. From then
// on, the keeper changes what a server changes, and nothing else: a route that others have removed stays removed, above
// all the default route, which a pod with several networks may have through another interface.

// Bounds of how long the keeper goes on when the kernel refuses what a lease says: the server does not say it again, and a pod would be
// without its address until it ends.
const (
	persistFirst = 50 * time.Millisecond
	persistLast  = 5 * time.Second
	persistTime  = 30 * time.Second
)

// persist does one thing until it succeeds, the interface is gone, or the context ends.
func persist(ctx context.Context, do func() error) error {
	for pause := persistFirst; ; pause = min(2*pause, persistLast) {
		if err := do(); err == nil || lease.IsGone(err) || !sleep(ctx, pause) {
			return err
		}
	}
}

// setMTU makes the interface take packets of the size that the server says, if that is less than it could take.
func (b *binding) setMTU(l *lease.Lease) error {
	if l.MTU == 0 || b.a.spec.KeepMTU {
		return nil
	}
	ns, link, err := b.a.iface.Open()
	if err != nil {
		return err
	}
	defer ns.Close()
	mtu := min(l.MTU, b.a.iface.MTU)
	if mtu == link.Attrs().MTU {
		return nil
	}
	if err := ns.Handle().LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set the MTU of %s to %d (DHCP option 26): %w", b.a.spec.IfName, mtu, err)
	}
	return nil
}

// change makes the interface follow a new lease. Where the kernel refuses, it goes on until it is time to renew that. The old one is
// nil if it was lost. It returns whether the default route is to be left out from now on.
func (b *binding) change(ctx context.Context, old, next *lease.Lease, noDefault bool) (bool, error) {
	end := time.Now().Add(persistTime)
	if !next.Renew.IsZero() && next.Renew.Before(end) {
		end = next.Renew
	}
	patient, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	ns, link, err := b.a.iface.Open()
	if err != nil {
		return noDefault, err
	}
	defer ns.Close()
	var same func(*types.Route) bool // in both leases
	if old != nil {
		same = func(r *types.Route) bool { return contains(next.Routes, r) }
		absent, err := removeRoutes(patient, ns, link, old, same)
		if err != nil {
			return noDefault, err
		}
		noDefault = noDefault || absent
		if old.Address != next.Address {
			if err := removeAddress(patient, ns, link, old); err != nil {
				return noDefault, err
			}
			old = nil // and the kernel may have removed routes together with it
		}
	}
	res := &types100.Result{
		Interfaces: []*types100.Interface{{Name: b.a.spec.IfName, Sandbox: ns.Path()}},
		IPs:        []*types100.IPConfig{{Address: *lease.IPNet(next.Address), Interface: types100.Int(0)}},
	}
	for _, r := range next.Routes {
		if old != nil && contains(old.Routes, r) || noDefault && isDefault(r) {
			continue
		}
		res.Routes = append(res.Routes, r)
	}
	return noDefault, persist(patient, func() error {
		return errors.Join(ns.Configure(ctx, link, res, netdev.Options{}), b.setMTU(next))
	})
}

// remove takes a lease off the interface. It returns whether its default route was there no more.
func (b *binding) remove(ctx context.Context, old *lease.Lease) (noDefault bool, err error) {
	ns, link, err := b.a.iface.Open()
	if err != nil {
		return false, err
	}
	defer ns.Close()
	ctx, cancel := context.WithTimeout(ctx, persistTime)
	defer cancel()
	noDefault, err = removeRoutes(ctx, ns, link, old, nil)
	return noDefault, errors.Join(err, removeAddress(ctx, ns, link, old))
}

// removeRoutes deletes the routes of a lease that are not to be kept. It returns whether the lease has a default route
// that the kernel has not.
func removeRoutes(ctx context.Context, ns *netdev.Namespace, link netlink.Link, l *lease.Lease,
	keep func(*types.Route) bool) (noDefault bool, err error) {
	have, err := netdev.Dump(func() ([]netlink.Route, error) { return ns.Handle().RouteList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return false, fmt.Errorf("list the routes of %s: %w", link.Attrs().Name, err)
	}
	// Those through a gateway first: the gateway may be reached by one of the others.
	for _, r := range slices.Backward(l.Routes) {
		i := slices.IndexFunc(have, func(h netlink.Route) bool { return matches(h, r) })
		if i < 0 {
			noDefault = noDefault || isDefault(r)
			continue
		}
		if keep != nil && keep(r) {
			continue
		}
		err := persist(ctx, func() error { return netdev.Ignore(ns.Handle().RouteDel(&have[i]), unix.ESRCH) })
		if err != nil {
			return noDefault, fmt.Errorf("delete route %s: %w", r, err)
		}
	}
	return noDefault, nil
}

func removeAddress(ctx context.Context, ns *netdev.Namespace, link netlink.Link, l *lease.Lease) error {
	err := persist(ctx, func() error {
		return netdev.Ignore(ns.Handle().AddrDel(link, &netlink.Addr{IPNet: lease.IPNet(l.Address)}), unix.EADDRNOTAVAIL)
	})
	if err != nil {
		return fmt.Errorf("delete address %s: %w", l.Address, err)
	}
	return nil
}

func matches(have netlink.Route, want *types.Route) bool {
	dst := have.Dst
	if dst == nil {
		dst = &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	}
	gw := want.GW
	if gw.IsUnspecified() {
		gw = nil
	}
	return dst.String() == want.Dst.String() && have.Gw.Equal(gw)
}

func contains(routes []*types.Route, want *types.Route) bool {
	return slices.ContainsFunc(routes, func(r *types.Route) bool {
		return r.Dst.String() == want.Dst.String() && r.GW.Equal(want.GW) && r.Priority == want.Priority
	})
}

func isDefault(r *types.Route) bool {
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

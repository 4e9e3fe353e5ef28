// Package stacked attaches a pod by an interface that is stacked on one of the node's. It is what macvlan and ipvlan
// have in common, which is nearly everything.
//
// The interface is created inside the pod's namespace, under its final name, with MAC and MTU, and up: all in one
// request to the kernel, and looked at by the same datagram. Then its addresses are asked for, since a DHCP client needs an interface
// that works.
package stacked

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/undo"
	"github.com/braid-cni/braid/ipam"
	"github.com/braid-cni/braid/netdev"
)

// A Device is the interface of one request, and where its addresses come from.
type Device struct {
	Config
	Kind string           // as the kernel calls it: "macvlan"
	MAC  net.HardwareAddr // nil leaves it to the kernel
	IPAM ipam.Delegate

	// Data is what only the kind has (IFLA_INFO_DATA).
	Data []*nl.RtAttr
	// Finish sets what cannot be said when the link is created; may be nil.
	Finish func(ns *netdev.Namespace, link netlink.Link) error
	// SharesMAC says that the interface has the MAC of its parent, at which answers for both arrive.
	SharesMAC bool
	// Same returns an error if a link of the kind is not as Data and Finish would make it.
	Same func(have netlink.Link) error
}

// Add makes the attachment, or leaves nothing behind.
func (d *Device) Add(ctx context.Context, req *cni.Request) (res *types100.Result, err error) {
	prev, err := req.PrevResult()
	if err != nil {
		return nil, err
	}
	ns, err := netdev.Open(req.Netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	var u undo.Stack
	defer u.OnError(&err)

	link, err := d.create(ctx, ns, prev, req.IfName, &u)
	if err != nil {
		return nil, err
	}
	own, err := d.addresses(ctx, ns, prev, req, &u)
	if err != nil {
		return nil, err
	}
	if d.IPAM.MayConfigure() { // as DHCP does, which changes the MTU
		if link, err = ns.Link(req.IfName); err != nil {
			return nil, err
		}
	}
	own.Interfaces = []*types100.Interface{ns.Interface(link)}
	if err := ns.Configure(ctx, link, own, d.Options()); err != nil {
		return nil, err
	}
	return merge(prev, own, d.adopts(prev)), nil
}

// create makes the link.
func (d *Device) create(ctx context.Context, ns *netdev.Namespace, prev *types100.Result, ifName string, u *undo.Stack) (netlink.Link, error) {
	home, err := d.home(ns)
	if err != nil {
		return nil, err
	}
	defer home.Close()
	lower, err := d.parent(ctx, home, prev)
	if err != nil {
		return nil, err
	}
	if err := d.usable(lower); err != nil {
		return nil, err
	}
	if d.MTU > lower.Attrs().MTU {
		return nil, Invalid("mtu", "%d is more than the %d of the parent %s", d.MTU, lower.Attrs().MTU, lower.Attrs().Name)
	}
	link, err := home.NewLink(&netdev.NewLink{
		Kind: d.Kind, Name: ifName, In: ns, Up: true, Parent: lower.Attrs().Index, MTU: d.MTU, MAC: d.MAC,
		TxQueues: max(d.TxQueues, 1), RxQueues: max(d.RxQueues, 1), Data: d.Data,
	})
	switch {
	case errors.Is(err, netdev.ErrExists):
		if taken := ns.Free(ifName); taken != nil {
			return nil, taken
		}
	case errors.Is(err, netdev.ErrUnanswered): // it may have been made
		u.Add("delete interface "+ifName, func() error { return deleteIf(ns, ifName, d.Kind) })
	}
	if err != nil {
		return nil, fmt.Errorf("create %s %s on %s: %w", d.Kind, ifName, lower.Attrs().Name, explain(err))
	}
	u.Add("delete interface "+ifName, func() error { return ns.DeleteLink(ifName) })
	if link == nil {
		if link, err = ns.Link(ifName); err != nil {
			return nil, err
		}
	}
	if d.Finish != nil {
		return link, d.Finish(ns, link)
	}
	return link, nil
}

// explain says what the kernel means.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("the kernel does not have this kind of interface: %w", err)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("the parent is in use in a way that excludes this one (a member of a bridge or bond, "+
			"macvlan and ipvlan at once, or another passthru): %w", err)
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("another interface on this parent has that MAC address: %w", err)
	}
	return err
}

// Options say how the interface is configured.
func (d *Device) Options() netdev.Options {
	return netdev.Options{Detection: d.Detection.After(d.Probe), SourceRouting: d.SourceRouting}
}

// addresses asks the IPAM plugin, or takes those that an earlier plugin of the chain has for this one, or has none.
func (d *Device) addresses(ctx context.Context, ns *netdev.Namespace, prev *types100.Result, req *cni.Request, u *undo.Stack) (*types100.Result, error) {
	own := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	if d.IPAM.Configured() {
		res, err := d.IPAM.AddUnique(ctx, req, func(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]net.HardwareAddr, error) {
			return d.taken(ctx, ns, req.IfName, addrs)
		})
		if err != nil {
			return nil, err
		}
		u.Add("IPAM DEL", func() error {
			ctx, cancel := undo.Time(ctx, undo.Limit)
			defer cancel()
			return d.IPAM.Del(ctx, req)
		})
		own.IPs, own.Routes, own.DNS = res.IPs, res.Routes, res.DNS
	} else if d.adopts(prev) {
		own.IPs, own.Routes = free(prev), prev.Routes
	}
	for i, ip := range own.IPs {
		own.IPs[i] = ip.Copy()
		own.IPs[i].Interface = types100.Int(0)
	}
	if !d.DNS.IsEmpty() {
		own.DNS = *d.DNS.Copy()
	}
	return own, nil
}

// taken tells which addresses others on the link have. The node itself is one, but the kernel lets no packets pass
// between a parent and what is stacked on it, so it is not asked.
//
// Where the parent has the MAC of the interface, the parent asks: an answer to an ARP probe is for a MAC and for no IP
// address, and only by that the kernel could tell which of the interfaces it is for.
func (d *Device) taken(ctx context.Context, ns *netdev.Namespace, ifName string, addrs []netip.Addr) (map[netip.Addr]net.HardwareAddr, error) {
	if !d.Probe.Enabled() {
		return nil, nil
	}
	link, err := ns.Link(ifName)
	if err != nil {
		return nil, err
	}
	home, err := d.home(ns)
	if err != nil {
		return nil, err
	}
	defer home.Close()
	lower, err := home.LinkAt(link.Attrs().ParentIndex)
	if err != nil {
		return nil, fmt.Errorf("look up the parent of %s: %w", ifName, err)
	}
	if own, err := addressesOf(home, lower, addrs); err != nil || len(own) > 0 {
		return own, err
	}
	if d.SharesMAC {
		return home.Taken(ctx, lower.Attrs().Name, addrs, d.Probe)
	}
	return ns.Taken(ctx, ifName, addrs, d.Probe)
}

// addressesOf returns those of the addresses that a parent has.
func addressesOf(home *netdev.Namespace, parent netlink.Link, among []netip.Addr) (map[netip.Addr]net.HardwareAddr, error) {
	have, err := home.Addresses(parent)
	if err != nil {
		return nil, err
	}
	found := map[netip.Addr]net.HardwareAddr{}
	for _, h := range have {
		if addr, ok := netip.AddrFromSlice(h.IP); ok && slices.Contains(among, addr.Unmap()) {
			found[addr.Unmap()] = parent.Attrs().HardwareAddr
		}
	}
	return found, nil
}

package stacked

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/netdev/parent"
)

// home opens the namespace that the parent is in.
func (d *Device) home(ns *netdev.Namespace) (*netdev.Namespace, error) {
	if d.InContainer {
		return netdev.Open(ns.Path())
	}
	return netdev.Host()
}

// parent finds the interface to be stacked on. If the configuration names none, it is the one that an earlier plugin
// of the chain has made, or that of the default route.
func (d *Device) parent(ctx context.Context, home *netdev.Namespace, prev *types100.Result) (netlink.Link, error) {
	selector := d.Parent
	sandbox := ""
	if d.InContainer {
		sandbox = home.Path()
	}
	if name := single(prev, sandbox); selector.IsZero() && name != "" {
		selector = parent.Named(name)
	}
	link, err := selector.ResolveOnce(ctx, home)
	if err != nil {
		return nil, types.NewError(types.ErrPluginNotAvailable, "master: "+err.Error(), "")
	}
	return link, nil
}

// Del undoes Add. It asks for nothing but the request: the parent may be gone.
func (d *Device) Del(ctx context.Context, req *cni.Request) error {
	// The addresses first: a DHCP lease can only be released while its interface exists.
	err := d.IPAM.Del(ctx, req)
	return errors.Join(err, Delete(req, d.Kind))
}

// Delete deletes the interface of a request if it is of a kind: one of another kind is somebody else's, whose name was
// the reason that ADD failed.
func Delete(req *cni.Request, kind string) error {
	ns, err := netdev.Open(req.Netns)
	if errors.Is(err, netdev.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	return deleteIf(ns, req.IfName, kind)
}

func deleteIf(ns *netdev.Namespace, name, kind string) error {
	return ns.DeleteLinkIf(name, func(l netlink.Link) bool { return l.Type() == kind })
}

// Check fails if the attachment is not what prevResult and the configuration say.
func (d *Device) Check(ctx context.Context, req *cni.Request) error {
	prev, err := req.PrevResult()
	if err != nil {
		return err
	}
	// "The plugin must consult the `prevResult` to determine the expected interfaces and addresses."
	if prev == nil {
		return Invalid("prevResult", "it is missing")
	}
	ns, err := netdev.Open(req.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	errs := []error{ns.Check(req.IfName, prev, d.Options())}
	link, err := ns.Link(req.IfName)
	switch {
	case err == nil:
		errs = append(errs, d.checkLink(ctx, ns, link, prev))
	case errors.Is(err, netdev.ErrNotFound):
		errs = append(errs, d.whyGone(ctx, ns, prev))
	}
	return errors.Join(append(errs, d.IPAM.Check(ctx, req))...)
}

func (d *Device) checkLink(ctx context.Context, ns *netdev.Namespace, link netlink.Link, prev *types100.Result) error {
	attrs := link.Attrs()
	if link.Type() != d.Kind {
		return fmt.Errorf("interface %s is of type %s, want %s", attrs.Name, link.Type(), d.Kind)
	}
	errs := []error{d.Same(link), d.checkParent(ctx, ns, attrs, prev)}
	if d.MTU != 0 && d.MTU != attrs.MTU && !saysMTU(prev, attrs) {
		errs = append(errs, fmt.Errorf("interface %s has MTU %d, want %d", attrs.Name, attrs.MTU, d.MTU))
	}
	return errors.Join(errs...)
}

// whyGone says what an interface that is missing may have gone with.
func (d *Device) whyGone(ctx context.Context, ns *netdev.Namespace, prev *types100.Result) error {
	home, err := d.home(ns)
	if err != nil {
		return err
	}
	defer home.Close()
	if _, err := d.parent(ctx, home, prev); err != nil {
		return fmt.Errorf("an interface is deleted with its parent, and that is missing: %w", err)
	}
	return nil
}

// saysMTU tells that the result has the MTU of the interface, which counts then: a later plugin may have changed it.
func saysMTU(prev *types100.Result, attrs *netlink.LinkAttrs) bool {
	for _, i := range prev.Interfaces {
		if i.Name == attrs.Name && i.Sandbox != "" && i.Mtu != 0 {
			return true
		}
	}
	return false
}

// checkParent asks the kernel what the interface is stacked on; that never changes while it exists, whatever a
// selector would mean now. Only a parent that has a name in the configuration must be that one.
func (d *Device) checkParent(ctx context.Context, ns *netdev.Namespace, attrs *netlink.LinkAttrs, prev *types100.Result) error {
	home, err := d.home(ns)
	if err != nil {
		return err
	}
	defer home.Close()
	lower, err := home.LinkAt(attrs.ParentIndex)
	if errors.Is(err, netdev.ErrNotFound) || err == nil && d.isElsewhere(ns, home, attrs) {
		return fmt.Errorf("the parent of %s is not on the node any more: it has been moved to another network namespace", attrs.Name)
	}
	if err != nil {
		return fmt.Errorf("look up the parent of %s: %w", attrs.Name, err)
	}
	if lower.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("the parent %s of %s is down", lower.Attrs().Name, attrs.Name)
	}
	if !d.Parent.IsName() {
		return nil
	}
	want, err := d.parent(ctx, home, prev)
	if err != nil {
		return fmt.Errorf("interface %s is stacked on %s: %w", attrs.Name, lower.Attrs().Name, err)
	}
	if want.Type() == d.Kind { // the kernel stacks on the parent of such a one
		return nil
	}
	if want.Attrs().Index != attrs.ParentIndex {
		return fmt.Errorf("interface %s is stacked on %s, want %s", attrs.Name, lower.Attrs().Name, want.Attrs().Name)
	}
	return nil
}

// isElsewhere tells whether the parent of an interface is in another namespace than it was looked for in, where another
// interface has its index.
func (d *Device) isElsewhere(ns, home *netdev.Namespace, attrs *netlink.LinkAttrs) bool {
	if d.InContainer || attrs.NetNsID < 0 {
		return false
	}
	id, err := ns.Handle().GetNetNsIdByFd(home.FD())
	return err == nil && id >= 0 && id != attrs.NetNsID
}

// usable returns an error if nothing can pass a parent of the node.
func (d *Device) usable(lower netlink.Link) error {
	if d.InContainer || lower.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	return types.NewError(types.ErrPluginNotAvailable, fmt.Sprintf("master: the parent interface %s is down", lower.Attrs().Name), "")
}

// GC forwards to the IPAM plugin.
//
// "Plugins MUST, additionally, forward any GC calls to delegated plugins they are configured to use."
func (d *Device) GC(ctx context.Context, req *cni.Request) error {
	return d.IPAM.GC(ctx, req)
}

// Status fails if the parent does not exist or is down, or the IPAM plugin is not ready.
func (d *Device) Status(ctx context.Context, req *cni.Request) error {
	var errs []error
	if !d.InContainer {
		host, err := netdev.Host()
		if err != nil {
			return err
		}
		defer host.Close()
		lower, err := d.parent(ctx, host, nil)
		if err == nil {
			err = d.usable(lower)
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, d.IPAM.Status(ctx, req))...)
}

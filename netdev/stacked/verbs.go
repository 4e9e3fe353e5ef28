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
func (d *Device) parent(home *netdev.Namespace, prev *types100.Result) (netlink.Link, error) {
	selector := d.Parent
	sandbox := ""
	if d.InContainer {
		sandbox = home.Path()
	}
	if name := single(prev, sandbox); selector.IsZero() && name != "" {
		selector = parent.Named(name)
	}
	link, err := selector.Resolve(home)
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
	link, err := ns.Link(req.IfName)
	if err == nil && link.Type() != kind {
		return nil
	}
	return ns.DeleteLink(req.IfName)
}

// Check fails if the attachment is not what prevResult and the configuration say.
func (d *Device) Check(ctx context.Context, req *cni.Request) error {
	prev, err := cni.PrevResult(req.Config)
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
	if link, err := ns.Link(req.IfName); err == nil {
		errs = append(errs, d.checkLink(ns, link, prev))
	}
	return errors.Join(append(errs, d.IPAM.Check(ctx, req))...)
}

func (d *Device) checkLink(ns *netdev.Namespace, link netlink.Link, prev *types100.Result) error {
	attrs := link.Attrs()
	if link.Type() != d.Kind {
		return fmt.Errorf("interface %s is of type %s, want %s", attrs.Name, link.Type(), d.Kind)
	}
	errs := []error{d.Same(link), d.checkParent(ns, attrs, prev)}
	if d.MTU != 0 && d.MTU != attrs.MTU && !saysMTU(prev, attrs) {
		errs = append(errs, fmt.Errorf("interface %s has MTU %d, want %d", attrs.Name, attrs.MTU, d.MTU))
	}
	return errors.Join(errs...)
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
func (d *Device) checkParent(ns *netdev.Namespace, attrs *netlink.LinkAttrs, prev *types100.Result) error {
	home, err := d.home(ns)
	if err != nil {
		return err
	}
	defer home.Close()
	lower, err := home.Handle().LinkByIndex(attrs.ParentIndex)
	if err != nil {
		return fmt.Errorf("look up the parent of %s: %w", attrs.Name, err)
	}
	if lower.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("the parent %s of %s is down", lower.Attrs().Name, attrs.Name)
	}
	if !d.Parent.IsName() {
		return nil
	}
	want, err := d.parent(home, prev)
	if err != nil {
		return err
	}
	if want.Type() == d.Kind { // the kernel stacks on the parent of such a one
		return nil
	}
	if want.Attrs().Index != attrs.ParentIndex {
		return fmt.Errorf("interface %s is stacked on %s, want %s", attrs.Name, lower.Attrs().Name, want.Attrs().Name)
	}
	return nil
}

// GC forwards to the IPAM plugin.
//
// "Plugins MUST, additionally, forward any GC calls to delegated plugins they are configured to use."
func (d *Device) GC(ctx context.Context, req *cni.Request) error {
	return d.IPAM.GC(ctx, req)
}

// Status fails if the parent does not exist, or the IPAM plugin is not ready.
func (d *Device) Status(ctx context.Context, req *cni.Request) error {
	var errs []error
	if !d.InContainer {
		host, err := netdev.Host()
		if err != nil {
			return err
		}
		defer host.Close()
		_, err = d.parent(host, nil)
		errs = append(errs, err)
	}
	return errors.Join(append(errs, d.IPAM.Status(ctx, req))...)
}

// Package bridge is the CNI plugin that connects pods of a node to each other by a bridge, which can be their gateway
// as well. README.md is its manual.
package bridge

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/ipam"
	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/nft"
)

// Plugin is the bridge plugin.
type Plugin struct {
	// Find finds the IPAM plugin that a configuration names. Required.
	Find cni.Lookup
}

var _ cni.Plugin = Plugin{}

// Add implements [cni.Plugin].
func (p Plugin) Add(ctx context.Context, req *cni.Request) (res *types100.Result, err error) {
	a, err := p.open(req)
	if err != nil {
		return nil, err
	}
	defer a.close()
	defer a.undo.OnError(&err)

	if a.mac, err = netdev.RequestedMAC(req); err != nil {
		return nil, err
	}
	for _, station := range []func(context.Context) error{a.connect, a.address, a.configure, a.masquerade, a.serveGateways} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := station(ctx); err != nil {
			return nil, err
		}
	}
	if err := keepBridge(a.node, a.bridge); err != nil {
		return nil, err
	}
	return a.merged(), nil
}

// Del implements [cni.Plugin]. It looks at as little of the configuration as it can, and needs no namespace.
func (p Plugin) Del(ctx context.Context, req *cni.Request) error {
	conf, err := cni.DecodeCommon(req, parseEssentials)
	if err != nil {
		return err
	}
	// The addresses first: a DHCP lease can only be released while its interface exists.
	delegate, err := ipam.For(req, p.Find)
	errs := []error{err, delegate.Del(ctx, req)}
	node, err := netdev.Host()
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	defer node.Close()
	owner := nft.Owner{Network: conf.Network, ContainerID: req.ContainerID, IfName: req.IfName}
	errs = append(errs,
		conf.unplug(node, owner, req),
		nft.In(node).Remove(ctx, owner),
		conf.tidyVLANGateway(ctx, node),
	)
	return errors.Join(errs...)
}

// GC implements [cni.Plugin]. As Del, it looks at as little of the configuration as it can.
func (p Plugin) GC(ctx context.Context, req *cni.Request) error {
	conf, err := cni.DecodeCommon(req, parseEssentials)
	if err != nil {
		return err
	}
	valid, err := cni.ValidAttachments(req.Config)
	if err != nil {
		return err
	}
	node, err := netdev.Host()
	if err != nil {
		return err
	}
	defer node.Close()
	delegate, err := ipam.For(req, p.Find)
	return errors.Join(
		err,
		deleteStalePorts(node, nft.Stale(conf.Network, valid)),
		nft.In(node).GC(ctx, conf.Network, valid),
		conf.tidyVLANGateway(ctx, node),
		delegate.GC(ctx, req),
	)
}

// Status implements [cni.Plugin].
func (p Plugin) Status(ctx context.Context, req *cni.Request) error {
	conf, err := cni.DecodeCommon(req, parse)
	if err != nil {
		return err
	}
	delegate, err := ipam.For(req, p.Find)
	if err != nil {
		return err
	}
	node, err := netdev.Host()
	if err != nil {
		return err
	}
	defer node.Close()
	var errs []error
	if _, err := conf.findBridge(node); err != nil && !errors.Is(err, netdev.ErrNotFound) {
		errs = append(errs, notAvailable(err))
	}
	if conf.IPMasq || conf.MACSpoofCheck {
		errs = append(errs, notAvailable(nft.In(node).Available(ctx)))
	}
	return errors.Join(append(errs, delegate.Status(ctx, req))...)
}

func notAvailable(err error) error {
	if err == nil {
		return nil
	}
	return types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
}

// unplug takes the pod from the bridge.
func (e *essentials) unplug(node *netdev.Namespace, owner nft.Owner, req *cni.Request) error {
	found, err := deletePort(node, owner)
	if err != nil {
		return err
	}
	// If the port is gone, an earlier DEL may not have come further than that.
	if err := e.forgetSourceRouting(req); err != nil || found {
		return err
	}
	prev, err := req.PrevResult()
	if err != nil {
		return nil // an invalid one says nothing
	}
	candidates, err := e.adoptable(node, prev)
	errs := []error{err}
	for _, port := range candidates {
		switch port.Attrs().Alias {
		case adoptedPrefix + owner.String():
			errs = append(errs, disconnect(node, port, true))
		case "":
			errs = append(errs, deleteReferencePort(node, port, req))
		}
		// Others go with the plugin that has made them, or have got the name since.
	}
	return errors.Join(errs...)
}

// deleteReferencePort deletes a port that the reference plugin has made: one whose other end is the pod's interface.
func deleteReferencePort(node *netdev.Namespace, port netlink.Link, req *cni.Request) error {
	pod, err := netdev.Open(req.Netns)
	if errors.Is(err, netdev.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pod.Close()
	inside, err := pod.Link(req.IfName)
	if errors.Is(err, netdev.ErrNotFound) || err == nil && !isPair(inside, port) {
		return nil
	}
	if err != nil {
		return err
	}
	return deleteLink(node, port)
}

// isPair tells whether links of two namespaces are the ends of one pair.
func isPair(a, b netlink.Link) bool {
	return a.Type() == "veth" && b.Type() == "veth" &&
		a.Attrs().ParentIndex == b.Attrs().Index && b.Attrs().ParentIndex == a.Attrs().Index
}

// forgetSourceRouting removes the rules that lead to the routing table of the pod's interface, if that has gone.
func (e *essentials) forgetSourceRouting(req *cni.Request) error {
	if !e.SourceRouting {
		return nil
	}
	pod, err := netdev.Open(req.Netns)
	if errors.Is(err, netdev.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer pod.Close()
	if _, err := pod.Link(req.IfName); err == nil || !errors.Is(err, netdev.ErrNotFound) {
		return err
	}
	return pod.DeleteLink(req.IfName)
}

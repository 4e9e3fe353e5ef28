// Package ipvlan is the CNI plugin that gives a pod an interface on a network that an interface of the node is
// connected to, which shares the MAC of that. README.md is its manual.
package ipvlan

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/ipam"
	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/netdev/stacked"
)

const kind = "ipvlan"

// Plugin is the ipvlan plugin.
type Plugin struct {
	// Find finds the IPAM plugin that a configuration names. Required.
	Find cni.Lookup
}

var _ cni.Plugin = Plugin{}

// Add implements [cni.Plugin].
func (p Plugin) Add(ctx context.Context, req *cni.Request) (*types100.Result, error) {
	d, err := p.device(req)
	if err != nil {
		return nil, err
	}
	if err := refuseMAC(req); err != nil {
		return nil, err
	}
	return d.Add(ctx, req)
}

// refuseMAC keeps a pod from believing that it got the MAC that it asked for.
func refuseMAC(req *cni.Request) error {
	mac, err := netdev.RequestedMAC(req)
	if err != nil || mac == nil {
		return err
	}
	return types.NewError(types.ErrUnsupportedField,
		fmt.Sprintf("mac: %s cannot be had: an ipvlan interface shares the MAC of its parent; use macvlan", mac), "")
}

// Del implements [cni.Plugin].
func (p Plugin) Del(ctx context.Context, req *cni.Request) error {
	// Nothing else of the configuration is looked at, so nothing else has to be valid.
	delegate, err := ipam.For(req, p.Find)
	if err != nil {
		return errors.Join(err, stacked.Delete(req, kind))
	}
	return (&stacked.Device{Kind: kind, IPAM: delegate}).Del(ctx, req)
}

// Check implements [cni.Plugin].
func (p Plugin) Check(ctx context.Context, req *cni.Request) error {
	d, err := p.device(req)
	if err != nil {
		return err
	}
	return d.Check(ctx, req)
}

// GC implements [cni.Plugin].
func (p Plugin) GC(ctx context.Context, req *cni.Request) error {
	d, err := p.device(req)
	if err != nil {
		return err
	}
	return d.GC(ctx, req)
}

// Status implements [cni.Plugin].
func (p Plugin) Status(ctx context.Context, req *cni.Request) error {
	d, err := p.device(req)
	if err != nil {
		return err
	}
	return d.Status(ctx, req)
}

// device turns the configuration into the interface to be made or checked.
func (p Plugin) device(req *cni.Request) (*stacked.Device, error) {
	conf, err := cni.DecodeCommon(req, parse)
	if err != nil {
		return nil, err
	}
	delegate, err := ipam.For(req, p.Find)
	if err != nil {
		return nil, err
	}
	return &stacked.Device{Config: conf.Config, Kind: kind, IPAM: delegate, Data: conf.linkData(), SharesMAC: true, Same: conf.same}, nil
}

func (c *config) linkData() []*nl.RtAttr {
	return []*nl.RtAttr{
		nl.NewRtAttr(nl.IFLA_IPVLAN_MODE, nl.Uint16Attr(uint16(c.mode))),
		nl.NewRtAttr(nl.IFLA_IPVLAN_FLAG, nl.Uint16Attr(uint16(c.flag))),
	}
}

// same sees what another attachment did: mode and flag belong to the parent, and the last one that is created on it
// sets them for all.
func (c *config) same(link netlink.Link) error {
	have, name := link.(*netlink.IPVlan), link.Attrs().Name
	if have.Mode != c.mode {
		return fmt.Errorf("interface %s is of another mode than %q", name, c.Mode)
	}
	if have.Flag != c.flag {
		return fmt.Errorf("interface %s has another flag than %q", name, c.Flag)
	}
	return nil
}

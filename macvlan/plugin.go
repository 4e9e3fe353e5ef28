// Package macvlan is the CNI plugin that gives a pod an interface of its own, with a MAC of its own, on a network that
// an interface of the node is connected to. README.md is its manual.
package macvlan

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/undo"
	"github.com/braid-cni/braid/ipam"
	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/netdev/stacked"
)

const kind = "macvlan"

// Plugin is the macvlan plugin.
type Plugin struct {
	// Find finds the IPAM plugin that a configuration names. Required.
	Find cni.Lookup
}

var _ cni.Plugin = Plugin{}

// Add implements [cni.Plugin].
func (p Plugin) Add(ctx context.Context, req *cni.Request) (res *types100.Result, err error) {
	conf, d, err := p.device(req)
	if err != nil {
		return nil, err
	}
	if d.MAC, err = netdev.RequestedMAC(req); err != nil {
		return nil, err
	}
	if res, err = d.Add(ctx, req); err != nil || !conf.HostAccess {
		return res, err
	}
	var u undo.Stack
	defer u.OnError(&err)
	u.Add("the attachment", func() error {
		ctx, cancel := undo.Time(ctx, undo.Limit)
		defer cancel()
		return p.Del(ctx, req)
	})
	return accessOf(conf.Network).add(ctx, req.Attachment, res, d.Options())
}

// Del implements [cni.Plugin].
func (p Plugin) Del(ctx context.Context, req *cni.Request) error {
	// Nothing else of the configuration is looked at, so nothing else has to be valid. With values of other types there
	// was no ADD that passed.
	var err error
	if conf, invalid := cni.DecodeCommon(req, parseEssentials); invalid == nil && conf.HostAccess {
		err = accessOf(conf.Network).remove(ctx, req.Attachment)
	}
	delegate, ipamErr := ipam.For(req, p.Find)
	if ipamErr != nil {
		return errors.Join(err, ipamErr, stacked.Delete(req, kind))
	}
	d := &stacked.Device{Kind: kind, IPAM: delegate}
	return errors.Join(err, d.Del(ctx, req))
}

// Check implements [cni.Plugin].
func (p Plugin) Check(ctx context.Context, req *cni.Request) error {
	conf, d, err := p.device(req)
	if err != nil {
		return err
	}
	err = d.Check(ctx, req)
	if conf.HostAccess {
		err = errors.Join(err, accessOf(conf.Network).check(req))
	}
	return err
}

// GC implements [cni.Plugin].
func (p Plugin) GC(ctx context.Context, req *cni.Request) error {
	conf, d, err := p.device(req)
	if err != nil {
		return err
	}
	valid, err := cni.ValidAttachments(req.Config)
	if err != nil {
		return err
	}
	err = d.GC(ctx, req)
	if conf.HostAccess {
		err = errors.Join(err, accessOf(conf.Network).collect(ctx, valid))
	}
	return err
}

// Status implements [cni.Plugin].
func (p Plugin) Status(ctx context.Context, req *cni.Request) error {
	_, d, err := p.device(req)
	if err != nil {
		return err
	}
	return d.Status(ctx, req)
}

// device turns the configuration into the interface to be made or checked.
func (p Plugin) device(req *cni.Request) (*config, *stacked.Device, error) {
	conf, err := cni.DecodeCommon(req, parse)
	if err != nil {
		return nil, nil, err
	}
	delegate, err := ipam.For(req, p.Find)
	if err != nil {
		return nil, nil, err
	}
	d := &stacked.Device{Config: conf.Config, Kind: kind, IPAM: delegate, Data: conf.linkData(), Same: conf.same}
	if len(conf.sources) > 0 {
		d.Finish = conf.setSources
	}
	return conf, d, nil
}

func (c *config) linkData() []*nl.RtAttr {
	// The library counts the modes, of each of which the kernel has a bit.
	data := []*nl.RtAttr{nl.NewRtAttr(nl.IFLA_MACVLAN_MODE, nl.Uint32Attr(1<<(c.mode-netlink.MACVLAN_MODE_PRIVATE)))}
	if c.BCQueueLen > 0 {
		data = append(data, nl.NewRtAttr(nl.IFLA_MACVLAN_BC_QUEUE_LEN, nl.Uint32Attr(c.BCQueueLen)))
	}
	return data
}

func (c *config) setSources(ns *netdev.Namespace, link netlink.Link) error {
	if err := ns.Handle().MacvlanMACAddrSet(link, c.sources); err != nil {
		return fmt.Errorf("set the source MACs of %s: %w", link.Attrs().Name, err)
	}
	return nil
}

func (c *config) same(link netlink.Link) error {
	have, name := link.(*netlink.Macvlan), link.Attrs().Name
	if have.Mode != c.mode {
		return fmt.Errorf("interface %s is of another mode than %q", name, c.Mode)
	}
	if c.BCQueueLen != 0 && have.BCQueueLen != c.BCQueueLen {
		return fmt.Errorf("interface %s has bcqueuelen %d, want %d", name, have.BCQueueLen, c.BCQueueLen)
	}
	if !slices.EqualFunc(sorted(have.MACAddrs), sorted(c.sources), func(a, b net.HardwareAddr) bool { return bytes.Equal(a, b) }) {
		return fmt.Errorf("interface %s accepts the sources %v, want %v", name, have.MACAddrs, c.sources)
	}
	return nil
}

func sorted(macs []net.HardwareAddr) []net.HardwareAddr {
	return slices.SortedFunc(slices.Values(macs), func(a, b net.HardwareAddr) int { return bytes.Compare(a, b) })
}

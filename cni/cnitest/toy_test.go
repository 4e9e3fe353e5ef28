package cnitest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"net"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/internal/undo"
)

// A toy is a plugin that is as small as one that keeps all promises can be: a veth pair, a subnet whose reservations
// live in memory, a route. It can be given one fault.
type toy struct {
	fault            string
	addresses, links bool

	mu       sync.Mutex
	reserved map[owner]byte
}

type owner struct{ id, ifName string }

var anywhere = net.IPNet{IP: net.IPv4(198, 18, 0, 0).To4(), Mask: net.CIDRMask(15, 32)}

func newToy(t *testing.T, fault string) *toy {
	p := &toy{fault: fault, addresses: true, links: true, reserved: map[owner]byte{}}
	t.Cleanup(func() {
		for o := range p.reserved { // what a faulty one leaves is to be found by the suite, not to disturb later cases
			_ = p.deleteLink(o)
		}
	})
	return p
}

func (p *toy) subject() *cnitest.Subject {
	return &cnitest.Subject{
		Plugin:  p,
		Config:  []byte(`{"name": "play", "type": "toy"}`),
		Failing: map[string][]byte{"unreachable gateway": []byte(`{"name": "play", "type": "toy", "gateway": "192.168.77.1"}`)},
		Leaked: func() error {
			if len(p.reserved) > 0 {
				return fmt.Errorf("reservations %v are left", p.reserved)
			}
			return nil
		},
	}
}

func (p *toy) layer2() *cnitest.Subject {
	p.addresses = false
	s := p.subject()
	s.Layer2, s.Failing = true, nil
	return s
}

func (p *toy) ipam() *cnitest.Subject {
	p.links = false
	s := p.subject()
	s.IPAM, s.Failing = true, nil
	return s
}

type config struct {
	CNIVersion string `json:"cniVersion"`
	Name       string `json:"name"`
	Type       string `json:"type"`
	Gateway    net.IP `json:"gateway"`

	PrevResult  any `json:"prevResult"`
	Attachments any `json:"cni.dev/valid-attachments"`
	Legacy      any `json:"cni.dev/attachments"`
}

func (p *toy) parse(req *cni.Request) (*config, *types100.Result, error) {
	var c config
	d := json.NewDecoder(bytes.NewReader(req.Config))
	if p.fault == "strict" {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(&c); err != nil {
		return nil, nil, err
	}
	if p.fault == "new versions" && c.CNIVersion < "1" {
		return nil, nil, errors.New("too old")
	}
	if c.Gateway == nil {
		c.Gateway = net.IPv4(10, 99, 0, 1)
	}
	if p.fault == "changes request" {
		req.Config = append(req.Config, ' ')
	}
	prev, err := cni.PrevResult(req.Config)
	return &c, prev, err
}

func (p *toy) Add(ctx context.Context, req *cni.Request) (res *types100.Result, err error) {
	var u undo.Stack
	defer func() {
		if p.fault != "no undo" && (p.fault != "undo needs context" || ctx.Err() == nil) {
			u.OnError(&err)
		}
	}()
	c, prev, err := p.parse(req)
	if err != nil {
		return nil, err
	}
	who := owner{req.ContainerID, req.IfName}
	if p.fault == "undo by name" {
		u.Add("delete the link of that name", func() error {
			return inside(req, func(h *netlink.Handle) error {
				l, err := h.LinkByName(req.IfName)
				if err != nil {
					return err
				}
				return h.LinkDel(l)
			})
		})
	}
	if p.links {
		if err := p.refuseTaken(req); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	ip, err := p.reserve(who)
	if err != nil {
		return nil, err
	}
	u.Add("free the address", func() error { p.free(who); return nil })
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	res = &types100.Result{}
	if p.addresses {
		res.IPs = []*types100.IPConfig{{Address: net.IPNet{IP: ip, Mask: net.CIDRMask(24, 32)}, Gateway: c.Gateway}}
		res.Routes = []*types.Route{{Dst: anywhere, GW: c.Gateway}}
	}
	if !p.links {
		return res, nil
	}
	if err := p.makeLink(req, who); err != nil {
		return nil, err
	}
	u.Add("delete the link", func() error { return p.deleteLink(who) })
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := p.configure(req, res); err != nil {
		return nil, err
	}
	if prev != nil && p.fault != "no prevResult" {
		for _, ip := range res.IPs {
			*ip.Interface += len(prev.Interfaces)
		}
		prev.Interfaces = append(prev.Interfaces, res.Interfaces...)
		prev.IPs = append(prev.IPs, res.IPs...)
		prev.Routes = append(prev.Routes, res.Routes...)
		return prev, nil
	}
	return res, nil
}

func (p *toy) refuseTaken(req *cni.Request) error {
	return inside(req, func(h *netlink.Handle) error {
		l, err := h.LinkByName(req.IfName)
		switch {
		case errors.As(err, &netlink.LinkNotFoundError{}):
			return nil
		case err == nil && p.fault == "takes any name":
			return h.LinkDel(l)
		case err == nil:
			return fmt.Errorf("interface %s exists", req.IfName)
		}
		return err
	})
}

func (p *toy) reserve(who owner) (net.IP, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, again := p.reserved[who]; again {
		return nil, errors.New("there is an address already")
	}
	taken := slices.Collect(maps.Values(p.reserved))
	for n := byte(2); n < 255; n++ {
		if !slices.Contains(taken, n) || p.fault == "race" {
			p.reserved[who] = n
			return net.IPv4(10, 99, 0, n).To4(), nil
		}
	}
	return nil, errors.New("no address is free")
}

func (p *toy) free(who owner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.reserved, who)
}

// nodeEnd names the end of the veth pair that stays on the node.
func nodeEnd(who owner) string {
	h := fnv.New32a()
	fmt.Fprint(h, who.id, "/", who.ifName)
	return fmt.Sprintf("toy%08x", h.Sum32())
}

func (p *toy) makeLink(req *cni.Request, who owner) error {
	ns, err := netns.GetFromPath(req.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: req.IfName, PeerNamespace: netlink.NsFd(ns)}
	veth.Name = nodeEnd(who)
	if err := netlink.LinkAdd(veth); err != nil {
		return err
	}
	return netlink.LinkSetUp(veth)
}

func (p *toy) configure(req *cni.Request, res *types100.Result) error {
	return inside(req, func(h *netlink.Handle) error {
		l, err := h.LinkByName(req.IfName)
		if err != nil {
			return err
		}
		if p.fault != "link down" {
			if err := h.LinkSetUp(l); err != nil {
				return err
			}
		}
		iface := &types100.Interface{Name: req.IfName, Mac: l.Attrs().HardwareAddr.String(), Sandbox: req.Netns}
		switch p.fault {
		case "wrong mac":
			iface.Mac = "02:00:00:00:00:01"
		case "wrong sandbox":
			iface.Sandbox += "/."
		}
		res.Interfaces = []*types100.Interface{iface}
		for _, ip := range res.IPs {
			if p.fault != "no index" {
				ip.Interface = types100.Int(0)
			}
			if p.fault != "no address" {
				if err := h.AddrAdd(l, &netlink.Addr{IPNet: &ip.Address}); err != nil {
					return err
				}
			}
		}
		if p.fault == "no address" || p.fault == "no route" || p.fault == "link down" {
			return nil
		}
		for _, r := range res.Routes {
			if err := h.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: &r.Dst, Gw: r.GW, Priority: l.Attrs().Index}); err != nil {
				return fmt.Errorf("add route %s: %w", r, err)
			}
		}
		return nil
	})
}

func (p *toy) deleteLink(who owner) error {
	l, err := netlink.LinkByName(nodeEnd(who))
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	// The kernel may be about to take the link away itself, with the namespace of the other end.
	if err := netlink.LinkDel(l); !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

func (p *toy) Del(_ context.Context, req *cni.Request) error {
	who := owner{req.ContainerID, req.IfName}
	_, prev, err := p.parse(req)
	_, known := p.snapshot()[who]
	switch {
	case err != nil:
		return err
	case p.fault == "DEL needs ADD" && !known, p.fault == "DEL once" && !known:
		return errors.New("never heard of it")
	case p.fault == "DEL needs prev" && prev == nil:
		return errors.New("no prevResult")
	case p.fault == "DEL needs netns" && req.Netns == "":
		return errors.New("no CNI_NETNS")
	case p.fault == "DEL needs link":
		if _, err := netlink.LinkByName(nodeEnd(who)); err != nil && known {
			return err
		}
	case p.fault == "DEL needs namespace" && req.Netns != "":
		if _, err := os.Stat(req.Netns); err != nil {
			return err
		}
	case p.fault == "DEL needs nsfs" && req.Netns != "":
		if _, err := os.Stat(req.Netns); err == nil {
			if err := inside(req, func(*netlink.Handle) error { return nil }); err != nil {
				return err
			}
		}
	case p.fault == "DEL of container":
		for o := range p.snapshot() {
			if o.id == req.ContainerID {
				if err := p.deleteLink(o); err != nil {
					return err
				}
			}
		}
	case p.fault == "leaks descriptor":
		if _, err := netns.Get(); err != nil {
			return err
		}
	}
	return p.remove(who)
}

func (p *toy) remove(who owner) error {
	if p.fault != "keeps reservation" {
		p.free(who)
	}
	return p.deleteLink(who)
}

func (p *toy) snapshot() map[owner]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.reserved)
}

func (p *toy) Check(_ context.Context, req *cni.Request) error {
	_, prev, err := p.parse(req)
	if err != nil {
		return err
	}
	if prev == nil && p.fault != "CHECK without prev" || p.fault == "CHECK fails" {
		return errors.New("no prevResult")
	}
	who := owner{req.ContainerID, req.IfName}
	if _, known := p.snapshot()[who]; !known && p.fault != "CHECK nothing" {
		return errors.New("no reservation")
	}
	if !p.links || prev == nil || p.fault == "CHECK nothing" {
		return nil
	}
	return inside(req, func(h *netlink.Handle) error { return p.checkLink(h, req, prev) })
}

func (p *toy) checkLink(h *netlink.Handle, req *cni.Request, prev *types100.Result) error {
	l, err := h.LinkByName(req.IfName)
	if err != nil {
		if p.fault == "CHECK no link" {
			return nil
		}
		return err
	}
	if l.Attrs().Flags&net.FlagUp == 0 && p.fault != "CHECK no state" {
		return errors.New("link is down")
	}
	has, err := h.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	if p.fault == "CHECK is exact" && len(has) != len(prev.IPs) {
		return errors.New("other addresses")
	}
	for _, want := range prev.IPs {
		if !slices.ContainsFunc(has, func(a netlink.Addr) bool { return a.IPNet.String() == want.Address.String() }) && p.fault != "CHECK no address" {
			return fmt.Errorf("address %s is missing", &want.Address)
		}
	}
	for _, want := range prev.Routes {
		routes, err := h.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: &want.Dst}, netlink.RT_FILTER_DST)
		if err != nil {
			return err
		}
		if len(routes) == 0 && !slices.Contains([]string{"CHECK no route", "CHECK no address", "CHECK no state"}, p.fault) {
			return fmt.Errorf("route %s is missing", want)
		}
	}
	return nil
}

func (p *toy) GC(_ context.Context, req *cni.Request) error {
	valid, err := cni.ValidAttachments(req.Config)
	if err != nil {
		return err
	}
	if p.fault == "GC nothing" || p.fault == "GC no empty list" && len(valid) == 0 {
		return nil
	}
	for who := range p.snapshot() {
		isValid := slices.ContainsFunc(valid, func(a types.GCAttachment) bool {
			return a.ContainerID == who.id && (a.IfName == who.ifName || p.fault == "GC by container")
		})
		if !isValid || p.fault == "GC all" {
			err = errors.Join(err, p.remove(who))
		}
	}
	return err
}

func (p *toy) Status(context.Context, *cni.Request) error {
	if p.fault == "STATUS fails" {
		return types.NewError(types.ErrPluginNotAvailable, "not ready", "")
	}
	return nil
}

// inside calls f with a netlink handle of the pod.
func inside(req *cni.Request, f func(*netlink.Handle) error) error {
	ns, err := netns.GetFromPath(req.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	return f(h)
}

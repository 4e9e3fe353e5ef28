package cnitest

import (
	"net"
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func checkPasses(r *run) {
	p := r.pod()
	for range 5 {
		p.mustAdd()
		if err := p.check(); err != nil {
			r.Errorf("CHECK: %v", err)
		}
		if err := p.del(); err != nil {
			r.Errorf("DEL: %v", err)
		}
	}
}

func checkWithoutPrevResult(r *run) {
	p := r.attached()
	if p.checkWith(p.req) == nil {
		r.Error("CHECK passes without prevResult")
	}
}

// checkAllowsChanges adds what another plugin could have added: an interface to the result, an address and a route to
// the interface.
func checkAllowsChanges(r *run) {
	p := r.attached()
	link := p.ns.Link(r, p.req.IfName)
	h := p.ns.Handle()
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(192, 0, 2, 7), Mask: net.CIDRMask(24, 32)}}
	if err := h.AddrAdd(link, address); err != nil {
		r.Fatal(err)
	}
	_, dst, _ := net.ParseCIDR("198.51.100.0/24")
	if err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: dst, Scope: unix.RT_SCOPE_LINK}); err != nil {
		r.Fatal(err)
	}
	changed := *p.result
	changed.Interfaces = append(slices.Clone(changed.Interfaces), &types100.Interface{Name: "later0"})
	if err := p.checkWith(p.withPrevResult(&changed)); err != nil {
		r.Errorf("CHECK: %v", err)
	}
}

func checkAfterDel(r *run) {
	p := r.attached()
	req := p.later()
	if err := p.del(); err != nil {
		r.Fatalf("DEL: %v", err)
	}
	if p.checkWith(req) == nil {
		r.Error("CHECK passes although the attachment was deleted")
	}
}

func checkInterfaceDeleted(r *run) {
	p := r.attached()
	if err := p.ns.Handle().LinkDel(p.ns.Link(r, p.req.IfName)); err != nil {
		r.Fatal(err)
	}
	p.mustNotice("the interface was deleted")
}

func checkInterfaceDown(r *run) {
	p := r.attached()
	if err := p.ns.Handle().LinkSetDown(p.ns.Link(r, p.req.IfName)); err != nil {
		r.Fatal(err)
	}
	p.mustNotice("the interface is down")
}

func checkAddressMissing(r *run) {
	p := r.attached()
	link := p.ns.Link(r, p.req.IfName)
	for _, ip := range p.result.IPs {
		if ip.Interface == nil || *ip.Interface != p.index() {
			continue
		}
		if err := p.ns.Handle().AddrDel(link, &netlink.Addr{IPNet: &ip.Address}); err != nil {
			r.Fatalf("delete %s: %v", &ip.Address, err)
		}
		p.mustNotice("the address " + ip.Address.String() + " is missing")
		return
	}
	r.Fatal("the result has no address for the interface")
}

func checkRouteMissing(r *run) {
	p := r.attached()
	if len(p.result.Routes) == 0 {
		r.Skip("the result has no routes")
	}
	route := p.result.Routes[0]
	for _, found := range p.routesTo(route) {
		if err := p.ns.Handle().RouteDel(&found); err != nil {
			r.Fatalf("delete %s: %v", route, err)
		}
	}
	p.mustNotice("the route " + route.String() + " is missing")
}

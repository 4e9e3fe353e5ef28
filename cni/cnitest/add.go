package cnitest

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/cni"
)

func addMakesInterface(r *run) {
	p := r.attached()
	link := p.ns.Link(r, p.req.IfName).Attrs()
	if link.Flags&net.FlagUp == 0 {
		r.Errorf("%s is down", link.Name)
	}
	i := p.index()
	if i < 0 {
		r.Fatalf("no interface %q with sandbox %q in the result: %v", p.req.IfName, p.req.Netns, p.result.Interfaces)
	}
	got := p.result.Interfaces[i]
	if got.Mac != link.HardwareAddr.String() {
		r.Errorf("mac is %q in the result, %q in the kernel", got.Mac, link.HardwareAddr)
	}
	if got.Mtu != 0 && got.Mtu != link.MTU {
		r.Errorf("mtu is %d in the result, %d in the kernel", got.Mtu, link.MTU)
	}
	for _, iface := range p.result.Interfaces {
		if iface.Sandbox != "" && iface.Sandbox != p.req.Netns {
			r.Errorf("sandbox of %s is %q, CNI_NETNS is %q", iface.Name, iface.Sandbox, p.req.Netns)
		}
		if iface.Sandbox == "" {
			if _, err := r.node.Handle().LinkByName(iface.Name); err != nil {
				r.Errorf("the node has no link %q of the result: %v", iface.Name, err)
			}
		}
	}
}

// index returns the position of the pod's interface in the result, or -1.
func (p *pod) index() int {
	return slices.IndexFunc(p.result.Interfaces, func(i *types100.Interface) bool {
		return i.Name == p.req.IfName && i.Sandbox == p.req.Netns
	})
}

func addAssignsAddresses(r *run) {
	p := r.attached()
	own := 0
	for i, ip := range p.result.IPs {
		if ip.Interface == nil || *ip.Interface < 0 || *ip.Interface >= len(p.result.Interfaces) {
			r.Errorf("ips[%d] has no interface of the result", i)
			continue
		}
		iface := p.result.Interfaces[*ip.Interface]
		if iface.Sandbox == "" {
			continue
		}
		own++
		if !p.hasAddress(iface.Name, ip.Address) {
			r.Errorf("%s does not have the address %s", iface.Name, &ip.Address)
		}
	}
	if own == 0 {
		r.Errorf("no address for an interface of the pod in the result: %v", p.result.IPs)
	}
	for _, route := range p.result.Routes {
		if len(p.routesTo(route)) == 0 {
			r.Errorf("the pod does not have the route %s", route)
		}
	}
}

func (p *pod) hasAddress(link string, want net.IPNet) bool {
	p.Helper()
	addrs, err := p.ns.Handle().AddrList(p.ns.Link(p, link), netlink.FAMILY_ALL)
	if err != nil {
		p.Fatal(err)
	}
	return slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.IPNet.String() == want.String() })
}

// routesTo returns the routes of the pod to the destination of another one, in the table of that.
func (p *pod) routesTo(want *types.Route) []netlink.Route {
	p.Helper()
	filter := &netlink.Route{Dst: &want.Dst}
	mask := netlink.RT_FILTER_DST
	if want.Table != nil {
		filter.Table = *want.Table
		mask |= netlink.RT_FILTER_TABLE
	}
	family := netlink.FAMILY_V6
	if want.Dst.IP.To4() != nil {
		family = netlink.FAMILY_V4
	}
	routes, err := p.ns.Handle().RouteListFiltered(family, filter, mask)
	if err != nil {
		p.Fatal(err)
	}
	return routes
}

func addAbbreviates(r *run) {
	p := r.attached()
	if len(p.result.Interfaces) != 0 {
		r.Errorf("the result has interfaces: %v", p.result.Interfaces)
	}
	if len(p.result.IPs) == 0 {
		r.Error("the result has no addresses")
	}
	for i, ip := range p.result.IPs {
		if ip.Interface != nil {
			r.Errorf("ips[%d] has an interface: %d", i, *ip.Interface)
		}
	}
}

func addPassesPrevResult(r *run) {
	p := r.pod()
	address := net.IPNet{IP: net.IPv4(192, 0, 2, 7), Mask: net.CIDRMask(32, 32)}
	p.req = p.withPrevResult(&types100.Result{
		Interfaces: []*types100.Interface{{Name: "earlier0", Sandbox: p.req.Netns}},
		IPs:        []*types100.IPConfig{{Interface: types100.Int(0), Address: address}},
	})
	p.mustAdd()
	i := slices.IndexFunc(p.result.Interfaces, func(i *types100.Interface) bool { return i.Name == "earlier0" })
	if i < 0 {
		r.Errorf("the interface of prevResult is not in the result: %v", p.result.Interfaces)
	}
	if !slices.ContainsFunc(p.result.IPs, func(ip *types100.IPConfig) bool {
		return ip.Address.String() == address.String() && ip.Interface != nil && *ip.Interface == i
	}) {
		r.Errorf("the address of prevResult is not in the result, or not at its interface %d: %v", i, p.result.IPs)
	}
	if p.index() < 0 {
		r.Errorf("the new interface is not in the result: %v", p.result.Interfaces)
	}
}

func addRefusesTakenName(r *run) {
	p := r.pod()
	taken := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "peer0"}
	taken.Name = p.req.IfName
	if err := p.ns.Handle().LinkAdd(taken); err != nil {
		r.Fatal(err)
	}
	p.links = p.ns.Links(r)
	before := p.ns.Link(r, p.req.IfName).Attrs()

	if p.addSoon() == nil {
		r.Fatal("ADD took an interface that was there before")
	}
	after, err := p.ns.Handle().LinkByName(p.req.IfName)
	if err != nil {
		r.Fatalf("ADD that failed removed an interface that was there before: %v", err)
	}
	if a := after.Attrs(); a.Index != before.Index || a.Flags != before.Flags || a.MTU != before.MTU || a.HardwareAddr.String() != before.HardwareAddr.String() {
		r.Errorf("ADD that failed changed an interface that was there before: %+v, was %+v", a, before)
	}
	if addrs, err := p.ns.Handle().AddrList(after, netlink.FAMILY_ALL); err != nil || len(addrs) != 0 {
		r.Errorf("ADD that failed gave addresses to an interface that was there before: %v %v", addrs, err)
	}
	r.nothingLeft("after an ADD that failed")
	r.pods = nil // a DEL now would be one for somebody else's interface
}

func addWithoutNamespace(r *run) {
	p := r.pod()
	p.req.Netns = filepath.Join(r.TempDir(), "absent")
	if p.addSoon() == nil {
		r.Error("ADD passes without a namespace")
	}
	r.nothingLeft("after an ADD that failed")
}

func addFails(r *run) {
	if len(r.Failing) == 0 {
		r.Skip("the subject has no configuration that fails")
	}
	for reason, config := range r.Failing {
		p := r.pod()
		p.req.Config = with(r, config, keys{"cniVersion": latest})
		if p.addSoon() == nil {
			r.Errorf("%s: ADD passes", reason)
			continue
		}
		r.nothingLeft("after an ADD that failed: " + reason)
		p.req.Config = with(r, r.Config, keys{"cniVersion": latest})
		p.mustAdd()
		if err := p.del(); err != nil {
			r.Errorf("%s: DEL: %v", reason, err)
		}
	}
}

// addCancelled ends the context at the first moment that the plugin looks at it, at the second, and so on, until the
// plugin gets by.
func addCancelled(r *run) {
	const enough = 1000
	for looks := range enough {
		p := r.pod()
		err := p.add(endAfter(looks))
		if err == nil {
			return
		}
		r.nothingLeft(fmt.Sprintf("after an ADD whose context ended at look %d (%v)", looks+1, err))
		if r.Failed() {
			return
		}
		p.removeNamespace()
		r.pods = nil
	}
	r.Errorf("no ADD passes, though the plugin can look at its context %d times", enough)
}

func addAgain(r *run) {
	p := r.attached()
	for range 3 {
		if err := p.del(); err != nil {
			r.Fatalf("DEL: %v", err)
		}
		p.result = nil
		p.mustAdd()
		if err := p.check(); err != nil {
			r.Errorf("CHECK after another ADD: %v", err)
		}
	}
}

func twoAttachments(r *run) {
	p := r.attached()
	q := p.second()
	q.mustAdd()
	for _, a := range []*pod{p, q} {
		if err := a.check(); err != nil {
			r.Errorf("CHECK of %s: %v", a.req.IfName, err)
		}
	}
	r.differ(p, q)
}

// differ says that no two attachments have an address in common.
func (r *run) differ(attachments ...*pod) {
	r.Helper()
	owner := map[string]*pod{}
	for _, p := range attachments {
		var own []string
		for _, ip := range p.result.IPs {
			own = append(own, ip.Address.IP.String())
		}
		if i := p.index(); i >= 0 {
			own = append(own, p.result.Interfaces[i].Mac)
		}
		for _, address := range own {
			if other := owner[address]; other != nil {
				r.Errorf("%s and %s both have the address %s", other.req.ContainerID, p.req.ContainerID, address)
			}
			owner[address] = p
		}
	}
}

func inParallel(r *run) {
	const pods, rounds = 8, 3
	for range pods {
		r.pod()
	}
	for range rounds {
		r.each("ADD", (*pod).addSoon)
		if r.Failed() {
			return
		}
		r.differ(r.pods...)
		r.each("CHECK", (*pod).check)
		r.each("DEL", (*pod).del)
		r.nothingLeft("after DEL of all")
	}
}

// each does something with all pods at once.
func (r *run) each(what string, do func(*pod) error) {
	var wg sync.WaitGroup
	for _, p := range r.pods {
		wg.Go(func() {
			if err := do(p); err != nil {
				r.Errorf("%s of %s: %v", what, p.req.ContainerID, err)
			}
		})
	}
	wg.Wait()
}

func unknownKeys(r *run) {
	p := r.pod()
	p.req = p.withKeys(keys{
		"example.com/unknown": map[string]any{"deep": []any{1, "two", nil}},
		"zzz":                 true,
	})
	p.mustAdd()
	if err := p.check(); err != nil {
		r.Errorf("CHECK: %v", err)
	}
	if err := p.del(); err != nil {
		r.Errorf("DEL: %v", err)
	}
	status := &cni.Request{Path: r.Path, Config: p.req.Config}
	if err := r.Plugin.Status(context.Background(), status); err != nil {
		r.Errorf("STATUS: %v", err)
	}
}

func everyVersion(r *run) {
	for _, v := range version.All.SupportedVersions() {
		if r.Layer2 && slices.Contains(version.Legacy.SupportedVersions(), v) {
			continue // they cannot express a result without an address
		}
		p := r.pod()
		p.req = p.withKeys(keys{"cniVersion": v})
		if err := p.addSoon(); err != nil {
			r.Errorf("%s: ADD: %v", v, err)
			continue
		}
		if _, err := cni.MarshalResult(p.result, v); err != nil {
			r.Errorf("%s: %v", v, err)
		}
		if checked, _ := version.GreaterThanOrEqualTo(v, "0.4.0"); checked {
			if err := p.check(); err != nil {
				r.Errorf("%s: CHECK: %v", v, err)
			}
		}
		if err := p.del(); err != nil {
			r.Errorf("%s: DEL: %v", v, err)
		}
		r.nothingLeft(v + ": after DEL")
	}
}

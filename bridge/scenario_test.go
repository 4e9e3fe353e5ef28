package bridge_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/bridge"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
)

func TestResult(t *testing.T) {
	w := newWorld(t)
	p := w.attached(`"isDefaultGateway": true, "mtu": 1400, "dns": {"nameservers": ["192.0.2.54"]}, ` + hostLocal(subnet4, subnet6))
	doc, err := json.MarshalIndent(p.res, "", " ")
	must(t, err)
	port, inside := p.port().Attrs(), p.ns.Link(t, "net1").Attrs()
	want := `{
 "cniVersion": "1.1.0",
 "interfaces": [
  {"mac": "` + w.br().HardwareAddr.String() + `", "mtu": 1400, "name": "` + w.bridge + `"},
  {"mac": "` + port.HardwareAddr.String() + `", "mtu": 1400, "name": "` + port.Name + `"},
  {"mac": "` + inside.HardwareAddr.String() + `", "mtu": 1400, "name": "net1", "sandbox": "` + p.ns.Path() + `"}
 ],
 "ips": [
  {"address": "10.88.0.2/24", "gateway": "10.88.0.1", "interface": 2},
  {"address": "2001:db8:88::2/64", "gateway": "2001:db8:88::1", "interface": 2}
 ],
 "routes": [
  {"dst": "0.0.0.0/0", "gw": "10.88.0.1"},
  {"dst": "::/0", "gw": "2001:db8:88::1"}
 ],
 "dns": {"nameservers": ["192.0.2.54"]}
}`
	var got, wanted any
	must(t, json.Unmarshal(doc, &got))
	must(t, json.Unmarshal([]byte(want), &wanted))
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"10.88.0.1/24", "2001:db8:88::1/64"}, w.addresses(w.node, w.bridge)); diff != "" {
		t.Errorf("addresses of the bridge (-want +got):\n%s", diff)
	}
	if addrs, err := w.node.Handle().AddrList(p.port(), netlink.FAMILY_ALL); err != nil || len(addrs) != 0 {
		t.Errorf("addresses of the port: %v, %v; want none", addrs, err)
	}
	if port.MTU != 1400 || w.br().MTU != 1400 {
		t.Errorf("the MTU of the port is %d, of the bridge %d, want 1400", port.MTU, w.br().MTU)
	}
	if max(port.NumTxQueues, port.NumRxQueues, inside.NumTxQueues, inside.NumRxQueues) > 1 {
		t.Error("the pair has more than one queue")
	}
}

func TestExistingBridgeIsUsed(t *testing.T) {
	w := newWorld(t)
	must(t, w.node.Handle().LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: w.bridge, TxQLen: -1}}))
	index := w.br().Index
	p := w.attached(`"isGateway": true, ` + hostLocal(subnet4))
	if br := w.br(); br.Index != index || p.port().Attrs().MasterIndex != index {
		t.Errorf("the bridge is another one, or has no port: %+v", br)
	}
	w.attached(hostLocal(subnet4)) // the MAC address of the gateway stays, although the bridge was made without one
	must(t, p.check())
	must(t, p.del())
	w.br()
}

// TestUnfinishedBridge: one that an ADD has left which was killed while it made it takes no advice from pods, but one of somebody else
// is as that one wants it.
func TestUnfinishedBridge(t *testing.T) {
	w := newWorld(t)
	w.attached("")
	mac := w.br().HardwareAddr
	for _, own := range []bool{true, false} {
		must(t, w.node.Handle().LinkDel(w.br()))
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.HardwareAddr = w.bridge, bytes.Clone(mac)
		if !own {
			attrs.HardwareAddr[5] ^= 1
		}
		must(t, w.node.Handle().LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
		w.attached("")
		w.node.Do(t, func() {
			value, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + w.bridge + "/accept_ra")
			must(t, err)
			if ignores := strings.TrimSpace(string(value)) == "0"; ignores != own {
				t.Errorf("its own %t: accept_ra is %s", own, value)
			}
		})
	}
}

func TestNameOfTheBridgeIsTaken(t *testing.T) {
	w := newWorld(t)
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: nettest.Name("peer")}
	veth.Name = w.bridge
	must(t, w.node.Handle().LinkAdd(veth))
	p := w.pod(hostLocal(subnet4))
	p.refused(types.ErrInvalidNetworkConfig, `which is an interface of type veth, want a bridge`)
	w.isError(plugin.Status(t.Context(), p.req), types.ErrPluginNotAvailable, "veth")
}

// Its own address, or else it would have that of one of its ports.
func TestMACOfTheBridgeStays(t *testing.T) {
	w := newWorld(t)
	first := w.attached("")
	mac := w.br().HardwareAddr.String()
	for range 5 {
		p := w.attached("")
		if now := w.br().HardwareAddr.String(); now != mac || now != p.res.Interfaces[0].Mac {
			t.Fatalf("the MAC address of the bridge was %s, is %s, and %s in the result", mac, now, p.res.Interfaces[0].Mac)
		}
		must(t, p.del())
	}
	must(t, first.del())
	if now := w.br().HardwareAddr.String(); now != mac {
		t.Errorf("the MAC address of the bridge was %s, is %s", mac, now)
	}
}

func TestDefaultRouteOfIPAMIsKept(t *testing.T) {
	w := newWorld(t)
	for name, tt := range map[string]struct{ routes, want string }{
		"via another gateway": {`{"dst": "0.0.0.0/0", "gw": "10.88.0.254"}`, "10.88.0.254"},
		"without gateway":     {`{"dst": "0.0.0.0/0"}`, "10.88.0.1"},
		"in another table":    {`{"dst": "0.0.0.0/0", "gw": "10.88.0.254", "table": 100}`, "10.88.0.1"},
		"none":                {`{"dst": "198.51.100.0/24"}`, "10.88.0.1"},
	} {
		t.Run(name, func(t *testing.T) {
			p := w.attached(`"isDefaultGateway": true, ` + strings.Replace(hostLocal(subnet4), `"ranges"`, `"routes": [`+tt.routes+`], "ranges"`, 1))
			routes, err := p.ns.Handle().RouteList(nil, netlink.FAMILY_V4)
			must(t, err)
			var gws []string
			for _, r := range routes {
				if r.Dst == nil || r.Dst.IP.IsUnspecified() {
					gws = append(gws, r.Gw.String())
				}
			}
			if !slices.Equal(gws, []string{tt.want}) {
				t.Errorf("default routes via %v, want %s", gws, tt.want)
			}
			must(t, p.check())
		})
	}
}

func TestGatewayAddressOfAnotherNetwork(t *testing.T) {
	for _, other := range []string{"10.99.0.1/24", "10.88.0.200/24", "2001:db8:88::ffff/48"} {
		t.Run(other, func(t *testing.T) {
			w := newWorld(t)
			must(t, w.node.Handle().LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: w.bridge, TxQLen: -1}}))
			w.node.Address(t, w.bridge, other)
			const keys = `"isGateway": true, `
			w.pod(keys+hostLocal(subnet4, subnet6)).refused(0, "has the address "+other+", of another network; set forceAddress")
			if diff := cmp.Diff([]string{other}, w.addresses(w.node, w.bridge)); diff != "" {
				t.Errorf("addresses after an ADD that failed (-want +got):\n%s", diff)
			}
			p := w.attached(`"forceAddress": true, ` + keys + hostLocal(subnet4, subnet6))
			if diff := cmp.Diff([]string{"10.88.0.1/24", "2001:db8:88::1/64"}, w.addresses(w.node, w.bridge)); diff != "" {
				t.Errorf("addresses with forceAddress (-want +got):\n%s", diff)
			}
			must(t, p.check())
		})
	}
}

func TestOtherIPv6SubnetsMayShareABridge(t *testing.T) {
	w := newWorld(t)
	must(t, w.node.Handle().LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: w.bridge, TxQLen: -1}}))
	w.node.Address(t, w.bridge, "2001:db8:99::1/64")
	must(t, w.attached(`"isGateway": true, `+hostLocal(subnet6)).check())
	if have := w.addresses(w.node, w.bridge); len(have) != 2 {
		t.Errorf("addresses: %v", have)
	}
}

// TestForceAddressOfSeveral: with the first address of a subnet the kernel takes the others of it.
func TestForceAddressOfSeveral(t *testing.T) {
	w := newWorld(t)
	must(t, w.node.Handle().LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: w.bridge, TxQLen: -1}}))
	w.node.Address(t, w.bridge, "10.99.0.1/24", "10.99.0.2/24", "10.99.0.3/24")
	w.attached(`"isGateway": true, "forceAddress": true, ` + hostLocal(subnet4))
	if have := w.addresses(w.node, w.bridge); !slices.Equal(have, []string{"10.88.0.1/24"}) {
		t.Errorf("addresses of the bridge: %v", have)
	}
}

func TestSeveralAddressesOfAFamily(t *testing.T) {
	w := newWorld(t)
	p := w.attached(dual + fixed("10.88.0.5/24 10.88.0.1", "10.89.0.5/24 10.89.0.1", "2001:db8:1::5/64 2001:db8:1::1", "2001:db8:2::5/64 2001:db8:2::1"))
	must(t, p.check())
	if have := w.addresses(w.node, w.bridge); len(have) != 4 {
		t.Errorf("addresses of the bridge: %v", have)
	}
	must(t, p.del())
}

func TestNoRoomForAGateway(t *testing.T) {
	w := newWorld(t)
	for _, address := range []string{"10.88.0.5/32", "10.88.0.1/24", "2001:db8::5/128"} {
		w.pod(`"isGateway": true, `+fixed(address)).refused(types.ErrInvalidNetworkConfig, "isGateway: the address "+address)
		w.noBridge()
	}
}

func TestMAC(t *testing.T) {
	w := newWorld(t)
	p := w.pod(`"args": {"cni": {"mac": "02:00:00:00:00:02"}}, "runtimeConfig": {"mac": "02:00:00:00:00:03"}`)
	p.req.Args = "MAC=02:00:00:00:00:01"
	for _, drop := range []string{"", `"runtimeConfig"`, `"args"`} {
		if drop != "" {
			p.req.Config = []byte(strings.Replace(string(p.req.Config), drop, `"ignored`+drop[1:], 1))
		}
		must(t, p.add())
		want := map[string]string{"": "02:00:00:00:00:03", `"runtimeConfig"`: "02:00:00:00:00:02", `"args"`: "02:00:00:00:00:01"}[drop]
		if have := p.ns.Link(t, "net1").Attrs().HardwareAddr.String(); have != want || p.res.Interfaces[2].Mac != want {
			t.Errorf("MAC is %s, in the result %s, want %s", have, p.res.Interfaces[2].Mac, want)
		}
		must(t, p.del())
	}
	p.req.Args = "MAC=02:00:00"
	p.refused(types.ErrInvalidNetworkConfig, `MAC of CNI_ARGS: "02:00:00" is no MAC address`)
}

func TestCheckNoticesEveryProperty(t *testing.T) {
	const keys = `"isGateway": true, "ipMasq": true, "macspoofchk": true, "portIsolation": true, "hairpinMode": true, "mtu": 1400, `
	for text, change := range map[string]func(*pod) error{
		"is down": func(p *pod) error { return p.node.Handle().LinkSetDown(p.br()) },
		"BRIDGE has MAC 02:00:00:00:00:09": func(p *pod) error {
			return p.node.Handle().LinkSetHardwareAddr(p.br(), net.HardwareAddr{2, 0, 0, 0, 0, 9})
		},
		"is not connected":        func(p *pod) error { return p.node.Handle().LinkSetNoMaster(p.port()) },
		"has MTU 1300, want 1400": func(p *pod) error { return p.node.Handle().LinkSetMTU(p.port(), 1300) },
		"hairpin mode false":      func(p *pod) error { return p.node.Handle().LinkSetHairpin(p.port(), false) },
		"isolation false":         func(p *pod) error { return p.node.Handle().LinkSetIsolated(p.port(), false) },
		"lacks the gateway address 10.88.0.1/24": func(p *pod) error {
			addr, _ := netlink.ParseAddr("10.88.0.1/24")
			return p.node.Handle().AddrDel(p.br(), addr)
		},
		"masquerade":  func(p *pod) error { return flushTable(nftables.TableFamilyINet) },
		"spoof check": func(p *pod) error { return flushTable(nftables.TableFamilyBridge) },
		"has MAC": func(p *pod) error {
			return p.ns.Handle().LinkSetHardwareAddr(p.ns.Link(p, "net1"), net.HardwareAddr{2, 0, 0, 0, 0, 9})
		},
		"ipam host-local": func(p *pod) error { return os.Remove(filepath.Join(p.data, "blue", "10.88.0.2")) },
		"lacks address 10.88.0.2/24": func(p *pod) error {
			addr, _ := netlink.ParseAddr("10.88.0.2/24")
			return p.ns.Handle().AddrDel(p.ns.Link(p, "net1"), addr)
		},
		"is not the other end": func(p *pod) error { return swapInterface(p) },
	} {
		t.Run(text, func(t *testing.T) {
			w := newWorld(t)
			p := w.attached(keys + hostLocal(subnet4))
			must(t, p.check())
			must(t, change(p))
			p.mustNotice(strings.Replace(text, "BRIDGE", w.bridge, 1))
			if !slices.Contains([]string{"has MAC", "ipam host-local", "lacks address 10.88.0.2/24", "is not the other end"}, text) {
				p.mend() // what is not the pod's own affair
			}
			must(t, p.del())
		})
	}
	t.Run("promiscuous", func(t *testing.T) {
		w := newWorld(t)
		p := w.attached(`"promiscMode": true`)
		must(t, p.check())
		must(t, w.node.Handle().SetPromiscOff(w.br()))
		p.mustNotice("is not promiscuous")
		p.mend()
	})
}

func flushTable(family nftables.TableFamily) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	c.FlushTable(&nftables.Table{Family: family, Name: "braid"})
	return c.Flush()
}

// swapInterface puts another pair into the pod, with the same name and address.
func swapInterface(p *pod) error {
	h := p.ns.Handle()
	old := p.ns.Link(p, "net1")
	if err := h.LinkSetDown(old); err != nil {
		return err
	}
	if err := h.LinkSetName(old, "old"); err != nil {
		return err
	}
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "peer"}
	veth.Name, veth.HardwareAddr, veth.MTU = "net1", old.Attrs().HardwareAddr, old.Attrs().MTU
	return h.LinkAdd(veth)
}

func TestForeignInterfaceIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	p := w.pod(hostLocal(subnet4))
	taken := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "peer"}
	taken.Name = "net1"
	must(t, p.ns.Handle().LinkAdd(taken))
	p.refused(0, "interface net1 exists already")
	w.noBridge()
	must(t, p.del()) // as runtimes do after an ADD that failed
	if now := p.ns.Link(t, "net1").Attrs().Index; now != taken.Index {
		t.Errorf("the interface has index %d, had %d", now, taken.Index)
	}
	if left := w.reservations(); len(left) != 0 {
		t.Errorf("reserved: %v", left)
	}
}

// TestForeignPortIsLeftAlone: what has the name of a port, and no alias, is that of a killed ADD only if nobody has come further with it.
func TestForeignPortIsLeftAlone(t *testing.T) {
	w := newWorld(t)
	p := w.attached("")
	name := p.port().Attrs().Name
	must(t, p.del())
	there, err := os.Open(p.ns.Path())
	must(t, err)
	defer there.Close()
	h := w.node.Handle()
	for what, tt := range map[string]struct {
		elsewhere bool // the other end
		use       func(netlink.Link) error
	}{
		"both ends on the node": {false, func(netlink.Link) error { return nil }},
		"it is in use": {true, func(l netlink.Link) error {
			return errors.Join(h.LinkSetUp(l), p.ns.Handle().LinkSetUp(p.ns.Link(t, "peer")))
		}},
		"it is a port of the bridge": {true, func(l netlink.Link) error { return h.LinkSetMaster(l, w.br()) }},
	} {
		veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "peer"}
		if veth.Name = name; tt.elsewhere {
			veth.PeerNamespace = netlink.NsFd(there.Fd())
		}
		must(t, h.LinkAdd(veth))
		must(t, tt.use(veth))
		must(t, p.del())
		if now, err := h.LinkByName(name); err != nil || now.Attrs().Index != veth.Index {
			t.Errorf("%s: found %v, %v, want what was there", what, now, err)
		}
		must(t, h.LinkDel(veth))
	}
}

func TestDelWithAnInvalidConfiguration(t *testing.T) {
	w := newWorld(t)
	p := w.attached(dual + `"macspoofchk": true, ` + hostLocal(subnet4))
	req := *p.req
	req.Netns = ""
	req.Config = []byte(strings.Replace(string(req.Config), `"type": "bridge"`, `"mtu": "many", "probe": 5, "vlan": -7, "hairpinMode": true, "promiscMode": true, "prevResult": 5`, 1))
	must(t, plugin.Del(t.Context(), &req))
	if links := p.ns.Links(t); len(links) != 0 {
		t.Errorf("DEL left %v", links)
	}
	if left := w.reservations(); len(left) != 0 {
		t.Errorf("reserved: %v", left)
	}
	w.noRules()
}

// What a killed ADD left of the same attachment, in a namespace that is still there, makes place.
func TestLeftoverOfTheSameAttachment(t *testing.T) {
	w := newWorld(t)
	for _, alias := range []bool{true, false} {
		before, p := w.attached(""), w.pod("")
		if !alias {
			h, port := w.node.Handle(), before.port()
			must(t, errors.Join(h.LinkSetAlias(port, ""), h.LinkSetNoMaster(port), h.LinkSetDown(port)))
		}
		p.req.ContainerID = before.req.ContainerID
		must(t, p.add())
		must(t, p.check())
		if links := before.ns.Links(t); len(links) != 0 {
			t.Errorf("the namespace of before has %v", links)
		}
		must(t, p.del())
	}
}

// failing is an IPAM plugin that fails at the verbs of its name, and otherwise hands out an address.
type failing struct {
	cni.Plugin
	verbs string
	ips   []*types100.IPConfig // instead of 10.88.0.7/24
	seen  *[]string            // links of the pod that were there at DEL
	ns    *nettest.NS
}

func (f failing) Add(context.Context, *cni.Request) (*types100.Result, error) {
	if strings.Contains(f.verbs, "ADD") {
		return nil, types.NewError(types.ErrTryAgainLater, "no address now", "")
	}
	if f.ips != nil {
		return &types100.Result{IPs: f.ips}, nil
	}
	return &types100.Result{IPs: []*types100.IPConfig{{Address: net.IPNet{IP: net.IPv4(10, 88, 0, 7).To4(), Mask: net.CIDRMask(24, 32)}}}}, nil
}

func (f failing) Del(context.Context, *cni.Request) error {
	if f.seen != nil {
		links, _ := f.ns.Handle().LinkList()
		for _, l := range links {
			*f.seen = append(*f.seen, l.Attrs().Name)
		}
	}
	if strings.Contains(f.verbs, "DEL") {
		return fmt.Errorf("no release now")
	}
	return nil
}

func (w *world) withIPAM(f failing) {
	w.plugin = bridge.Plugin{Find: func(string) cni.Plugin { return f }}
}

const anyIPAM = `"ipam": {"type": "test"}`

func TestIPAMFails(t *testing.T) {
	w := newWorld(t)
	w.withIPAM(failing{verbs: "ADD"})
	w.pod(dual+`"macspoofchk": true, `+anyIPAM).refused(types.ErrTryAgainLater, "ipam test: no address now")
	w.noBridge()
	w.noRules()
}

func TestDelGoesOnAfterAnError(t *testing.T) {
	w := newWorld(t)
	p := w.pod(dual + `"macspoofchk": true, ` + anyIPAM)
	var seen []string
	w.withIPAM(failing{verbs: "DEL", seen: &seen, ns: p.ns})
	must(t, p.add())
	w.isError(p.del(), 0, "ipam test: no release now")
	if !slices.Contains(seen, "net1") {
		t.Error("the interface was deleted before the addresses were released")
	}
	if links := p.ns.Links(t); len(links) != 0 {
		t.Errorf("DEL left %v", links)
	}
	w.noRules()
	w.withIPAM(failing{})
}

// The last step fails: everything before it is undone, the addresses first.
func TestLateFailureLeavesNothing(t *testing.T) {
	w := newWorld(t)
	must(t, w.node.Handle().LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: w.bridge, TxQLen: -1}}))
	w.node.Address(t, w.bridge, "10.99.0.1/24")
	const forwarding = "/proc/sys/net/ipv4/ip_forward"
	w.node.Do(t, func() { must(t, os.WriteFile(forwarding, []byte("0"), 0)) })
	p := w.pod(dual + `"macspoofchk": true, ` + anyIPAM)
	var seen []string
	w.withIPAM(failing{seen: &seen, ns: p.ns})
	p.refused(0, "of another network")
	if !slices.Contains(seen, "net1") {
		t.Error("the interface was deleted before the addresses were released")
	}
	w.noRules()
	w.node.Do(t, func() {
		value, err := os.ReadFile(forwarding)
		must(t, err)
		if string(value) != "0\n" {
			t.Errorf("the node forwards packets: %s", value)
		}
	})
	if have := w.addresses(w.node, w.bridge); len(have) != 1 {
		t.Errorf("addresses of the bridge: %v", have)
	}
	w.br() // it was there before
}

func TestDisabledContainerInterface(t *testing.T) {
	w := newWorld(t)
	p := w.attached(`"disableContainerInterface": true`)
	if p.ns.Link(t, "net1").Attrs().Flags&net.FlagUp != 0 {
		t.Error("the interface is up")
	}
	must(t, p.check())
}

func TestDuplicateAddressDetection(t *testing.T) {
	w := newWorld(t)
	first := w.attached(`"enabledad": true, ` + fixed("2001:db8::5/64"))
	addrs, err := first.ns.Handle().AddrList(first.ns.Link(t, "net1"), netlink.FAMILY_V6)
	must(t, err)
	for _, a := range addrs {
		if a.IP.IsGlobalUnicast() && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_NODAD) != 0 {
			t.Errorf("address %s has flags %#x", a.IPNet, a.Flags)
		}
	}
	w.pod(`"enabledad": true, `+fixed("2001:db8::5/64")).refused(0, "2001:db8::5/64 is in use by another host")
}

func TestProbe(t *testing.T) {
	w := newWorld(t)
	w.attached(fixed("10.88.0.2/24"))
	other := w.attached(`"probe": true, "enabledad": true, ` + hostLocal(subnet4, subnet6))
	if got := other.address(true); got != "10.88.0.3" {
		t.Errorf("the pod has got %s, want 10.88.0.3: another one has 10.88.0.2", got)
	}
	w.pod(`"probe": true, `+fixed("10.88.0.2/24")).refused(types.ErrTryAgainLater, "address 10.88.0.2 is in use by ")
	w.pod(`"probe": {"count": 11}`).refused(types.ErrInvalidNetworkConfig, "probe.count: found 11, want 1 to 10")
}

// noSourceRouting fails the test if the pod has rules other than the kernel's: local, main and default.
func (p *pod) noSourceRouting() {
	p.Helper()
	rules, err := p.ns.Handle().RuleList(netlink.FAMILY_V4)
	must(p, err)
	if len(rules) != 3 {
		p.Errorf("rules of the pod: %v", rules)
	}
}

func TestSourceRoutingGoesWithTheInterface(t *testing.T) {
	w := newWorld(t)
	p := w.attached(`"isGateway": true, "sourceRouting": true, ` + hostLocal(subnet4))
	must(t, p.check())
	must(t, p.del())
	p.noSourceRouting()
}

// TestSourceRoutingOfAFailedADD: its rules go with the interface, without a DEL.
func TestSourceRoutingOfAFailedADD(t *testing.T) {
	w := newWorld(t)
	must(t, w.node.Handle().LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: w.bridge, TxQLen: -1}}))
	w.node.Address(t, w.bridge, "10.99.0.1/24")
	p := w.pod(`"isGateway": true, "sourceRouting": true, ` + hostLocal(subnet4))
	p.refused(0, "of another network")
	p.noSourceRouting()
}

// TestSourceRoutingGoesAfterTheInterface: a DEL that finds no port any more comes after one that was not finished.
func TestSourceRoutingGoesAfterTheInterface(t *testing.T) {
	w := newWorld(t)
	p := w.attached(`"isGateway": true, "sourceRouting": true, ` + hostLocal(subnet4))
	must(t, p.ns.Handle().LinkDel(p.ns.Link(t, "net1")))
	must(t, p.del())
	p.noSourceRouting()
}

func TestGCLeavesOtherNetworks(t *testing.T) {
	w := newWorld(t)
	stale, valid := w.attached(dual+fixed("10.88.0.5/24")), w.attached(dual+fixed("10.88.0.6/24"))
	other := w.pod(dual + fixed("10.88.0.7/24"))
	other.req.Config = []byte(strings.Replace(string(other.req.Config), `"blue"`, `"red"`, 1))
	must(t, other.add())

	list, err := json.Marshal([]types.GCAttachment{{ContainerID: valid.req.ContainerID, IfName: "net1"}})
	must(t, err)
	must(t, plugin.GC(t.Context(), &cni.Request{Config: w.config(`"ipMasq": true, "cni.dev/valid-attachments": ` + string(list))}))
	if links := stale.ns.Links(t); len(links) != 0 {
		t.Errorf("the stale pod still has %v", links)
	}
	must(t, valid.check())
	must(t, other.check())
	w.isError(plugin.GC(t.Context(), &cni.Request{Config: w.config("")}), types.ErrInvalidNetworkConfig, "cni.dev/valid-attachments")
}

// A plugin before this one has made a tap for a virtual machine.
func TestAdoptedInterface(t *testing.T) {
	w := newWorld(t)
	tap := &netlink.Tuntap{LinkAttrs: netlink.NewLinkAttrs(), Mode: netlink.TUNTAP_MODE_TAP}
	tap.Name = nettest.Name("tap")
	must(t, w.node.Handle().LinkAdd(tap))
	defer func() { must(t, w.node.Handle().LinkDel(tap)) }()

	const keys = `"macspoofchk": true, "portIsolation": true, "runtimeConfig": {"mac": "02:00:00:00:00:05"}`
	p := w.pod(keys)
	p.req = p.withPrevResult(&types100.Result{Interfaces: []*types100.Interface{{Name: tap.Name, Mac: "02:00:00:00:00:05"}}})
	must(t, p.add())
	link := w.node.Link(t, tap.Name).Attrs()
	if link.MasterIndex != w.br().Index || link.Flags&net.FlagUp == 0 {
		t.Errorf("the tap is not a port that is up: %+v", link)
	}
	if links := p.ns.Links(t); len(links) != 0 {
		t.Errorf("the pod has got %v", links)
	}
	if got := p.res.Interfaces; len(got) != 2 || got[0].Name != tap.Name || got[1].Name != w.bridge {
		t.Errorf("interfaces of the result: %v", got)
	}
	p.req.Config = w.config(keys)
	must(t, p.check())
	must(t, p.del())
	if link := w.node.Link(t, tap.Name).Attrs(); link.MasterIndex != 0 || link.Alias != "" {
		t.Errorf("DEL has not let the tap go: %+v", link)
	}
	w.noRules()
	p.mustNotice("is not connected")

	// What its plugin calls it stays, whether the ADD fails or not.
	const alias = "vm 5"
	must(t, w.node.Handle().LinkSetAlias(tap, alias))
	for _, failing := range []string{fixed("10.88.0.5/24"), `"macspoofchk": true`} {
		q := w.pod(failing)
		q.req = q.withPrevResult(&types100.Result{Interfaces: []*types100.Interface{{Name: tap.Name}}})
		q.refused(types.ErrInvalidNetworkConfig, "prevResult")
		if link := w.node.Link(t, tap.Name).Attrs(); link.MasterIndex != 0 || link.Alias != alias {
			t.Errorf("the ADD that failed has left the tap connected, or without its alias: %+v", link)
		}
	}
	p.req = p.withPrevResult(&types100.Result{Interfaces: []*types100.Interface{{Name: tap.Name, Mac: "02:00:00:00:00:05"}}})
	must(t, p.add())
	if link := w.node.Link(t, tap.Name).Attrs(); link.MasterIndex != w.br().Index || link.Alias != alias {
		t.Errorf("the tap is no port, or has lost its alias: %+v", link)
	}
}

// ptp before bridge in a chain: the pair of the pod is there, with its addresses.
func TestAdoptedPair(t *testing.T) {
	w := newWorld(t)
	p := w.pod(`"isDefaultGateway": true, "ipMasq": true`)
	ns, err := os.Open(p.ns.Path())
	must(t, err)
	defer ns.Close()
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "net1", PeerNamespace: netlink.NsFd(ns.Fd())}
	veth.Name = nettest.Name("host")
	must(t, w.node.Handle().LinkAdd(veth))
	p.ns.Address(t, "net1", "10.88.0.5/24")
	prev := &types100.Result{
		Interfaces: []*types100.Interface{
			{Name: veth.Name}, {Name: "net1", Mac: p.ns.Link(t, "net1").Attrs().HardwareAddr.String(), Sandbox: p.ns.Path()},
		},
		IPs: []*types100.IPConfig{{Interface: types100.Int(1), Address: net.IPNet{IP: net.IPv4(10, 88, 0, 5), Mask: net.CIDRMask(24, 32)}}},
	}
	config := p.req.Config
	p.req = p.withPrevResult(prev)
	must(t, p.add())
	p.req.Config = config
	if len(p.res.IPs) != 1 || *p.res.IPs[0].Interface != 1 || !p.res.IPs[0].Gateway.Equal(net.IPv4(10, 88, 0, 1)) {
		t.Errorf("addresses of the result: %v", p.res.IPs)
	}
	nettest.Reach(t, p.ns, w.node, "10.88.0.1")
	must(t, p.check())
	must(t, p.del())
	w.noRules()
	must(t, w.node.Handle().LinkDel(veth)) // DEL has left it to the other plugin
}

// Pods that the reference plugin has attached are deleted by this one after an upgrade.
func TestDelOfWhatTheReferenceMade(t *testing.T) {
	w := newWorld(t)
	p := w.pod(hostLocal(subnet4))
	w.plugin = cni.Exec{Type: "bridge"}
	must(t, p.add())
	w.plugin = plugin
	must(t, p.check())
	must(t, p.del())
	if links := p.ns.Links(t); len(links) != 0 {
		t.Errorf("DEL left %v", links)
	}
	if left := w.reservations(); len(left) != 0 {
		t.Errorf("reserved: %v", left)
	}
}

// TestDelLeavesAnotherPair: what has got the name of a port that the reference plugin has made is not the other end of the pod's interface.
func TestDelLeavesAnotherPair(t *testing.T) {
	w := newWorld(t)
	p := w.pod("")
	inPod := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "peer"}
	inPod.Name, inPod.Index = "net1", 1000 // which is that of nothing on the node
	must(t, p.ns.Handle().LinkAdd(inPod))
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: nettest.Name("b")}
	veth.Name = nettest.Name("a")
	must(t, w.node.Handle().LinkAdd(veth))
	defer func() { must(t, w.node.Handle().LinkDel(veth)) }()
	must(t, plugin.Del(t.Context(), p.withPrevResult(&types100.Result{
		Interfaces: []*types100.Interface{{Name: veth.Name}, {Name: "net1", Sandbox: p.ns.Path()}},
	})))
	if now, err := w.node.Handle().LinkByName(veth.Name); err != nil || now.Attrs().Index != veth.Index {
		t.Errorf("found %v, %v, want what was there", now, err)
	}
}

func TestTwoInterfacesToAdopt(t *testing.T) {
	w := newWorld(t)
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: nettest.Name("b")}
	veth.Name = nettest.Name("a")
	must(t, w.node.Handle().LinkAdd(veth))
	defer func() { must(t, w.node.Handle().LinkDel(veth)) }()
	p := w.pod("")
	p.req = p.withPrevResult(&types100.Result{Interfaces: []*types100.Interface{{Name: veth.Name}, {Name: veth.PeerName}}})
	p.refused(0, "two interfaces of the node that could be connected")
}

func TestStatus(t *testing.T) {
	w := newWorld(t)
	must(t, plugin.Status(t.Context(), &cni.Request{Config: w.config(dual + `"macspoofchk": true`)}))
	w.isError(plugin.Status(t.Context(), &cni.Request{Config: w.config(`"mtu": 5`)}), types.ErrInvalidNetworkConfig, "mtu")
	w.isError(plugin.Status(t.Context(), &cni.Request{Config: w.config(anyIPAM)}), types.ErrPluginNotAvailable, `"test"`)
}

// TestFullBridge: an ADD for which there is no room says so, and leaves nothing.
func TestFullBridge(t *testing.T) {
	w := newWorld(t)
	p := w.attached("")
	must(t, p.del())
	h, attrs := w.node.Handle(), netlink.NewLinkAttrs()
	attrs.MasterIndex, attrs.Group, attrs.NumTxQueues, attrs.NumRxQueues = w.br().Index, 1023, 1, 1
	for i := range 1023 {
		attrs.Name = fmt.Sprint("full", i)
		if i%2 == 0 {
			must(t, h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprint("full", i+1), PeerNumTxQueues: 1, PeerNumRxQueues: 1}))
		} else {
			must(t, h.LinkSetMaster(w.node.Link(t, attrs.Name), w.br()))
		}
	}
	before := len(w.node.Links(t))
	p = w.pod(hostLocal(subnet4))
	err := p.add()
	if !errors.Is(err, unix.EXFULL) || strings.Contains(err.Error(), "exists already") {
		t.Errorf("found %v, want that the bridge is full", err)
	}
	if after := len(w.node.Links(t)); after != before || len(p.ns.Links(t)) > 0 {
		t.Errorf("the node has %d interfaces, and had %d; the pod has %v", after, before, p.ns.Links(t))
	}
	r := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(1023)))
	w.node.Do(t, func() { _, err := r.Execute(unix.NETLINK_ROUTE, 0); must(t, err) })
}

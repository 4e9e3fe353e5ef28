package bridge_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/internal/nettest"
)

func newVLANWorld(t *testing.T) *world {
	t.Helper()
	nettest.NeedKernel(t, nettest.VLAN, nettest.BridgeVLANFiltering)
	return newWorld(t)
}

func TestVLANsKeepPodsApart(t *testing.T) {
	w := newVLANWorld(t)
	a := w.attached(`"vlan": 100, ` + fixed("10.88.0.2/24"))
	b := w.attached(`"vlan": 100, ` + fixed("10.88.0.3/24"))
	c := w.attached(`"vlan": 200, ` + fixed("10.88.0.4/24"))
	nettest.Reach(t, a.ns, b.ns, "10.88.0.3")
	nettest.NoReach(t, a.ns, c.ns, "10.88.0.4")
}

// The pod at the trunk has an interface per VLAN.
func TestTrunkCarriesTaggedPackets(t *testing.T) {
	w := newVLANWorld(t)
	trunk := w.attached(`"vlan": 100, "vlanTrunk": [{"minID": 200, "maxID": 300}], ` + fixed("10.88.0.2/24"))
	native := w.attached(`"vlan": 100, ` + fixed("10.88.0.3/24"))
	tagged := w.attached(`"vlan": 250, ` + fixed("10.89.0.3/24"))
	outside := w.attached(`"vlan": 301, ` + fixed("10.90.0.3/24"))
	for id, address := range map[int]string{250: "10.89.0.2/24", 301: "10.90.0.2/24"} {
		sub := &netlink.Vlan{LinkAttrs: netlink.NewLinkAttrs(), VlanId: id}
		sub.Name, sub.ParentIndex = fmt.Sprintf("net1.%d", id), trunk.ns.Link(t, "net1").Attrs().Index
		must(t, trunk.ns.Handle().LinkAdd(sub))
		must(t, trunk.ns.Handle().LinkSetUp(sub))
		trunk.ns.Address(t, sub.Name, address)
	}
	nettest.Reach(t, trunk.ns, native.ns, "10.88.0.3")
	nettest.Reach(t, trunk.ns, tagged.ns, "10.89.0.3")
	nettest.NoReach(t, trunk.ns, outside.ns, "10.90.0.3")
	for _, p := range []*pod{trunk, native, tagged, outside} {
		must(t, p.check())
	}
	must(t, trunk.del())
	if links := trunk.ns.Links(t); len(links) != 0 {
		t.Errorf("DEL left %v", links)
	}
}

// The reference plugin adds one VLAN per request, and only to a bridge of its own.
func TestWholeTrunkOnAnExistingBridge(t *testing.T) {
	w := newVLANWorld(t)
	must(t, w.node.Handle().LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: w.bridge, TxQLen: -1}}))
	before := w.attached("")
	p := w.attached(`"vlan": 7, "vlanTrunk": [{"minID": 1, "maxID": 4094}]`)
	if br := w.br(); br.VlanFiltering == nil || !*br.VlanFiltering {
		t.Error("VLAN filtering of the bridge is off")
	}
	all, err := w.node.Handle().BridgeVlanList()
	must(t, err)
	if n := len(all[int32(p.port().Attrs().Index)]); n != 4094 {
		t.Errorf("the port is in %d VLANs, want 4094", n)
	}
	must(t, p.check())
	must(t, before.check())
}

func TestCheckNoticesVLANs(t *testing.T) {
	for text, change := range map[string]func(*pod, netlink.Link) error{
		"lacks VLAN 100": func(p *pod, port netlink.Link) error {
			return p.node.Handle().BridgeVlanDel(port, 100, false, false, false, true)
		},
		"lacks VLAN 205": func(p *pod, port netlink.Link) error {
			return p.node.Handle().BridgeVlanDel(port, 205, false, false, false, true)
		},
		"has VLAN 300": func(p *pod, port netlink.Link) error {
			return p.node.Handle().BridgeVlanAdd(port, 300, false, false, false, true)
		},
		"has VLAN 200 (PVID fal": func(p *pod, port netlink.Link) error {
			return p.node.Handle().BridgeVlanAdd(port, 200, false, true, false, true)
		},
		"VLAN filtering of bridge": func(p *pod, _ netlink.Link) error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.Index = p.bridge, p.br().Index
			return p.node.Handle().BridgeSetVlanFiltering(&netlink.Bridge{LinkAttrs: attrs}, false)
		},
	} {
		t.Run(text, func(t *testing.T) {
			w := newVLANWorld(t)
			p := w.attached(`"vlan": 100, "vlanTrunk": [{"minID": 200, "maxID": 210}]`)
			must(t, p.check())
			must(t, change(p, p.port()))
			p.mustNotice(text)
			p.mend()
		})
	}
}

// TestGatewayOfAVLANTaken: what has the name of the gateway is neither used nor deleted.
func TestGatewayOfAVLANTaken(t *testing.T) {
	w := newVLANWorld(t)
	other := netlink.NewLinkAttrs()
	other.Name = w.bridge + ".100"
	must(t, w.node.Handle().LinkAdd(&netlink.Bridge{LinkAttrs: other}))
	p := w.pod(`"vlan": 100, ` + dual + fixed("10.88.0.2/24"))
	p.refused(types.ErrInvalidNetworkConfig, "the gateway of VLAN 100 would be called "+other.Name+", and that is another interface, of type bridge")
	must(t, p.del())
	w.node.Link(t, other.Name)
}

func TestGatewayOfAVLAN(t *testing.T) {
	w := newVLANWorld(t)
	nic := nettest.Parent(t, w.node)
	w.node.Address(t, nic.Name, "192.0.2.1/24")
	nic.LAN.Address(t, nic.Port, "192.0.2.9/24")
	keys := `"vlan": 100, ` + dual
	a, b := w.attached(keys+fixed("10.88.0.2/24")), w.attached(keys+fixed("10.88.0.3/24"))
	other := w.attached(`"vlan": 200, ` + dual + fixed("10.89.0.2/24"))
	gateway := w.bridge + ".100"
	if got := a.res.Interfaces; len(got) != 4 || got[3].Name != gateway || got[3].Mac != w.node.Link(t, gateway).Attrs().HardwareAddr.String() {
		t.Errorf("interfaces of the result: %v", got)
	}
	if diff := cmp.Diff([]string{"10.88.0.1/24"}, w.addresses(w.node, gateway)); diff != "" {
		t.Errorf("addresses of the gateway (-want +got):\n%s", diff)
	}
	nettest.Reach(t, a.ns, w.node, "10.88.0.1")
	nettest.Reach(t, a.ns, nic.LAN, "192.0.2.9")
	for _, p := range []*pod{a, b, other} {
		must(t, p.check())
	}
	for _, name := range []string{gateway, w.bridge} { // the bridge takes those of both VLANs along
		must(t, w.node.Handle().LinkDel(w.node.Link(t, name)))
		for _, p := range []*pod{a, b, other} {
			p.mend()
		}
		nettest.Reach(t, a.ns, w.node, "10.88.0.1")
		nettest.Reach(t, a.ns, b.ns, "10.88.0.3")
	}
	// The gateway goes with the last pod of the VLAN.
	must(t, a.del())
	must(t, b.check())
	must(t, b.del())
	if links := w.node.Links(t); slices.Contains(links, gateway) || !slices.Contains(links, w.bridge+".200") {
		t.Errorf("links of the node: %v, want no %s", links, gateway)
	}
	must(t, other.check())
	must(t, other.del())
}

// The VLAN of the bridge itself needs no other interface.
func TestGatewayOfTheDefaultVLAN(t *testing.T) {
	w := newVLANWorld(t)
	p := w.attached(`"vlan": 1, ` + dual + fixed("10.88.0.2/24"))
	if diff := cmp.Diff([]string{"10.88.0.1/24"}, w.addresses(w.node, w.bridge)); diff != "" {
		t.Errorf("addresses of the bridge (-want +got):\n%s", diff)
	}
	nettest.Reach(t, p.ns, w.node, "10.88.0.1")
	must(t, p.check())
}

// A gateway that somebody else has made is used, and stays.
func TestForeignGatewayOfAVLAN(t *testing.T) {
	w := newVLANWorld(t)
	must(t, w.node.Handle().LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: w.bridge, TxQLen: -1}}))
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: nettest.Name("peer")}
	veth.Name = w.bridge + ".100"
	must(t, w.node.Handle().LinkAdd(veth))
	must(t, w.node.Handle().LinkSetUp(veth))
	p := w.attached(`"vlan": 100, "isGateway": true, ` + fixed("10.88.0.2/24"))
	must(t, p.check())
	must(t, p.del())
	w.node.Link(t, veth.Name)
}

// TestUnfinishedGatewayOfAVLAN: one that an ADD has left which was killed while it made it is finished by the next.
func TestUnfinishedGatewayOfAVLAN(t *testing.T) {
	w := newVLANWorld(t)
	must(t, w.attached(`"vlan": 200, `+fixed("10.88.0.9/24")).del()) // which makes the bridge
	h, br := w.node.Handle(), w.br()
	for _, alias := range []string{"", "braid:vlan-gateway"} {
		vlan := &netlink.Vlan{LinkAttrs: netlink.NewLinkAttrs(), VlanId: 100}
		vlan.Name, vlan.ParentIndex = w.bridge+".100", br.Index
		must(t, h.LinkAdd(vlan))
		must(t, h.LinkSetAlias(vlan, alias))
		p := w.attached(`"vlan": 100, "isGateway": true, ` + fixed("10.88.0.2/24"))
		must(t, p.check())
		nettest.Reach(t, p.ns, w.node, "10.88.0.1")
		must(t, p.del())
		// One without the mark may be somebody else's.
		if left := slices.Contains(w.node.Links(t), vlan.Name); left != (alias == "") {
			t.Errorf("with the alias %q: is it there after DEL? %t", alias, left)
		}
		if alias == "" {
			must(t, h.LinkDel(vlan))
		}
	}
}

func TestLateFailureRemovesTheGatewayOfTheVLAN(t *testing.T) {
	w := newVLANWorld(t)
	first := w.attached(`"vlan": 100, "isGateway": true, ` + fixed("10.88.0.2/24"))
	w.pod(`"vlan": 100, "isGateway": true, `+fixed("10.89.0.3/24")).refused(0, "of another network")
	must(t, first.check())

	// An address that nobody can have.
	w.withIPAM(failing{ips: []*types100.IPConfig{
		{Address: net.IPNet{IP: net.IPv4(10, 89, 0, 2), Mask: net.CIDRMask(24, 32)}},
		{Address: net.IPNet{IP: net.ParseIP("2001:db8::2"), Mask: net.CIDRMask(64, 128)}, Gateway: net.ParseIP("ff02::1")},
	}})
	w.pod(`"vlan": 200, "isGateway": true, `+anyIPAM).refused(0, "add address ff02::1/64 to "+w.bridge+".200")
	for _, name := range w.node.Links(t) {
		if strings.HasSuffix(name, ".200") {
			t.Errorf("ADD that failed left %s", name)
		}
	}
}

func TestKernelWithoutVLANFiltering(t *testing.T) {
	w := newWorld(t)
	p := w.pod(`"vlan": 100`)
	if err := p.add(); err == nil {
		t.Skip("this kernel has bridge VLAN filtering")
	} else {
		w.isError(err, types.ErrPluginNotAvailable, "CONFIG_BRIDGE_VLAN_FILTERING")
	}
	w.noBridge()
}

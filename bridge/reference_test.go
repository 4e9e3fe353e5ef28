package bridge_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
)

// Both plugins get the same input, on a bridge that each has to make. Where the results and what the kernel has differ,
// it is for a reason that README.md gives, and that is taken out here before they are compared.
func TestSideBySideWithTheReference(t *testing.T) {
	const routes = `"routes": [{"dst": "198.51.100.0/24"}, {"dst": "203.0.113.0/24", "gw": "10.88.0.9", "priority": 7}], "dns": {"nameservers": ["192.0.2.53"]}}`
	withRoutes := strings.TrimSuffix(fixed("10.88.0.5/24 10.88.0.1"), "}") + ", " + routes
	for name, keys := range map[string]string{
		"layer 2":            ``,
		"mtu":                `"mtu": 1400`,
		"hairpin":            `"hairpinMode": true, "portIsolation": true`,
		"promiscuous":        `"promiscMode": true`,
		"MAC":                `"runtimeConfig": {"mac": "02:00:00:00:00:05"}`,
		"disabled":           `"disableContainerInterface": true`,
		"addresses":          fixed("10.88.0.5/24"),
		"gateway":            `"isGateway": true, ` + fixed("10.88.0.5/24", "2001:db8::5/64"),
		"gateways of IPAM":   `"isGateway": true, ` + fixed("10.88.0.5/24 10.88.0.254", "2001:db8::5/64 2001:db8::ff"),
		"default gateway":    `"isDefaultGateway": true, ` + fixed("10.88.0.5/24", "2001:db8::5/64"),
		"routes":             `"isDefaultGateway": true, ` + withRoutes,
		"own DNS":            `"dns": {"nameservers": ["192.0.2.54"], "search": ["example.org"]}, ` + withRoutes,
		"host-local":         `"isDefaultGateway": true, ` + hostLocal(subnet4, subnet6),
		"enabledad":          `"enabledad": true, "isGateway": true, ` + fixed("2001:db8::5/64"),
		"ipMasq":             `"isGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", ` + fixed("10.88.0.5/24"),
		"macspoofchk":        `"macspoofchk": true`,
		"VLAN":               `"vlan": 100`,
		"VLAN, default kept": `"vlan": 100, "preserveDefaultVlan": true`,
		"VLAN with gateway":  `"vlan": 100, "isDefaultGateway": true, ` + fixed("10.88.0.5/24", "2001:db8::5/64"),
		"trunk":              `"vlanTrunk": [{"id": 101}, {"minID": 200, "maxID": 210}]`,
		"trunk with VLAN":    `"vlan": 100, "vlanTrunk": [{"id": 101}, {"minID": 200, "maxID": 210}]`,
		"trunk, VLAN 1 kept": `"vlan": 100, "preserveDefaultVlan": true, "vlanTrunk": [{"minID": 200, "maxID": 210}]`,
	} {
		t.Run(name, func(t *testing.T) {
			if strings.Contains(keys, `"vlan`) {
				nettest.NeedKernel(t, nettest.BridgeVLANFiltering)
			}
			if _, err := exec.LookPath("nft"); err != nil && (strings.Contains(keys, "ipMasq") || strings.Contains(keys, "macspoofchk")) {
				t.Skip("the reference needs the nft tool for this, which is not installed")
			}
			w := newWorld(t)
			var states []string
			for _, reference := range []bool{true, false} {
				for _, key := range forwarding {
					must(t, os.WriteFile("/proc/sys/net/"+key, []byte("0"), 0))
				}
				w.data = t.TempDir()
				w.plugin = plugin
				if reference {
					w.plugin = cni.Exec{Type: "bridge"}
				}
				p := w.attached(keys)
				states = append(states, p.state())
				if keys != "" && strings.Contains(keys, `"ipam"`) || !reference { // the reference's CHECK fails on layer 2
					must(t, p.check())
				}
				must(t, p.del())
				if links := p.ns.Links(t); len(links) != 0 {
					t.Errorf("DEL left %v", links)
				}
				w.deleteBridge()
				if reference {
					flushRules(t) // it leaves its tables
				}
			}
			if diff := cmp.Diff(states[0], states[1]); diff != "" {
				t.Errorf("-reference +braid:\n%s", diff)
			}
		})
	}
}

func flushRules(t testing.TB) {
	t.Helper()
	c, err := nftables.New()
	must(t, err)
	c.FlushRuleset()
	must(t, c.Flush())
}

var forwarding = []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"}

// state prints a result and what the kernel has.
func (p *pod) state() string {
	p.Helper()
	lines := []string{p.resultText()}
	br, port, inside := p.br(), p.port(), p.ns.Link(p, "net1")
	info, err := p.node.Handle().LinkGetProtinfo(port)
	must(p, err)
	lines = append(lines,
		fmt.Sprintf("bridge mtu %d promisc %t vlan_filtering %t", br.MTU, br.RawFlags&unix.IFF_PROMISC != 0, br.VlanFiltering != nil && *br.VlanFiltering),
		fmt.Sprintf("port mtu %d %v master %t hairpin %t isolated %t", port.Attrs().MTU, port.Attrs().Flags,
			port.Attrs().MasterIndex == br.Index, info.Hairpin, info.Isolated),
		fmt.Sprintf("interface %s mtu %d %v", inside.Type(), inside.Attrs().MTU, inside.Attrs().Flags),
	)
	for _, key := range append(forwarding, "ipv6/conf/"+p.bridge+"/accept_ra") {
		value, err := os.ReadFile("/proc/sys/net/" + key)
		must(p, err)
		lines = append(lines, fmt.Sprintf("sysctl %s %s", key, value))
	}
	lines = append(lines, p.vlans(port)...)
	lines = append(lines, p.addressText(p.ns, "net1")...)
	for _, iface := range p.res.Interfaces {
		if iface.Sandbox == "" && !strings.HasPrefix(iface.Name, "veth") {
			lines = append(lines, p.addressText(p.node, iface.Name)...)
		}
	}
	routes, err := p.ns.Handle().RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: inside.Attrs().Index}, netlink.RT_FILTER_OIF)
	must(p, err)
	for _, r := range routes {
		if r.Dst == nil || !r.Dst.IP.IsLinkLocalUnicast() {
			lines = append(lines, fmt.Sprintf("route %v via %v metric %d table %d kernel %v", r.Dst, r.Gw, r.Priority, r.Table, r.Protocol == unix.RTPROT_KERNEL))
		}
	}
	slices.Sort(lines[1:])
	return strings.ReplaceAll(strings.Join(lines, "\n"), p.bridge, "BRIDGE")
}

func (p *pod) resultText() string {
	p.Helper()
	res := *p.res
	res.Interfaces = nil
	for i, iface := range p.res.Interfaces {
		iface = iface.Copy()
		iface.Mtu, iface.Sandbox = 0, ""
		if !strings.HasPrefix(iface.Mac, "02:00:00") {
			iface.Mac = "random"
		}
		if i == 1 {
			iface.Name = "random"
		}
		res.Interfaces = append(res.Interfaces, iface)
	}
	res.Routes = nil
	for _, r := range p.res.Routes {
		res.Routes = append(res.Routes, r.Copy())
	}
	res.IPs = slices.Clone(p.res.IPs)
	doc, err := json.MarshalIndent(&res, "", "  ")
	must(p, err)
	return string(doc)
}

func (p *pod) addressText(ns *nettest.NS, link string) (lines []string) {
	p.Helper()
	addrs, err := ns.Handle().AddrList(ns.Link(p, link), netlink.FAMILY_ALL)
	must(p, err)
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() {
			flags := a.Flags &^ (unix.IFA_F_NODAD | unix.IFA_F_TENTATIVE)
			lines = append(lines, fmt.Sprintf("address of %s %s broadcast %v flags %#x", link, a.IPNet, a.Broadcast, flags))
		}
	}
	return lines
}

// vlans prints those of a port.
func (p *pod) vlans(port netlink.Link) (lines []string) {
	p.Helper()
	all, err := p.node.Handle().BridgeVlanList()
	must(p, err)
	for _, v := range all[int32(port.Attrs().Index)] {
		lines = append(lines, fmt.Sprintf("vlan %d pvid %t untagged %t", v.Vid, v.PortVID(), v.EngressUntag()))
	}
	return lines
}

//go:build conformance

package conformance

import (
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/internal/nettest"
)

// Rows of section 2 of the CNI specification: CHECK.

// previous is a plugin's configuration as a runtime sends it for CHECK, with the result of ADD.
func (p *pod) previous(config string, result dict) string {
	return string(set(p.node, []byte(p.expand(config)), "prevResult", result))
}

const plainBridge = `{"cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "br0", "isDefaultGateway": true,
	"ipam": {"type": "host-local", "dataDir": "$DIR", "subnet": "10.1.1.0/24"}}`

var _ = row("B53", func(t *T) {
	t.Plugin()
	p := t.Node().container()
	result := p.plugin("bridge", "ADD", plainBridge).raw()
	p.plugin("bridge", "CHECK", p.previous(plainBridge, result)).ok()
	p.plugin("bridge", "CHECK", plainBridge).failed() // without prevResult
	at(result, "ips", 0).(dict)["address"] = "10.1.1.77/24"
	p.plugin("bridge", "CHECK", p.previous(plainBridge, result)).failed()
})

var _ = row("B54", func(t *T) {
	n := bridged(t)
	p := n.container()
	p.add().ok()
	_, dst, _ := net.ParseCIDR("203.0.113.0/24")
	n.must(p.ns.Handle().RouteAdd(&netlink.Route{LinkIndex: p.ns.Link(t, "eth0").Attrs().Index, Dst: dst, Gw: net.ParseIP("10.244.0.1")}))
	p.check().ok()
	// A default route that was moved is a change of the implementation's own.
	n = routed(t)
	p = n.pod(`[{"name": "gw", "default-route": ["10.20.0.1"]}]`)
	p.add().ok()
	p.check().ok()
})

var _ = row("B55", func(t *T) {
	t.Plugin()
	for what, spoil := range map[string]func(p *pod, l netlink.Link) error{
		"no interface":   func(p *pod, l netlink.Link) error { return p.ns.Handle().LinkDel(l) },
		"interface down": func(p *pod, l netlink.Link) error { return p.ns.Handle().LinkSetDown(l) },
		"no address": func(p *pod, l netlink.Link) error {
			a, err := netlink.ParseAddr("10.1.1.2/24")
			if err != nil {
				return err
			}
			return p.ns.Handle().AddrDel(l, a)
		},
		"no route": func(p *pod, l netlink.Link) error {
			return p.ns.Handle().RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Gw: net.ParseIP("10.1.1.1")})
		},
	} {
		p := t.Node().container()
		result := p.plugin("bridge", "ADD", plainBridge).raw()
		p.must(spoil(p, p.ns.Link(t, "eth0")))
		if o := p.plugin("bridge", "CHECK", p.previous(plainBridge, result)); o.exit == 0 {
			t.Errorf("CHECK succeeds with: %s", what)
		}
	}
})

var _ = row("B56", func(t *T) {
	t.Plugin()
	for what, spoil := range map[string]func(n *node) error{
		"no reservation": func(n *node) error { return os.Remove(filepath.Join(n.dir, "ipam/net/10.1.1.2")) },
		"no rules":       func(n *node) error { n.run("nft", "flush", "ruleset"); return nil },
	} {
		p := t.Node().container()
		result := p.plugin("bridge", "ADD", dnsBridge).raw()
		p.must(spoil(p.node))
		if o := p.plugin("bridge", "CHECK", p.previous(dnsBridge, result)); o.exit == 0 {
			t.Errorf("CHECK succeeds with: %s", what)
		}
	}
})

var _ = row("B57", func(t *T) {
	t.Plugin()
	n := t.Node()
	p := n.container()
	result := p.plugin("bridge", "ADD", plainBridge).raw()
	n.must(n.ns.Handle().LinkSetDown(n.ns.Link(t, "br0")))
	p.plugin("bridge", "CHECK", p.previous(plainBridge, result)).failed()
})

var _ = row("B58", func(t *T) {
	n := t.Node()
	n.main(strings.Replace(mainBridge, `"subnet": "10.244.0.0/24"`, `"ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:244::/64"}]]`, 1))
	for range 10 {
		p := n.container()
		p.add().ok()
		p.check().ok()
	}
})

const checkFails = `"CHECK": {"error": {"cniVersion": "1.1.0", "code": 123, "msg": "address lost"}}`

var _ = row("B59", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a"))
	p := n.pod("net")
	p.add().ok()
	p.check().ok()
	n.script("rec-a", `{`+checkFails+`}`)
	if e := p.check().failed(); !strings.Contains(e.text(), "address lost") {
		t.Errorf("CHECK does not pass on the error of a network of the pod: %s", e.text())
	}
	if t.suite.impl.plugins {
		n.script("rec-ipam", `{`+ipamReplies+`, `+checkFails+`}`)
		p := n.container()
		result := p.plugin("bridge", "ADD", ipamBridge).raw()
		if e := p.plugin("bridge", "CHECK", p.previous(ipamBridge, result)).failed(); !strings.Contains(e.text(), "address lost") {
			t.Errorf("CHECK does not pass on the error of the address plugin: %s", e.text())
		}
	}
})

var _ = row("B60", func(t *T) {
	n := t.Node()
	p := n.container()
	p.check().failed()
	p.add().ok()
	p.del().ok()
	p.check().failed()
	if called := n.calls("CHECK"); len(called) > 0 {
		t.Errorf("plugins were told to CHECK what is not there: %s", trace(called))
	}
})

var _ = row("B62", finalResult)
var _ = row("B111", finalResult)

// finalResult: all plugins of a chain see the result of the last one.
func finalResult(t *T) {
	n := t.Node()
	n.main(`{"cniVersion": "1.1.0", "name": "cluster", "plugins": [{"type": "rec-a"}, {"type": "rec-b"}]}`)
	n.script("rec-b", `{"ADD": {"result": `+full+`}}`)
	p := n.container()
	p.add().ok()
	p.check().ok()
	n.wantTrace("CHECK rec-a eth0, CHECK rec-b eth0", "CHECK")
	for _, c := range n.calls("CHECK") {
		t.want("address in prevResult of "+c.Type, at(c.conf(), "prevResult", "ips", 0, "address"), `"10.1.1.9/24"`)
	}
}

var _ = row("B63", func(t *T) {
	n := t.Node()
	n.main(`{"cniVersion": "1.1.0", "name": "cluster", "plugins": [{"type": "rec-a"}, {"type": "rec-b"}]}`)
	p := n.container()
	p.add().ok()
	n.script("rec-a", `{`+checkFails+`}`)
	p.check().failed()
	if len(n.calls("rec-b", "CHECK")) > 0 {
		t.NotApplicable("a permission that it does not use: the rest of the chain is checked")
	}
})

func init() {
	notApplicable("a permission of the container runtime", "B64", "B96")
	notApplicable("it is about how the container runtime or the operator behaves", "B90", "B98")
}

var _ = row("B65", func(t *T) {
	// A pod whose CHECK fails may be ended, so that no passing trouble may fail it.
	n := t.Node()
	p := n.pod("")
	p.add().ok()
	n.cut()
	p.check().ok()
	n.one("rec-cluster", "CHECK")
})

var _ = row("B66", sameParameters)
var _ = row("B109", sameParameters)

// sameParameters: CHECK of each plugin has those of its ADD.
func sameParameters(t *T) {
	n := t.Node()
	n.main(`{"cniVersion": "1.1.0", "name": "cluster", "type": "rec-cluster", "capabilities": {"ips": true}}`)
	n.keys["runtimeConfig"] = rawJSON(`{"ips": ["10.244.0.7/24"]}`)
	n.nad("net", allCapabilities)
	p := n.pod(`[{"name": "net", "interface": "x0", "mac": "02:00:00:00:00:07", "cni-args": {"a": 1}}]`)
	p.args += ";EXTRA=1"
	p.add().ok()
	p.check().ok()
	n.one("rec-cluster", "CHECK")
	for _, checked := range n.calls("CHECK") { // whether all are called is another row
		plugin := checked.Type
		added := n.one(plugin, "ADD")
		for _, name := range []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"} {
			t.want(name+" of "+plugin, checked.Env[name], text(added.Env[name]))
		}
		for _, key := range []string{"runtimeConfig", "args"} {
			t.want(key+" of "+plugin, checked.conf()[key], text(added.conf()[key]))
		}
	}
}

// tap makes an interface in the node that nothing is connected to.
func tap(n *node) string {
	name := nettest.Name("t")
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: nettest.Name("u")}
	veth.Name = name
	n.must(n.ns.Handle().LinkAdd(veth))
	return name
}

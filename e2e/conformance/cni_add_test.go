//go:build conformance

package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/internal/nettest"
)

// Rows of section 2 of the CNI specification: ADD and DEL.

// mainBridge is a default network with addresses.
const mainBridge = `{"cniVersion": "1.1.0", "name": "cluster", "type": "bridge", "bridge": "br1", "isGateway": true,
	"ipam": {"type": "host-local", "dataDir": "$DIR", "subnet": "10.244.0.0/24"}}`

// bridged is a node whose default network is made by a bridge.
func bridged(t *T) *node {
	n := t.Node()
	n.main(mainBridge)
	return n
}

var _ = row("B35", func(t *T) {
	p := bridged(t).container()
	p.add().ok()
	t.want("links of the pod", p.ns.Links(t), `["eth0"]`)
	t.want("addresses", p.addresses(p.ns, "eth0"), `["10.244.0.2/24"]`)
})

// chained is a node whose meta-plugin comes after another plugin, and the pod that this one has made eth0 for.
func chained(t *T, networks string) *pod {
	n := t.Node()
	n.nad("net", hostLocalBridge)
	p := n.pod(networks)
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "peer0"}
	veth.Name = "eth0"
	n.must(p.ns.Handle().LinkAdd(veth))
	n.keys["prevResult"] = rawJSON(`{"cniVersion": "1.1.0", "interfaces": [{"name": "host0"}, {"name": "eth0", "sandbox": "` + p.ns.Path() + `"}],
		"ips": [{"address": "10.50.0.7/24", "gateway": "10.50.0.1", "interface": 1}], "routes": [{"dst": "0.0.0.0/0", "gw": "10.50.0.1"}],
		"dns": {"nameservers": ["10.50.0.53"]}}`)
	if t.suite.impl.own {
		n.keys["delegates"] = nil // the network is there
	}
	return p
}

var _ = row("B36", func(t *T) {
	p := chained(t, "net")
	before := p.ns.Link(t, "eth0").Attrs().Index
	if o := p.add(); o.exit != 0 && !t.suite.impl.own {
		t.NotApplicable("it makes the interfaces, which is the clause before, and adjusts none")
	} else {
		o.ok()
	}
	if after := p.ns.Link(t, "eth0").Attrs().Index; after != before {
		t.Errorf("eth0 was made again: index %d, was %d", after, before)
	}
	t.want("addresses of the network that is added", p.addresses(p.ns, "net1"), `["10.1.1.2/24"]`)
})

var _ = row("B38", keepsPrevResult)
var _ = row("B143", keepsPrevResult)

// keepsPrevResult: what the plugins before have made is in the result.
func keepsPrevResult(t *T) {
	r := chained(t, "net").add().result()
	if len(r.Interfaces) < 2 || r.Interfaces[0].Name != "host0" || r.Interfaces[1].Name != "eth0" {
		t.Errorf("interfaces of prevResult are not in the result: %s", text(r))
	}
	if len(r.IPs) < 1 || r.IPs[0].Address.String() != "10.50.0.7/24" || r.IPs[0].Interface == nil || *r.IPs[0].Interface != 1 {
		t.Errorf("addresses of prevResult are not in the result: %s", text(r))
	}
	if len(r.Interfaces) < 3 || len(r.IPs) < 2 {
		t.Errorf("the network that was added is not in the result: %s", text(r))
	}
}

var _ = row("B144", func(t *T) {
	p := chained(t, "")
	r := p.add().raw()
	t.want("interfaces", at(r, "interfaces", 1, "name"), `"eth0"`)
	t.want("addresses", at(r, "ips"), `[{"address":"10.50.0.7/24","gateway":"10.50.0.1","interface":1}]`)
	t.want("routes", at(r, "routes", 0, "dst"), `"0.0.0.0/0"`)
	t.want("name servers", at(r, "dns", "nameservers"), `["10.50.0.53"]`)
})

var _ = row("B37", func(t *T) {
	n := bridged(t)
	alone := n.container().add() // before the node has an API server
	n.nad("net", hostLocalBridge)
	for _, o := range []*outcome{alone, n.pod("net").add()} {
		if count := o.ok().documents(); count != 1 {
			t.Errorf("standard output is not one document: %s", o.stdout)
		}
		if len(o.result().Interfaces) == 0 {
			t.Errorf("a result without interfaces: %s", o.stdout)
		}
	}
})

var _ = row("B39", func(t *T) {
	n := bridged(t)
	n.nad("net", hostLocalBridge)
	n.works()
	for _, name := range []string{"eth0", "uplink0"} {
		p := n.pod("net@uplink0")
		there := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "peer0"}
		there.Name = name
		n.must(p.ns.Handle().LinkAdd(there))
		index := p.ns.Link(t, name).Attrs().Index
		p.add().failed()
		if link, err := p.ns.Handle().LinkByName(name); err != nil || link.Attrs().Index != index {
			t.Errorf("the interface %s that was there: %v", name, err)
		}
		t.want("reservations", n.reservations(), "null")
	}
})

var _ = row("B40", func(t *T) {
	n := bridged(t)
	p := n.container()
	first := p.add().ok()
	t.want("links of the pod", p.ns.Links(t), `["eth0"]`)
	if second := p.add(); second.exit != 0 {
		second.failed()
	} else {
		t.want("address of the second ADD", at(second.raw(), "ips", 0, "address"), text(at(first.raw(), "ips", 0, "address")))
	}
	if held := n.reservations(); len(held) > 1 {
		t.Errorf("a second ADD has reserved more: %q", held)
	}
	p.del().ok()
	t.want("reservations", n.reservations(), "null")
})

var _ = row("B41", func(t *T) {
	p := bridged(t).container()
	p.exec(t.suite.impl.entry, with(p.env("ADD"), "CNI_ARGS", "-"), p.entry()).ok()
	t.want("links of the pod", p.ns.Links(t), `["eth0"]`)
})

var _ = row("B42", func(t *T) {
	n := bridged(t)
	p := n.container()
	p.add().ok()
	if len(n.links("veth")) != 1 {
		t.Fatalf("pairs of the node after ADD: %q", n.links("veth"))
	}
	p.del().ok()
	t.want("links of the pod", p.ns.Links(t), "[]")
	t.want("pairs of the node", n.links("veth"), "null")
})

var _ = row("B43", func(t *T) {
	n := t.Node()
	n.main(strings.Replace(mainBridge, `"isGateway": true`, `"isGateway": true, "ipMasq": true`, 1))
	p := n.container()
	p.add().ok()
	if rules := n.ruleset(); !strings.Contains(rules, "10.244.0.2") {
		t.Fatalf("no rule masquerades the pod: %s", rules)
	}
	p.del().ok()
	if rules := n.ruleset(); strings.Contains(rules, "10.244.0.2") {
		t.Errorf("rules after DEL: %s", rules)
	}
	t.want("reservations", n.reservations(), "null")
})

var _ = row("B44", func(t *T) {
	n := t.Node()
	n.nad("net", list(`{"type": "rec-a"}`, `{"type": "rec-b"}`))
	n.script("rec-b", `{"ADD": {"result": `+full+`}}`)
	p := n.pod("net")
	p.add().ok()
	p.del().ok()
	for _, plugin := range []string{"rec-a", "rec-b"} {
		t.want("address in prevResult at DEL of "+plugin, at(n.one(plugin, "DEL").conf(), "prevResult", "ips", 0, "address"), `"10.1.1.9/24"`)
	}
})

var _ = row("B45", func(t *T) {
	n := bridged(t)
	p := n.container()
	p.add().ok()
	n.must(os.RemoveAll(filepath.Join(n.dir, "state")))
	p.del().ok()
	if t.suite.impl.plugins {
		p := n.container()
		p.plugin("bridge", "ADD", mainBridge).ok()
		p.plugin("bridge", "DEL", mainBridge).ok() // no prevResult
		t.want("links of the pod", p.ns.Links(t), "[]")
	}
})

var _ = row("B46", func(t *T) {
	n := bridged(t)
	n.nad("net", hostLocalBridge)
	netns := ""
	for _, c := range []struct {
		missing string
		lose    func(p *pod)
		kept    bool // something may be left: nothing says what there was
	}{
		{"the variable CNI_NETNS", func(*pod) { netns = "-" }, false},
		{"the namespace", func(p *pod) { p.ns.Remove(t) }, false},
		{"the interfaces", func(p *pod) {
			for _, name := range p.ns.Links(t) {
				n.must(p.ns.Handle().LinkDel(p.ns.Link(t, name)))
			}
		}, false},
		{"the pod", func(p *pod) { p.delete() }, false},
		{"the network in the API server", func(*pod) { n.deleteNAD("net") }, false},
		{"the API server", func(*pod) { n.cut() }, false},
	} {
		p := n.pod("net")
		p.add().ok()
		netns = p.ns.Path()
		c.lose(p)
		if o := p.exec(t.suite.impl.entry, with(p.env("DEL"), "CNI_NETNS", netns), p.entry()); o.exit != 0 {
			t.Errorf("DEL without %s: %s", c.missing, o.said())
		}
		if held := n.reservations(); len(held) > 0 {
			t.Errorf("DEL without %s leaves %q", c.missing, held)
		}
		if c.missing == "the network in the API server" {
			n.nad("net", hostLocalBridge)
		}
	}
	// And without all of it, and without what the implementation keeps.
	n = bridged(t)
	p := n.container()
	p.add().ok()
	p.ns.Remove(t)
	n.must(os.RemoveAll(filepath.Join(n.dir, "state")))
	p.del().ok()
})

const hostLocal = `{"cniVersion": "1.1.0", "name": "net", "type": "host-local", "ipam": {"type": "host-local", "dataDir": "$DIR", "subnet": "10.1.1.0/24"}}`

var _ = row("B47", func(t *T) {
	t.Plugin()
	n := t.Node()
	p := n.container()
	p.plugin("host-local", "ADD", hostLocal).ok()
	t.want("reservations", n.reservations(), `["10.1.1.2"]`)
	p.ns.Remove(t)
	p.plugin("host-local", "DEL", hostLocal).ok()
	t.want("reservations", n.reservations(), "null")
})

var _ = row("B48", func(t *T) {
	t.Plugin()
	n := t.Node()
	nic := nettest.Parent(t, n.ns)
	nic.LAN.Address(t, nic.Port, "192.0.2.1/24")
	server := start(n, nic.LAN, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface="+nic.Port, "--bind-interfaces",
		"--dhcp-range=192.0.2.10,192.0.2.99,1h", "--dhcp-leasefile="+filepath.Join(n.dir, "leases"), "--pid-file=", "--user=root", "--no-ping")
	socket := filepath.Join(n.dir, "d.sock")
	keeper := start(n, n.ns, filepath.Join(t.suite.bin, "braidd"), "dhcp", "--socket", socket)
	for range 100 {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	config := fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "net", "type": "macvlan", "master": %q, "ipam": {"type": "dhcp", "daemonSocketPath": %q}}`, nic.Name, socket)
	p := n.container()
	p.plugin("macvlan", "ADD", config).ok()
	if a := n.addresses(p.ns, "eth0"); len(a) != 1 || !strings.HasPrefix(a[0], "192.0.2.") {
		t.Fatalf("addresses: %q", a)
	}
	stop(server)
	stop(keeper)
	p.plugin("macvlan", "DEL", config).ok()
	t.want("links of the pod", p.ns.Links(t), "[]")
})

// start starts a program that runs until it is stopped or the row ends.
func start(n *node, in *nettest.NS, program string, args ...string) *exec.Cmd {
	n.Helper()
	cmd := exec.Command(program, args...)
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	var err error
	in.Do(n, func() { err = cmd.Start() })
	n.must(err)
	n.Cleanup(func() {
		stop(cmd)
		if n.T.T.Failed() {
			n.Logf("%s: %s", filepath.Base(program), out)
		}
	})
	return cmd
}

// stop ends a program. Doing it twice is no error.
func stop(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // its status is that of a program that was told to end
	}
}

// ipamBridge is a bridge whose addresses come from a recorder.
const ipamBridge = `{"cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "br0", "isGateway": true, "ipMasq": true, "ipam": {"type": "rec-ipam", "odd": 1}}`

// ipamReplies is what that recorder answers to ADD.
const ipamReplies = `"ADD": {"result": {"cniVersion": "1.1.0", "ips": [{"address": "10.1.1.9/24", "gateway": "10.1.1.1"}]}}`

var _ = row("B49", func(t *T) {
	t.Plugin()
	n := t.Node()
	n.script("rec-ipam", `{`+ipamReplies+`}`)
	p := n.container()
	p.plugin("bridge", "ADD", ipamBridge).ok()
	if !strings.Contains(n.ruleset(), "10.1.1.9") {
		t.Fatal("no rule masquerades the pod")
	}
	p.exec(filepath.Join(n.bin, "bridge"), with(p.env("DEL"), "CNI_NETNS", "-"), []byte(ipamBridge)).ok()
	n.one("rec-ipam", "DEL")
	if strings.Contains(n.ruleset(), "10.1.1.9") {
		t.Error("rules after DEL")
	}
})

var _ = row("B50", manyDels)
var _ = row("B51", manyDels)

// manyDels: DEL as often as the runtime likes, also of what was never added.
func manyDels(t *T) {
	n := bridged(t)
	p := n.container()
	p.del().ok()
	p.add().ok()
	for range 3 {
		p.del().ok()
		t.want("links of the pod", p.ns.Links(t), "[]")
	}
	t.want("reservations", n.reservations(), "null")
}

var _ = row("B52", func(t *T) {
	n := bridged(t)
	for _, absent := range []string{"CNI_NETNS", "CNI_ARGS", "CNI_PATH"} {
		p := n.container()
		p.add().ok()
		if o := p.exec(t.suite.impl.entry, with(p.env("DEL"), absent, "-"), p.entry()); o.exit != 0 {
			t.Errorf("DEL without %s: %s", absent, o.said())
		}
		t.want("reservations after DEL without "+absent, n.reservations(), "null")
	}
})

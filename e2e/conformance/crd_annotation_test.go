//go:build conformance

package conformance

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/internal/nettest"
)

// Rows of section 4: the Network Attachment Selection Annotation.

var _ = row("A16", func(t *T) {
	n := t.Node()
	n.nad("main", rec("rec-a"))
	n.keys["clusterNetwork"], n.keys["multusNamespace"] = "main", n.namespace
	n.pod("main").add().ok()
	n.wantTrace("ADD rec-a eth0, ADD rec-a net1")
})

var _ = row("A17", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a"))
	for _, key := range []string{"k8s.v1.cni.cncf.io/network", "k8s.cni.cncf.io/networks", "networks", "k8s.v1.cni.cncf.io/Networks"} {
		n.podIn(n.namespace, dict{key: "net"}).add().ok()
	}
	n.podIn(n.namespace, dict{"k8s.v1.cni.cncf.io/networks": ""}).add().ok()
	if called := n.calls("rec-a"); len(called) > 0 {
		t.Errorf("networks attached for other annotations: %s", trace(called))
	}
	n.podIn(n.namespace, dict{"k8s.v1.cni.cncf.io/networks": "net"}).add().ok()
	n.one("rec-a", "ADD")
})

var _ = row("A18", func(t *T) {
	n := t.Node()
	for _, name := range []string{"net", "null", "5", "true"} {
		n.nad(name, rec("rec-a"))
	}
	n.works()
	for _, value := range []string{`{"name": "net"}`, `"net"`, `["net"]`, `[{"name": "net"}`, `[{"name": "net"}] x`} {
		if o := n.pod(value).add(); o.exit == 0 && len(n.calls("rec-a")) > 0 {
			t.Errorf("accepted: %s", value)
		}
		n.forget()
	}
})

var _ = row("A19", func(t *T) {
	n := t.Node()
	n.nad("net-a", rec("rec-a"))
	n.nad("net-b", rec("rec-b"))
	commas, json := n.pod("net-a,net-b"), n.pod(`[{"name": "net-a"}, {"name": "net-b"}]`)
	var traces, statuses [2]string
	for i, p := range []*pod{commas, json} {
		n.forget()
		p.add().ok()
		traces[i], statuses[i] = trace(n.calls()), text(p.status())
	}
	if traces[0] != "ADD rec-cluster eth0, ADD rec-a net1, ADD rec-b net2" || traces[0] != traces[1] {
		t.Errorf("calls: %q with commas, %q with JSON", traces[0], traces[1])
	}
	if statuses[0] != statuses[1] {
		t.Errorf("network-status: %s with commas, %s with JSON", statuses[0], statuses[1])
	}
})

var _ = row("A20", func(t *T) {
	n := t.Node()
	other := n.otherNamespace()
	n.nadIn(other, "net-a", dict{"config": rec("rec-b")})
	n.pod("net-a").add().failed()
	n.nad("net-a", rec("rec-a"))
	n.pod("net-a").add().ok()
	n.one("rec-a", "ADD")
	if called := n.calls("rec-b"); len(called) > 0 {
		t.Errorf("the network of the other namespace was attached: %s", trace(called))
	}
})

var _ = row("A21", func(t *T) {
	n := t.Node()
	other := n.otherNamespace()
	n.nadIn(other, "net-c", dict{"config": rec("rec-c")})
	n.pod(other + "/net-c").add().ok()
	n.one("rec-c", "ADD")
	n.pod("a/" + other + "/net-c").add().failed()
})

var _ = row("A22", func(t *T) {
	n := t.Node()
	for _, x := range []string{"a", "b", "c"} {
		n.nad(x, rec("rec-"+x))
	}
	n.pod(" a, b ,c ").add().ok()
	n.wantTrace("ADD rec-cluster eth0, ADD rec-a net1, ADD rec-b net2, ADD rec-c net3")
	for _, odd := range []string{"a,,b", "a,b,", ",a,b"} {
		n.forget()
		if o := n.pod(odd).add(); o.exit != 0 {
			o.failed()
		} else {
			n.wantTrace("ADD rec-cluster eth0, ADD rec-a net1, ADD rec-b net2")
		}
	}
})

var _ = row("A23", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a"))
	n.pod("net@net7, " + n.namespace + "/net@eth0.100").add().ok()
	n.wantTrace("ADD rec-cluster eth0, ADD rec-a net7, ADD rec-a eth0.100")
	for _, bad := range []string{"net@b@c", "net@sixteen-letters-", "net@a b"} {
		n.pod(bad).add().failed()
	}
})

// allCapabilities is a network that can be asked for anything.
var allCapabilities = rec("rec-a", `"capabilities": {"ips": true, "mac": true, "portMappings": true, "bandwidth": true, "infinibandGUID": true, "deviceID": true}`)

var _ = row("A24", func(t *T) {
	n := t.Node()
	n.nad("all", allCapabilities)
	n.nad("other", rec("rec-b"))
	p := n.pod(`[{"name": "other"}, {"name": "all", "namespace": "$NS", "interface": "all0", "ips": ["10.1.1.9/24"], "mac": "02:00:00:00:00:07",
		"infiniband-guid": "02:00:00:00:00:00:00:07", "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "UDP"}],
		"bandwidth": {"ingressRate": 1000000, "ingressBurst": 80000}, "cni-args": {"x": "y"}}]`)
	p.add().ok()
	n.wantTrace("ADD rec-cluster eth0, ADD rec-b net1, ADD rec-a all0")
	c := n.one("rec-a").conf()
	t.want("ips", at(c, "runtimeConfig", "ips"), `["10.1.1.9/24"]`)
	t.want("mac", at(c, "runtimeConfig", "mac"), `"02:00:00:00:00:07"`)
	t.want("infinibandGUID", at(c, "runtimeConfig", "infinibandGUID"), `"02:00:00:00:00:00:00:07"`)
	t.want("hostPort", at(c, "runtimeConfig", "portMappings", 0, "hostPort"), `8080`)
	t.want("ingressRate", at(c, "runtimeConfig", "bandwidth", "ingressRate"), `1000000`)
	t.want("cni-args", at(c, "args", "cni", "x"), `"y"`)
})

var _ = row("A25", func(t *T) {
	n := t.Node()
	n.nad("net", allCapabilities)
	n.pod(`[{"name": "net", "future": {"key": 1}, "example.org/other": true}]`).add().ok()
	if c := n.one("rec-a"); strings.Contains(c.Stdin, "future") {
		t.Errorf("an unknown key was handed on: %s", c.Stdin)
	}
})

var _ = row("A26", func(t *T) {
	n := t.Node()
	n.nad("net", allCapabilities)
	n.pod(`[{"name": "net", "deviceID": "0000:00:1f.0", "interfaceRequest": "dev0"}]`).add().ok()
	c := n.one("rec-a")
	if at(c.conf(), "runtimeConfig", "deviceID") != nil || c.Env["CNI_IFNAME"] == "dev0" {
		t.Differs("deviceID and interfaceRequest have no period, and are honoured: they are in annotations that people have")
	}
})

var _ = row("A27", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a"))
	n.works()
	for _, bad := range []string{`[{}]`, `[{"name": ""}]`, `[null]`, `[{"name": 5}]`, `[{"name": null}]`, `[{"namespace": "$NS"}]`} {
		n.pod(bad).add().failed()
	}
	if called := n.calls("rec-a"); len(called) > 0 {
		t.Errorf("calls: %s", trace(called))
	}
})

var _ = row("A28", func(t *T) {
	n := t.Node()
	other := n.otherNamespace()
	n.nad("net", rec("rec-a"))
	n.nadIn(other, "net", dict{"config": rec("rec-b")})
	n.pod(`[{"name": "net"}, {"name": "net", "namespace": ""}, {"name": "net", "namespace": "` + other + `"}]`).add().ok()
	n.wantTrace("ADD rec-cluster eth0, ADD rec-a net1, ADD rec-a net2, ADD rec-b net3")
})

// staticBridge takes the addresses that it is asked for.
const staticBridge = `{"cniVersion": "1.1.0", "type": "bridge", "bridge": "br0", "capabilities": {"ips": true, "mac": true}, "ipam": {"type": "static"}}`

// hostLocalBridge chooses addresses itself.
const hostLocalBridge = `{"cniVersion": "1.1.0", "type": "bridge", "bridge": "br0", "capabilities": {"ips": true, "mac": true},
	"ipam": {"type": "host-local", "dataDir": "$DIR", "subnet": "10.1.1.0/24"}}`

var _ = row("A29", func(t *T) {
	n := t.Node()
	n.nad("net", staticBridge)
	p := n.pod(`[{"name": "net", "ips": ["10.1.1.9/24", "fd00::9/64"]}]`)
	p.add().ok()
	t.want("addresses in the pod", n.addresses(p.ns, "net1"), `["10.1.1.9/24","fd00::9/64"]`)
	t.want("ips of network-status", p.statusOf(n.namespace + "/net")["ips"], `["10.1.1.9","fd00::9"]`)
})

// What may become of an invalid element of the annotation.
const (
	ignored  = "ignored"  // the pod has its other networks
	refused  = "refused"  // the pod does not come up
	accepted = "accepted" // the network was attached
)

// invalid tries elements that the standard calls invalid: further keys of one that selects a network with all capabilities.
// What becomes of each is handed to judge.
func invalid(t *T, judge func(keys, became string), elements ...string) {
	n := t.Node()
	n.nad("net", allCapabilities)
	n.pod(`[{"name": "net"}]`).add().ok()
	n.one("rec-a", "ADD") // without those keys it works
	for _, keys := range elements {
		n.forget()
		p := n.pod(`[{"name": "net", ` + keys + `}]`)
		switch o := p.add(); {
		case o.exit != 0:
			o.failed()
			p.del()
			if added, deleted := n.calls("rec-a", "ADD"), n.calls("rec-a", "DEL"); len(added) > len(deleted) {
				t.Errorf("%s: the ADD failed, and the network stays: %s", keys, trace(n.calls()))
			}
			judge(keys, refused)
		case len(n.calls("rec-a")) == 0:
			judge(keys, ignored)
		default:
			judge(keys, accepted)
		}
	}
}

// never: an invalid element is not taken for a valid one.
func never(elements ...string) func(*T) {
	return func(t *T) {
		invalid(t, func(keys, became string) {
			if became == accepted {
				t.Errorf("accepted: %s", keys)
			}
		}, elements...)
	}
}

const failsClosed = "the ADD fails: a pod that starts without networks that it asks for is the worse surprise"

// ignores: "If the value is invalid, the Network Attachment Selection Annotation shall be invalid and ignored".
func ignores(elements ...string) func(*T) {
	return func(t *T) {
		invalid(t, func(keys, became string) {
			switch became {
			case accepted:
				t.Errorf("accepted: %s", keys)
			case refused:
				t.Differs(failsClosed)
			}
		}, elements...)
	}
}

var (
	_ = row("A30", never(`"ips": []`, `"ips": ["x"]`, `"ips": ["10.0.0.1/33"]`, `"ips": ["10.0.0.1/24/2"]`, `"ips": "10.0.0.1"`, `"ips": [""]`))
	_ = row("A31", ignores(`"ips": ["x"]`, `"ips": ["10.0.0.1/33"]`))
	_ = row("A38", never(`"mac": "02:00:00:00:00:00:00:07"`, `"mac": "00:00:00:00:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01"`, `"mac": "x"`, `"mac": 5`))
	_ = row("A39", ignores(`"mac": "02:00:00:00:00"`, `"mac": "x"`))
	_ = row("A44", never(`"interface": "sixteen-letters-"`, `"interface": "a/b"`, `"interface": "a b"`, `"interface": "a:b"`, `"interface": "."`, `"interface": ".."`))
	_ = row("A45", ignores(`"interface": "sixteen-letters-"`, `"interface": "a/b"`))
	_ = row("A52", ignores(`"portMappings": [{"hostPort": 0, "containerPort": 80}]`))
	_ = row("A53", never(`"portMappings": []`, `"portMappings": [{}]`, `"portMappings": [null]`, `"portMappings": {}`, `"portMappings": [{"hostPort": 80}]`))
	_ = row("A54", never(ports(`"hostPort": %s, "containerPort": 80`)...))
	_ = row("A55", never(ports(`"hostPort": 80, "containerPort": %s`)...))
	_ = row("A56", never(`"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]`, `"portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "x"}]`))
	_ = row("A63", ignores(`"bandwidth": {}`, `"bandwidth": {"ingressRate": 0}`))
	_ = row("A65", never(`"bandwidth": {}`, `"bandwidth": []`))
	_ = row("A66", never(`"bandwidth": {"ingressRate": 0}`, `"bandwidth": {"ingressRate": -1}`, `"bandwidth": {"egressRate": 0}`,
		`"bandwidth": {"ingressRate": 8, "ingressBurst": 0}`, `"bandwidth": {"egressRate": 8, "egressBurst": 0}`))
	_ = row("A67", never(`"bandwidth": {"ingressBurst": 8}`, `"bandwidth": {"egressRate": 8, "ingressBurst": 8}`))
	_ = row("A68", never(`"bandwidth": {"egressBurst": 8}`, `"bandwidth": {"ingressRate": 8, "egressBurst": 8}`))
	_ = row("A80", never(`"infiniband-guid": "02:00:00:00:00:07"`, `"infiniband-guid": "00:00:00:00:fe:80:00:00:00:00:00:00:02:00:5e:10:00:00:00:01"`, `"infiniband-guid": "x"`))
	_ = row("A81", ignores(`"infiniband-guid": "02:00:00:00:00:07"`))
	_ = row("A87", never(`"ips": ["10.1.1.9/24"], "ipam-claim-reference": "claim"`))
)

// ports has a portMappings key for each value that is no port.
func ports(format string) (elements []string) {
	for _, value := range []string{"0", "-1", "65536", `"80"`, "null"} {
		elements = append(elements, `"portMappings": [{`+fmt.Sprintf(format, value)+`}]`)
	}
	return elements
}

var _ = row("A32", func(t *T) { prefix(t, "10.1.1.9", "10.1.1.9/24") })
var _ = row("A33", func(t *T) { prefix(t, "10.1.1.9/16", "10.1.1.9/16", "10.1.1.9/24") })

// prefix asks host-local for an address with or without a prefix length: the pod gets one of the addresses, or none.
func prefix(t *T, ask string, allowed ...string) {
	t.Plugin()
	n := t.Node()
	n.nad("net", hostLocalBridge)
	p := n.pod(`[{"name": "net", "ips": ["` + ask + `"]}]`)
	o := p.add()
	if o.exit != 0 {
		o.failed()
		t.want("reservations", n.reservations(), "null")
		return
	}
	if got := n.addresses(p.ns, "net1"); len(got) != 1 || !slices.Contains(allowed, got[0]) {
		t.Errorf("asked for %s: %q", ask, got)
	}
}

// capabilities are keys of the annotation that ask for something, and three rows about each: it is put into
// runtimeConfig; it needs a plugin with the capability; without one the attachment fails.
var capabilities = []struct{ key, value, capability, want, passed, verified, fails string }{
	{"ips", `["10.1.1.9/24"]`, "ips", `["10.1.1.9/24"]`, "A34", "A35", "A36"},
	{"mac", `"02:00:00:00:00:07"`, "mac", `"02:00:00:00:00:07"`, "A40", "A41", "A42"},
	{"portMappings", `[{"hostPort": 8080, "containerPort": 80, "protocol": "UDP"}]`, "portMappings", "", "A59", "A60", "A61"},
	{"bandwidth", `{"ingressRate": 1000000, "ingressBurst": 80000, "egressRate": 1000000, "egressBurst": 80000}`, "bandwidth",
		`{"egressBurst":80000,"egressRate":1000000,"ingressBurst":80000,"ingressRate":1000000}`, "A70", "A72", "A73"},
	{"infiniband-guid", `"02:00:00:00:00:00:00:07"`, "infinibandGUID", `"02:00:00:00:00:00:00:07"`, "A82", "A83", "A84"},
}

func init() {
	for _, c := range capabilities {
		able := fmt.Sprintf(`"capabilities": {%q: true}`, c.capability)
		row(c.passed, func(t *T) {
			n := t.Node()
			n.nad("net", list(`{"type": "rec-a"}`, `{"type": "rec-b", `+able+`}`))
			n.pod(`[{"name": "net", "` + c.key + `": ` + c.value + `}]`).add().ok()
			if got := at(n.one("rec-a").conf(), "runtimeConfig"); got != nil {
				t.Errorf("a plugin without the capability gets %s", text(got))
			}
			got := at(n.one("rec-b").conf(), "runtimeConfig", c.capability)
			if c.want != "" {
				t.want("runtimeConfig", got, c.want)
				return
			}
			t.want("hostPort", at(got, 0, "hostPort"), "8080")
			t.want("containerPort", at(got, 0, "containerPort"), "80")
			if protocol, _ := at(got, 0, "protocol").(string); !strings.EqualFold(protocol, "udp") {
				t.Errorf("protocol: %q, want udp", protocol)
			}
		})
		ask := func(t *T, config string) {
			n := t.Node()
			n.nad("net", config)
			n.pod("net").add().ok()
			n.one("rec-a", "ADD") // it works as long as nothing is asked
			n.forget()
			p := n.pod(`[{"name": "net", "` + c.key + `": ` + c.value + `}]`)
			p.add().failed()
			if added := n.calls("rec-a", "ADD"); len(added) > 0 {
				t.Errorf("no plugin has the capability %s, and yet: %s", c.capability, trace(added))
			}
		}
		row(c.verified, func(t *T) { ask(t, rec("rec-a", `"capabilities": {"aliases": true}`)) })
		row(c.fails, func(t *T) {
			ask(t, rec("rec-a"))
			ask(t, list(fmt.Sprintf(`{"type": "rec-a", "capabilities": {%q: false}}`, c.capability)))
		})
	}
}

var _ = row("A37", func(t *T) {
	n := t.Node()
	n.nad("net", hostLocalBridge)
	p := n.pod(`[{"name": "net", "mac": "02:00:00:00:00:07"}]`)
	p.add().ok()
	t.want("address of the interface", p.ns.Link(t, "net1").Attrs().HardwareAddr.String(), `"02:00:00:00:00:07"`)
	t.want("mac of network-status", p.statusOf(n.namespace + "/net")["mac"], `"02:00:00:00:00:07"`)
})

var _ = row("A43", func(t *T) {
	n := t.Node()
	n.nad("net", hostLocalBridge)
	p := n.pod(`[{"name": "net", "interface": "uplink0"}]`)
	p.add().ok()
	t.want("links of the pod", p.ns.Links(t), `["uplink0"]`)
	t.want("interface of network-status", p.statusOf(n.namespace + "/net")["interface"], `"uplink0"`)
})

var _ = row("A46", func(t *T) {
	n := t.Node()
	n.keys["delegates"] = []any{rawJSON(`{"cniVersion": "1.1.0", "name": "cluster", "type": "bridge", "bridge": "br1"}`)}
	n.nad("net", hostLocalBridge)
	n.works()
	for _, networks := range []string{`[{"name": "net", "interface": "dup0"}, {"name": "net", "interface": "dup0"}]`, `[{"name": "net", "interface": "eth0"}]`} {
		p := n.pod(networks)
		p.add().failed()
		t.want("reservations after "+networks, n.reservations(), "null")
		t.want("links of the pod after "+networks, p.ns.Links(t), "[]")
	}
})

var _ = row("A47", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a"))
	p := n.pod(`[{"name": "net", "interface": "uplink0"}]`)
	p.add().ok()
	p.check().ok()
	p.del().ok()
	for _, command := range []string{"ADD", "DEL"} {
		t.want("CNI_IFNAME at "+command, n.one("rec-a", command).Env["CNI_IFNAME"], `"uplink0"`)
	}
})

var _ = row("A48", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a"))
	n.pod(`[{"name": "net", "cni-args": {"a": 1}}]`).add().ok()
	t.want("args.cni.a", at(n.one("rec-a").conf(), "args", "cni", "a"), "1")
	n.forget()
	for _, bad := range []string{`"x"`, `["x"]`, `5`} {
		n.pod(`[{"name": "net", "cni-args": ` + bad + `}]`).add().failed()
	}
})

var _ = row("A49", func(t *T) {
	n := t.Node()
	n.nad("net", list(`{"type": "rec-a"}`, `{"type": "rec-b"}`))
	n.pod(`[{"name": "net", "cni-args": {"a": {"b": [1]}}}]`).add().ok()
	for _, plugin := range []string{"rec-a", "rec-b"} {
		t.want("args.cni of "+plugin, at(n.one(plugin).conf(), "args", "cni"), `{"a":{"b":[1]}}`)
	}
})

var _ = row("A50", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a", `"args": {"cni": {"a": 1, "b": 2}, "other": 4}`))
	n.pod(`[{"name": "net", "cni-args": {"b": 3}}]`).add().ok()
	t.want("args", at(n.one("rec-a").conf(), "args"), `{"cni":{"a":1,"b":3},"other":4}`)
	for i, bad := range []string{`"x"`, `{"cni": []}`, `{"cni": null}`} {
		name := fmt.Sprint("bad", i)
		n.nad(name, rec("rec-b", `"args": `+bad))
		if o := n.pod(`[{"name": "` + name + `", "cni-args": {"b": 3}}]`).add(); o.exit != 0 {
			o.failed()
		}
	}
})

var _ = row("A57", func(t *T) {
	n := t.Node()
	n.nad("net", allCapabilities)
	n.pod(`[{"name": "net", "portMappings": [{"hostPort": 8080, "containerPort": 80}]}]`).add().ok()
	protocol, _ := at(n.one("rec-a").conf(), "runtimeConfig", "portMappings", 0, "protocol").(string)
	if !strings.EqualFold(protocol, "tcp") {
		t.Errorf("the plugin sees protocol %q, want tcp", protocol)
	}
})

var _ = row("A51", func(t *T) {
	n := t.Node()
	n.nad("net", `{"cniVersion": "1.0.0", "plugins": [
		{"type": "bridge", "bridge": "br0", "isDefaultGateway": true, "ipam": {"type": "host-local", "dataDir": "$DIR", "subnet": "10.1.1.0/24"}},
		{"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}]}`)
	nic := nettest.Parent(t, n.ns)
	n.ns.Address(t, nic.Name, "192.0.2.1/24")
	nic.LAN.Address(t, nic.Port, "192.0.2.2/24")
	p := n.pod(`[{"name": "net", "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "TCP"}]}]`)
	p.add().ok()
	var l net.Listener
	p.ns.Do(t, func() {
		var err error
		l, err = net.Listen("tcp", ":80")
		n.must(err)
	})
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "pod")
			c.Close()
		}
	}()
	var c net.Conn
	var err error
	nic.LAN.Do(t, func() { c, err = net.DialTimeout("tcp", "192.0.2.1:8080", 5*time.Second) })
	if err != nil {
		t.Fatalf("the node's port 8080: %v", err)
	}
	defer c.Close()
	if answer, err := io.ReadAll(c); err != nil || string(answer) != "pod" {
		t.Errorf("the node's port 8080 answers %q, %v", answer, err)
	}
})

// unsupported: a network that cannot do what is asked of it fails.
func unsupported(keys string) func(*T) {
	return func(t *T) {
		n := t.Node()
		n.nad("net", hostLocalBridge)
		n.pod("net").add().ok() // without those keys it works
		p := n.pod(`[{"name": "net", ` + keys + `}]`)
		p.add().failed()
		t.want("links of the pod", p.ns.Links(t), "[]")
	}
}

var _ = row("A58", unsupported(`"portMappings": [{"hostPort": 8080, "containerPort": 80}]`))
var _ = row("A69", unsupported(`"bandwidth": {"ingressRate": 1000000, "ingressBurst": 80000}`))

var _ = row("A62", func(t *T) {
	n := t.Node()
	n.nad("net", shapedBridge)
	n.pod(`[{"name": "net", "bandwidth": {"ingressRate": 8000000, "ingressBurst": 800000}}]`).add().ok()
	if rates := n.rates(); !slices.Equal(rates, []uint64{1000000}) { // bytes
		t.Errorf("rates of the node's links: %v bytes per second, want 1000000", rates)
	}
})

const shapedBridge = `{"cniVersion": "1.0.0", "plugins": [
	{"type": "bridge", "bridge": "br0", "ipam": {"type": "host-local", "dataDir": "$DIR", "subnet": "10.1.1.0/24"}},
	{"type": "bandwidth", "capabilities": {"bandwidth": true}}]}`

// rates returns the rates of the token bucket filters in the node, in bytes per second.
func (n *node) rates() (rates []uint64) {
	n.Helper()
	links, err := n.ns.Handle().LinkList()
	n.must(err)
	for _, l := range links {
		qdiscs, err := n.ns.Handle().QdiscList(l)
		n.must(err)
		for _, q := range qdiscs {
			if tbf, ok := q.(*netlink.Tbf); ok {
				rates = append(rates, tbf.Rate)
			}
		}
	}
	return rates
}

var _ = row("A71", func(t *T) {
	n := t.Node()
	n.nad("net", allCapabilities)
	n.pod(`[{"name": "net", "bandwidth": {"ingressRate": 8000000}}]`).add().ok()
	burst, _ := at(n.one("rec-a").conf(), "runtimeConfig", "bandwidth", "ingressBurst").(float64)
	if burst == 0 {
		t.NotApplicable("a permission that it does not use: no burst is chosen")
	}
	if burst < 8*1500 {
		t.Errorf("the plugin gets ingressBurst %v bits, which no packet fits in", burst)
	}
})

func init() {
	notApplicable("it leaves the mechanism open", "A64")
	notApplicable("it is about plugins that keep IPAMClaims", "A85")
}

// gateways is a network with a gateway of each family.
const gateways = `{"cniVersion": "1.1.0", "type": "bridge", "bridge": "%s", "isGateway": true, "ipam": {"type": "host-local", "dataDir": "$DIR",
	"ranges": [[{"subnet": "10.%d.0.0/24"}], [{"subnet": "fd00:%d::/64"}]] %s}}`

// routed is a node whose default network has default routes of both families, and three networks with gateways: gw and gw2
// without default routes, own with one of each.
func routed(t *T) *node {
	n := t.Node()
	n.keys["delegates"] = []any{rawJSON(`{"cniVersion": "1.1.0", "name": "cluster", "type": "bridge", "bridge": "br1", "isDefaultGateway": true,
		"ipam": {"type": "host-local", "dataDir": "$DIR", "ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:244::/64"}]]}}`)}
	n.nad("gw", fmt.Sprintf(gateways, "br2", 20, 20, ""))
	n.nad("gw2", fmt.Sprintf(gateways, "br3", 30, 30, ""))
	n.nad("own", fmt.Sprintf(gateways, "br4", 40, 40, `, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]`))
	return n
}

// twice: the key is in two elements.
var twice = []string{
	`[{"name": "gw", "default-route": ["10.20.0.1"]}, {"name": "gw2", "default-route": ["10.30.0.1"]}]`,
	`[{"name": "gw", "default-route": ["10.20.0.1"]}, {"name": "gw2", "default-route": ["fd00:30::1"]}]`,
	`[{"name": "gw", "default-route": []}, {"name": "gw2", "default-route": []}]`,
}

var _ = row("A74", func(t *T) {
	n := routed(t)
	n.pod(`[{"name": "gw", "default-route": ["10.20.0.1"]}, {"name": "gw2"}]`).add().ok()
	for _, networks := range twice {
		if p := n.pod(networks); p.add().exit == 0 && len(p.ns.Links(t)) > 1 {
			t.Errorf("accepted: %s", networks)
		}
	}
})

var _ = row("A77", func(t *T) {
	n := routed(t)
	n.pod(`[{"name": "gw", "default-route": ["10.20.0.1"]}, {"name": "gw2"}]`).add().ok()
	for _, networks := range twice {
		p := n.pod(networks)
		if o := p.add(); o.exit != 0 {
			o.failed()
			t.Differs(failsClosed)
		} else if len(p.ns.Links(t)) > 1 {
			t.Errorf("accepted: %s", networks)
		}
	}
})

var _ = row("A75", func(t *T) {
	n := routed(t)
	p := n.pod(`[{"name": "own", "default-route": []}]`)
	p.add().ok()
	t.want("default routes", p.defaultRoutes(netlink.FAMILY_V4), `["via 10.40.0.1 dev net1"]`)
})

var _ = row("A76", func(t *T) {
	n := routed(t)
	p := n.pod(`[{"name": "gw", "default-route": ["10.20.0.1", "fd00:20::1"]}]`)
	p.add().ok()
	t.want("default routes", p.defaultRoutes(netlink.FAMILY_V4), `["via 10.20.0.1 dev net1"]`)
	t.want("default routes", p.defaultRoutes(netlink.FAMILY_V6), `["via fd00:20::1 dev net1"]`)
})

var _ = row("A78", func(t *T) {
	n := routed(t)
	p := n.pod(`[{"name": "gw", "default-route": ["10.20.0.1"]}]`)
	p.add().ok()
	t.want("default routes of the other family", p.defaultRoutes(netlink.FAMILY_V6), `["via fd00:244::1 dev eth0"]`)
})

var _ = row("A79", func(t *T) {
	n := routed(t)
	p := n.pod(`[{"name": "gw", "default-route": ["10.20.0.1", "10.20.0.254"]}]`)
	if o := p.add(); o.exit != 0 {
		o.failed()
		t.NotApplicable("a permission that it does not use: two gateways of one family are refused")
	}
	t.want("default routes", p.defaultRoutes(netlink.FAMILY_V4), `["via 10.20.0.1 dev net1","via 10.20.0.254 dev net1"]`)
})

var _ = row("A86", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a"))
	n.pod(`[{"name": "net", "ipam-claim-reference": "claim"}]`).add().ok()
	n.one("rec-a", "ADD")
})

var _ = row("A88", func(t *T) {
	n := t.Node()
	n.nad("net-a", rec("rec-a"))
	n.pod("net-a,net-a").add().ok()
	n.wantTrace("ADD rec-a net1, ADD rec-a net2", "rec-a")
})

var _ = row("A89", func(t *T) {
	n := t.Node()
	n.nad("net-a", rec("rec-a"))
	p := n.pod("net-a,net-a")
	p.add().ok()
	var entries []string
	for _, s := range p.status() {
		entries = append(entries, fmt.Sprint(s["name"], " ", s["interface"]))
	}
	t.want("entries", entries[max(0, len(entries)-2):], fmt.Sprintf(`["%s/net-a net1","%[1]s/net-a net2"]`, n.namespace))
})

var _ = row("A90", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a", `"mark": 1`))
	n.nad("new", rec("rec-b"))
	p := n.pod(`[{"name": "net", "interface": "uplink0"}]`)
	p.add().ok()
	n.deleteNAD("net")
	n.nad("net", rec("rec-b", `"name": "other"`))
	p.annotate("new")
	p.del().ok()
	added, deleted := n.one("rec-a", "ADD"), n.one("rec-a", "DEL")
	for _, name := range []string{"CNI_CONTAINERID", "CNI_IFNAME"} {
		t.want(name, deleted.Env[name], fmt.Sprintf("%q", added.Env[name]))
	}
	t.want("network name", deleted.conf()["name"], text(added.conf()["name"]))
	t.want("the network of ADD", deleted.conf()["mark"], "1")
	if called := n.calls("rec-b"); len(called) > 0 {
		t.Errorf("networks that were never attached: %s", trace(called))
	}
})

var _ = row("A91", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a"))
	p := n.pod("net")
	p.add().ok()
	p.del().ok()
	for _, c := range n.calls() {
		t.want("CNI_CONTAINERID of "+c.Command+" "+c.Type, c.Env["CNI_CONTAINERID"], fmt.Sprintf("%q", p.id))
	}
	if len(n.calls()) != 4 {
		t.Errorf("calls: %s", trace(n.calls()))
	}
})

var _ = row("A92", func(t *T) {
	n := t.Node()
	n.nad("object", rec("rec-a", `"name": "network"`))
	p := n.pod("object")
	p.add().ok()
	p.del().ok()
	for _, command := range []string{"ADD", "DEL"} {
		t.want("name at "+command, n.one("rec-a", command).conf()["name"], `"network"`)
	}
})

var _ = row("A93", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a"))
	n.pod(`[{"name": "net", "interface": "net2"}, {"name": "net"}]`).add().ok()
	var names []string
	for _, c := range n.calls("rec-a", "ADD") {
		names = append(names, c.Env["CNI_IFNAME"])
	}
	if len(names) != 2 || names[0] != "net2" || names[1] == "net2" || names[1] == "eth0" {
		t.Errorf("interfaces: %q", names)
	}
})

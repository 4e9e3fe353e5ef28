//go:build conformance

package conformance

import (
	"fmt"
	"strings"
)

// Rows of the conventions of CNI and of its notes on upgrades.

// capable is a bridge with the addresses of host-local that can be asked for.
const capable = `{"cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "br0", %s
	"ipam": {"type": "host-local", "dataDir": "$DIR", "ranges": [[{"subnet": "10.1.1.0/24"}]]}}`

var _ = row("B163", func(t *T) {
	t.Plugin()
	n := t.Node()
	p := n.container()
	p.plugin("bridge", "ADD", fmt.Sprintf(capable, `"runtimeConfig": {"mac": "02:00:00:00:00:07", "ips": ["10.1.1.9"]},`)).ok()
	t.want("MAC", p.ns.Link(t, "eth0").Attrs().HardwareAddr.String(), `"02:00:00:00:00:07"`)
	t.want("addresses", n.addresses(p.ns, "eth0"), `["10.1.1.9/24"]`)
})

var _ = row("B165", func(t *T) {
	t.Plugin()
	n := t.Node()
	for _, bad := range []string{`{"mac": "x"}`, `{"mac": 5}`, `{"ips": ["x"]}`, `{"ips": "10.1.1.9"}`, `{"ips": ["172.16.0.1"]}`} {
		p := n.container()
		if o := p.plugin("bridge", "ADD", fmt.Sprintf(capable, `"runtimeConfig": `+bad+`,`)); o.exit == 0 {
			t.Errorf("accepted: %s", bad)
		}
		t.want("links of the pod", p.ns.Links(t), "[]")
	}
	t.want("reservations", n.reservations(), "null")
})

// passes: what the runtime asks for by the name of a convention reaches a plugin that has the capability, under that name.
func passes(capability, value string) func(*T) {
	return func(t *T) {
		n := t.Node()
		n.main(fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "cluster", "plugins": [{"type": "rec-a", "capabilities": {%q: true}}, {"type": "rec-b"}]}`, capability))
		n.keys["capabilities"] = dict{capability: true}
		n.keys["runtimeConfig"] = dict{capability: rawJSON(value)}
		n.container().add().ok()
		t.want("runtimeConfig."+capability, at(n.one("rec-a").conf(), "runtimeConfig", capability), value)
		t.want("runtimeConfig without the capability", n.one("rec-b").conf()["runtimeConfig"], "null")
	}
}

var (
	_ = row("B164", func(t *T) {
		n := t.Node()
		n.nad("net", allCapabilities)
		n.pod(`[{"name": "net", "ips": ["10.1.1.9/24"], "mac": "02:00:00:00:00:07", "infiniband-guid": "02:00:00:00:00:00:00:07",
			"portMappings": [{"hostPort": 8080, "containerPort": 80}], "bandwidth": {"ingressRate": 8000, "ingressBurst": 8000}}]`).add().ok()
		c, _ := n.one("rec-a").conf()["runtimeConfig"].(dict)
		for _, name := range []string{"ips", "mac", "infinibandGUID", "portMappings", "bandwidth"} {
			if c[name] == nil {
				t.Errorf("runtimeConfig has no %s: %s", name, text(c))
			}
		}
	})
	_ = row("B166", passes("mac", `"02:00:00:00:00:07"`))
	_ = row("B167", passes("portMappings", `[{"containerPort":80,"hostIP":"192.0.2.1","hostPort":8080,"protocol":"tcp"}]`))
	_ = row("B169", passes("bandwidth", `{"egressBurst":800,"egressRate":8000,"ingressBurst":800,"ingressRate":8000}`))
	_ = row("B170", passes("dns", `{"options":["ndots:5"],"searches":["example.org"],"servers":["10.1.1.53"]}`))
	_ = row("B171", passes("ips", `["10.1.1.9/24","fd00::9"]`))
	_ = row("B172", passes("mac", `"02:00:00:00:00:07"`))
	_ = row("B173", passes("infinibandGUID", `"02:00:00:00:00:00:00:07"`))
	_ = row("B174", passes("deviceID", `"0000:00:1f.0"`))
	_ = row("B175", passes("aliases", `["web","db"]`))
	_ = row("B176", passes("cgroupPath", `"/kubelet.slice/pod1"`))
)

var _ = row("B168", func(t *T) {
	passes("ipRanges", `[[{"subnet":"10.5.0.0/24"}]]`)(t)
	if t.suite.impl.plugins {
		n := t.Node()
		p := n.container()
		p.plugin("host-local", "ADD", strings.Replace(hostLocal, `"ipam"`, `"runtimeConfig": {"ipRanges": [[{"subnet": "10.5.0.0/24"}]]}, "ipam"`, 1)).ok()
		held := n.reservations()
		if len(held) == 0 || held[len(held)-1] != "10.5.0.2" {
			t.Errorf("addresses of the ranges that were asked for: %q", held)
		}
	}
})

var _ = row("B177", optionalArgs)
var _ = row("B179", optionalArgs)

// optionalArgs: data in args is no condition.
func optionalArgs(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a")) // declares nothing
	n.pod(`[{"name": "net", "cni-args": {"labels": [{"key": "app", "value": "web"}]}}]`).add().ok()
	t.want("labels", at(n.one("rec-a").conf(), "args", "cni", "labels", 0, "key"), `"app"`)
}

var _ = row("B178", func(t *T) {
	t.Plugin()
	p := t.Node().container()
	p.plugin("bridge", "ADD", fmt.Sprintf(capable, `"args": {"cni": {"unheard": {"of": 1}}, "example.org": 5},`)).ok()
	t.want("addresses", p.addresses(p.ns, "eth0"), `["10.1.1.2/24"]`)
})

var _ = row("B180", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a", `"args": {"example.org": {"x": 1}}`))
	n.pod(`[{"name": "net", "cni-args": {"a": 1}}]`).add().ok()
	t.want("args", n.one("rec-a").conf()["args"], `{"cni":{"a":1},"example.org":{"x":1}}`)
})

var _ = row("B181", func(t *T) {
	t.Plugin()
	p := t.Node().container()
	p.args = "IgnoreUnknown=1;IP=10.1.1.8"
	p.plugin("bridge", "ADD", fmt.Sprintf(capable, `"args": {"cni": {"ips": ["10.1.1.9"]}},`)).ok()
	t.want("addresses", p.addresses(p.ns, "eth0"), `["10.1.1.9/24"]`)
})

var _ = row("B182", func(t *T) {
	n := t.Node()
	n.nad("net", allCapabilities)
	n.pod(`[{"name": "net", "ips": ["10.1.1.9/24"], "mac": "02:00:00:00:00:07"}]`).add().ok()
	for _, arg := range strings.Split(n.one("rec-a").Env["CNI_ARGS"], ";") {
		if name, _, _ := strings.Cut(arg, "="); name == "IP" || name == "MAC" {
			t.Errorf("CNI_ARGS has %s", arg)
		}
	}
})

var _ = row("B183", func(t *T) {
	t.Plugin()
	p := t.Node().container()
	p.args = "IgnoreUnknown=1;IP=10.1.1.8"
	p.plugin("bridge", "ADD", fmt.Sprintf(capable, "")).ok()
	t.want("addresses", p.addresses(p.ns, "eth0"), `["10.1.1.8/24"]`)
})

var _ = row("B184", func(t *T) {
	t.Plugin()
	n := t.Node()
	p := n.container()
	name := tap(n)
	p.plugin("bridge", "ADD", p.previous(`{"cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "br0"}`,
		dict{"cniVersion": "1.1.0", "interfaces": []any{dict{"name": name}}})).ok()
	if link, bridge := n.ns.Link(t, name), n.ns.Link(t, "br0"); link.Attrs().MasterIndex != bridge.Attrs().Index {
		t.Errorf("the interface of the plugin before is no port of the bridge")
	}
})

var _ = row("B185", func(t *T) {
	t.Plugin()
	n := t.Node()
	p := n.container()
	p.plugin("bridge", "ADD", fmt.Sprintf(capable, "")).ok()
	t.want("links of the pod", p.ns.Links(t), `["eth0"]`)
})

var _ = row("B186", func(t *T) {
	n := t.Node()
	n.keys["cniVersion"] = nil
	r := n.container().add().raw()
	t.want("ip4", at(r, "ip4", "ip"), `"10.9.0.2/24"`)
	if r["ips"] != nil || r["interfaces"] != nil {
		t.Errorf("keys of later versions: %s", text(r))
	}
})

var _ = row("B187", func(t *T) {
	n := t.Node()
	n.main(`{"cniVersion": "1.0.0", "name": "cluster", "type": "rec-cluster"}`)
	for _, version := range versions {
		n.version = version
		r := n.container().add().raw()
		old := version < "0.3.0"
		if t.want("cniVersion", r["cniVersion"], `"`+version+`"`); old != (r["ip4"] != nil) || old == (r["ips"] != nil) || old == (r["interfaces"] != nil) {
			t.Errorf("a result of %s: %s", version, text(r))
		}
		if marked := at(r, "ips", 0, "version") != nil; marked != (!old && version < "1.0.0") {
			t.Errorf("ips[].version in a result of %s: %s", version, text(r))
		}
	}
})

var _ = row("B188", func(t *T) {
	n := t.Node()
	for i, result := range []string{
		`{"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.1.1.9/24"}]}`,
		`{"cniVersion": "0.4.0", "interfaces": [{"name": "$IFNAME", "sandbox": "$NETNS"}], "ips": [{"version": "4", "address": "10.1.1.9/24", "interface": -1}]}`,
		`{"cniVersion": "0.4.0"}`,
	} {
		n.script("rec-a", `{"ADD": {"result": `+result+`}}`)
		if i == 0 {
			n.nad("net", `{"cniVersion": "0.4.0", "type": "rec-a"}`)
		}
		p := n.pod("net")
		if o := p.add(); o.exit != 0 {
			t.Errorf("the plugin answers %s: %s", result, o.said())
			continue
		}
		p.del().ok()
	}
})

var _ = row("B190", func(t *T) {
	n := t.Node()
	n.main(`{"cniVersion": "1.0.0", "name": "cluster", "type": "rec-cluster"}`)
	n.nad("net", `{"cniVersion": "0.4.0", "type": "rec-a"}`)
	p := n.pod("net")
	p.add().ok()
	p.del().ok()
	for _, c := range n.calls() {
		want := map[string]string{"rec-cluster": `"1.0.0"`, "rec-a": `"0.4.0"`}[c.Type]
		t.want("cniVersion at "+c.Command+" of "+c.Type, c.conf()["cniVersion"], want)
	}
})

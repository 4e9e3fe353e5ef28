//go:build conformance

package conformance

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// Rows of section 5 of the CNI specification: results and errors.

var versions = []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}

var _ = row("B134", func(t *T) {
	p := bridged(t).container()
	r := p.add().raw()
	for _, key := range []string{"cniVersion", "interfaces", "ips"} {
		if r[key] == nil {
			t.Errorf("no key %s: %s", key, text(r))
		}
	}
})

var _ = row("B135", func(t *T) {
	n := t.Node()
	for _, entry := range versions {
		for _, delegate := range []string{"0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
			n.version = entry
			n.main(fmt.Sprintf(`{"cniVersion": %q, "name": "cluster", "type": "rec-cluster"}`, delegate))
			o := n.container().add()
			if o.exit != 0 {
				t.Errorf("entry %s, delegate %s: %s", entry, delegate, o.said())
			} else if got := o.raw()["cniVersion"]; got != entry {
				t.Errorf("entry %s, delegate %s: the result is of %v", entry, delegate, got)
			}
		}
	}
})

var _ = row("B136", func(t *T) {
	n := bridged(t)
	p := n.container()
	r := p.add().result()
	var host, inside []string
	for _, i := range r.Interfaces {
		if i.Sandbox == "" {
			host = append(host, i.Name)
		} else {
			inside = append(inside, i.Name)
		}
	}
	slices.Sort(host)
	t.want("interfaces in the container", inside, text(p.ns.Links(t)))
	want := append(n.links("bridge"), n.links("veth")...)
	slices.Sort(want)
	t.want("interfaces of the host", host, text(want))
})

var _ = row("B137", func(t *T) {
	p := bridged(t).container()
	sandboxes := 0
	for _, i := range p.add().result().Interfaces {
		if i.Sandbox != "" {
			sandboxes++
			t.want("sandbox", i.Sandbox, text(p.ns.Path()))
		}
	}
	if sandboxes != 1 {
		t.Errorf("%d interfaces have a sandbox, want 1", sandboxes)
	}
})

// delegated runs ADD with a default network whose plugin gives the result.
func delegated(t *T, result string) dict {
	t.Helper()
	n := t.Node()
	n.script("rec-cluster", `{"ADD": {"result": `+result+`}}`)
	return n.container().add().raw()
}

var _ = row("B138", func(t *T) {
	r := delegated(t, `{"cniVersion": "1.1.0", "interfaces": [{"name": "$IFNAME", "mac": "02:00:00:00:00:07", "mtu": 1400, "sandbox": "$NETNS",
		"socketPath": "/run/vhost.sock", "pciID": "0000:00:1f.0"}]}`)
	for key, want := range map[string]string{"mac": `"02:00:00:00:00:07"`, "mtu": "1400", "socketPath": `"/run/vhost.sock"`, "pciID": `"0000:00:1f.0"`} {
		t.want(key, at(r, "interfaces", 0, key), want)
	}
	if t.suite.impl.plugins {
		p := bridged(t).container()
		for _, i := range p.add().result().Interfaces {
			if i.Mac == "" || i.Mtu != 1500 {
				t.Errorf("interface of the bridge plugin: %+v", i)
			}
		}
	}
})

var _ = row("B139", func(t *T) {
	n := t.Node()
	n.script("rec-cluster", `{"ADD": {"result": `+several+`}}`)
	n.script("rec-a", `{"ADD": {"result": {"cniVersion": "$VERSION", "interfaces": [{"name": "br9"}, {"name": "$IFNAME", "sandbox": "$NETNS"}],
		"ips": [{"address": "10.3.1.9/24", "interface": 1}]}}}`)
	n.nad("net", rec("rec-a"))
	r := n.pod("net").add().result()
	of := map[string]string{"10.1.1.1/24": "br0", "10.1.1.9/24": "eth0", "10.1.2.9/24": "sub0", "10.3.1.9/24": "net1"}
	for _, ip := range r.IPs {
		if ip.Interface == nil {
			continue
		}
		if i := *ip.Interface; i < 0 || i >= len(r.Interfaces) || r.Interfaces[i].Name != of[ip.Address.String()] {
			t.Errorf("the interface of %v: %d of %s", ip.Address, i, text(r.Interfaces))
		}
	}
})

var _ = row("B140", func(t *T) {
	n := t.Node()
	n.main(strings.Replace(mainBridge, `"subnet": "10.244.0.0/24"`, `"ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:244::/64"}]]`, 1))
	r := n.container().add().raw()
	t.want("addresses", []any{at(r, "ips", 0, "address"), at(r, "ips", 1, "address")}, `["10.244.0.2/24","fd00:244::2/64"]`)
})

var _ = row("B141", func(t *T) {
	const routes = `[{"dst": "203.0.113.0/24", "gw": "10.1.1.1", "mtu": 1400, "advmss": 1300, "priority": 77, "table": 5, "scope": 0}, {"dst": "198.51.100.0/24"}]`
	r := delegated(t, strings.Replace(full, `"dns"`, `"routes": `+routes+`, "dns"`, 1))
	for key, want := range map[string]string{"dst": `"203.0.113.0/24"`, "gw": `"10.1.1.1"`, "mtu": "1400", "advmss": "1300", "priority": "77", "table": "5", "scope": "0"} {
		t.want(key, at(r, "routes", 0, key), want)
	}
	t.want("dst of the second", at(r, "routes", 1, "dst"), `"198.51.100.0/24"`)
	if t.suite.impl.plugins {
		n := t.Node()
		p := n.container()
		p.plugin("bridge", "ADD", strings.Replace(plainBridge, `"subnet"`, `"routes": [{"dst": "203.0.113.0/24", "mtu": 1400, "priority": 77, "table": 5}], "subnet"`, 1)).ok()
		if got := p.inPod("ip", "route", "show", "table", "5"); !strings.Contains(got, "203.0.113.0/24 via 10.1.1.1") || !strings.Contains(got, "metric 77") || !strings.Contains(got, "mtu 1400") {
			t.Errorf("route in the pod: %s", got)
		}
	}
})

// inPod runs a program in the pod's namespace.
func (p *pod) inPod(program string, args ...string) string {
	p.Helper()
	inside := *p.node
	inside.ns = p.ns
	return inside.run(program, args...)
}

var _ = row("B142", func(t *T) {
	const dns = `{"domain":"example.org","nameservers":["10.1.1.53"],"options":["ndots:5"],"search":["example.org"]}`
	r := delegated(t, `{"cniVersion": "1.1.0", "interfaces": [{"name": "$IFNAME", "sandbox": "$NETNS"}], "dns": `+dns+`}`)
	t.want("dns", r["dns"], dns)
})

func init() {
	notApplicable("a permission for address plugins", "B145")
	notApplicable("a permission of the container runtime; an entry plugin answers in the version that it is asked for", "B189")
}

var _ = row("B146", func(t *T) {
	t.Plugin()
	n := t.Node()
	r := n.container().plugin("host-local", "ADD", hostLocal).raw()
	if list, _ := r["interfaces"].([]any); len(list) > 0 || at(r, "ips", 0, "interface") != nil {
		t.Errorf("an address plugin tells of interfaces: %s", text(r))
	}
	p := n.container()
	result := p.plugin("bridge", "ADD", plainBridge).result()
	if i := result.IPs[0].Interface; i == nil || result.Interfaces[*i].Name != "eth0" {
		t.Errorf("the main plugin does not say whose address it is: %s", text(result))
	}
})

var _ = row("B149", func(t *T) {
	n := t.Node()
	n.script("rec-cluster", failing)
	for _, version := range []string{"1.1.0", "0.4.0"} {
		n.version = version
		t.want("cniVersion of the error", n.container().add().failed().CNIVersion, `"`+version+`"`)
	}
})

var _ = row("B150", func(t *T) {
	n := t.Node()
	n.script("rec-cluster", `{"ADD": {"error": {"cniVersion": "1.1.0", "code": 123, "msg": "no room left", "details": "shelf 5"}}}`)
	e := n.container().add().failed()
	if e.Code == 0 || !strings.Contains(e.text(), "no room left") || !strings.Contains(e.text(), "shelf 5") {
		t.Errorf("code %d, message and details: %q, %q", e.Code, e.Msg, e.Details)
	}
})

var _ = row("B151", func(t *T) {
	n := t.Node()
	n.script("rec-a", `{"ADD": {"exit": 3}}`)
	n.nad("net", rec("rec-a"))
	n.nad("bad", `{`)
	n.works()
	for _, networks := range []string{"net", "bad", "nowhere", "a/b/c", `[{"name": "net", "ips": ["x"]}]`} {
		if e := n.pod(networks).add().failed(); e.Code < 100 && !slices.Contains([]uint{1, 2, 3, 4, 5, 6, 7, 11, 50, 51}, e.Code) {
			t.Errorf("code %d, which is neither in the table nor 100 or more: %s", e.Code, e.Msg)
		}
	}
})

var _ = row("B152", func(t *T) {
	n := t.Node()
	p := n.container()
	n.version = "7.0.0"
	p.add().fails(types.ErrIncompatibleCNIVersion)
	n.version = "0.3.1"
	p.check().fails(types.ErrIncompatibleCNIVersion)
	n.version = "1.0.0"
	n.global("GC").fails(types.ErrIncompatibleCNIVersion)
	n.global("STATUS").fails(types.ErrIncompatibleCNIVersion)
})

var _ = row("B153", func(t *T) {
	t.Plugin()
	p := t.Node().container()
	for _, c := range [][2]string{
		{"macvlan", `{"cniVersion": "1.1.0", "name": "net", "type": "macvlan", "master": "lo", "mode": "sideways"}`},
		{"bridge", `{"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipMasq": true, "ipMasqBackend": "sideways"}`},
	} {
		e := p.plugin(c[0], "ADD", c[1]).failed()
		key := map[string]string{"macvlan": "mode", "bridge": "ipMasqBackend"}[c[0]]
		if !strings.Contains(e.text(), key) || !strings.Contains(e.text(), "sideways") {
			t.Errorf("the error has not both key and value: %s", e.text())
		}
	}
})

var _ = row("B154", func(t *T) {
	n, p := threeNetworks(t)
	n.script("rec-b", `{"ADD": {"exit": 1}}`)
	e := p.add().failed()
	n.one("rec-a", "ADD")
	if e.Code == types.ErrUnknownContainer {
		t.Error("code 3 after networks were attached: the runtime would not clean up")
	}
})

var _ = row("B155", func(t *T) {
	p := t.Node().container()
	for _, c := range [][2]string{{"CNI_CONTAINERID", "a/b"}, {"CNI_IFNAME", "a/b"}, {"CNI_NETNS", "-"}, {"CNI_COMMAND", "NONSENSE"}} {
		name, value := c[0], c[1]
		e := p.exec(t.suite.impl.entry, with(p.env("ADD"), name, value), p.entry()).fails(types.ErrInvalidEnvironmentVariables)
		if !strings.Contains(e.text(), name) {
			t.Errorf("the error does not name %s: %s", name, e.text())
		}
	}
})

var _ = row("B156", func(t *T) { unreadable(t.Node().container()).fails(types.ErrIOFailure) })

var _ = row("B157", func(t *T) {
	p := t.Node().container()
	for _, stdin := range []string{"{", "plain", "[]"} {
		p.exec(t.suite.impl.entry, p.env("ADD"), []byte(stdin)).fails(types.ErrDecodingFailure)
	}
})

var _ = row("B158", func(t *T) {
	n := t.Node()
	n.works()
	n.keys["name"] = nil
	n.container().add().fails(types.ErrInvalidNetworkConfig)
	n.keys["name"] = "pods"
	n.keys["delegates"] = nil
	n.container().add().fails(types.ErrInvalidNetworkConfig)
})

var _ = row("B159", func(t *T) {
	n := t.Node()
	p := n.pod("")
	n.cut()
	n.keys["deadlines"] = deadlines(t, `{"resolve": "2s"}`)
	if e := p.add().failed(); e.Code != types.ErrTryAgainLater {
		t.NotApplicable("a permission that it does not use")
	}
})

var _ = row("B162", func(t *T) {
	n := t.Node()
	n.keys["logLevel"] = "debug"
	n.keys["logToStderr"] = true
	p := n.container()
	if o := p.add().ok(); o.documents() != 1 {
		t.Errorf("standard output has logs: %s", o.stdout)
	}
	if o := p.del().ok(); o.stdout != "" {
		t.Errorf("standard output has logs: %s", o.stdout)
	}
})

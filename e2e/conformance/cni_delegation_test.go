//go:build conformance

package conformance

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// Rows of section 4 of the CNI specification: plugin delegation.

var _ = row("B123", func(t *T) {
	t.Plugin()
	n := t.Node()
	r := n.container().plugin("host-local", "ADD", strings.Replace(hostLocal, `"subnet"`, `"routes": [{"dst": "203.0.113.0/24"}], "subnet"`, 1)).raw()
	t.want("ips", r["ips"], `[{"address":"10.1.1.2/24","gateway":"10.1.1.1"}]`)
	t.want("routes", r["routes"], `[{"dst":"203.0.113.0/24"}]`)
	// And the main plugin applies it.
	p := n.container()
	p.plugin("bridge", "ADD", plainBridge).ok()
	t.want("addresses", n.addresses(p.ns, "eth0"), `["10.1.1.3/24"]`)
})

// ipamNode is a node where an executed address plugin serves a bridge.
func ipamNode(t *T, replies ...string) (*node, *pod) {
	t.Plugin()
	n := t.Node()
	n.script("rec-ipam", `{`+strings.Join(append(replies, ipamReplies), ", ")+`}`)
	return n, n.container()
}

var _ = row("B124", func(t *T) {
	n, p := ipamNode(t)
	p.plugin("bridge", "ADD", ipamBridge).ok()
	n.one("rec-ipam", "ADD")
	t.want("addresses", n.addresses(p.ns, "eth0"), `["10.1.1.9/24"]`)
})

var _ = row("B128", func(t *T) {
	n := t.Node()
	// The first folder that has it counts; one that is not there does not matter.
	first := filepath.Join(n.dir, "first")
	n.must(os.Mkdir(first, 0o755))
	for _, dir := range []string{first, n.bin} {
		n.must(os.Symlink(filepath.Join(t.suite.bin, "recorder"), filepath.Join(dir, "rec-twice")))
	}
	n.keys["binDir"] = first
	n.path = strings.Join([]string{"/nonexistent", first, n.bin}, string(filepath.ListSeparator))
	n.main(`{"cniVersion": "1.1.0", "name": "cluster", "type": "rec-twice"}`)
	n.container().call("ADD").ok()
	if _, err := os.Stat(filepath.Join(first, "calls.jsonl")); err != nil || len(n.calls("rec-twice")) > 0 {
		t.Errorf("the plugin in the first folder was not called: %v", err)
	}
})

var _ = row("B125", sameEnvironment)

// sameEnvironment: what the plugin was given reaches its delegate, and that one's address plugin.
func sameEnvironment(t *T) {
	n := t.Node()
	p := n.container()
	p.args = "IgnoreUnknown=1;FIRST=x;SECOND=y"
	p.exec(t.suite.impl.entry, with(p.env("ADD"), "EXTRA_OF_RUNTIME", "z"), p.entry()).ok()
	c := n.one("rec-cluster", "ADD")
	for _, arg := range []string{"FIRST=x", "SECOND=y"} {
		if !strings.Contains(";"+c.Env["CNI_ARGS"]+";", ";"+arg+";") {
			t.Errorf("CNI_ARGS of the delegate: %q", c.Env["CNI_ARGS"])
		}
	}
	t.want("another variable of the environment", c.Env["EXTRA_OF_RUNTIME"], `"z"`)
	if t.suite.impl.plugins {
		n, p := ipamNode(t)
		p.args = "FIRST=x"
		p.exec(filepath.Join(n.bin, "bridge"), with(p.env("ADD"), "EXTRA_OF_RUNTIME", "z"), []byte(ipamBridge)).ok()
		c := n.one("rec-ipam", "ADD")
		t.want("CNI_ARGS and another variable of the address plugin", []string{c.Env["CNI_ARGS"], c.Env["EXTRA_OF_RUNTIME"]}, `["FIRST=x","z"]`)
	}
}

var _ = row("B126", func(t *T) {
	n, p := ipamNode(t)
	config := strings.Replace(ipamBridge, `"type"`, `"runtimeConfig": {"ips": ["10.1.1.9/24"]}, "args": {"cni": {"a": 1}}, `+odd+`, "type"`, 1)
	p.plugin("bridge", "ADD", config).ok()
	if got := n.one("rec-ipam", "ADD").Stdin; got != config {
		t.Errorf("the address plugin gets %s, want all that the bridge got: %s", got, config)
	}
})

var _ = row("B127", func(t *T) {
	n, p := ipamNode(t, `"ADD@bad": {"exit": 1, "print": "{\"cniVersion\": \"1.1.0\", \"ips\": [{\"address\": \"10.1.1.9/24\"}]}"}`)
	p.plugin("bridge", "ADD", ipamBridge).ok()
	p = n.container()
	p.plugin("bridge", "ADD", strings.Replace(ipamBridge, `"net"`, `"bad"`, 1)).failed()
	t.want("links of the pod", p.ns.Links(t), "[]")
})

var _ = row("B129", func(t *T) {
	n, p := ipamNode(t)
	p.args = "IgnoreUnknown=1;A=b"
	p.plugin("bridge", "ADD", ipamBridge).ok()
	c := n.one("rec-ipam", "ADD")
	for name, value := range p.env("ADD") {
		t.want(name, c.Env[name], `"`+value+`"`)
	}
	t.want("configuration", c.Stdin, text(ipamBridge))
})

var _ = row("B130", func(t *T) {
	n := t.Node()
	n.script("rec-cluster", `{"ADD": {"stderr": "note from the delegate\n"}}`)
	if o := n.container().add().ok(); !strings.Contains(o.stderr, "note from the delegate") {
		t.Errorf("standard error: %q", o.stderr)
	}
	if t.suite.impl.plugins {
		n, p := ipamNode(t, `"CHECK": {"stderr": "note from the address plugin\n"}`)
		result := p.plugin("bridge", "ADD", ipamBridge).raw()
		if o := p.plugin("bridge", "CHECK", p.previous(ipamBridge, result)).ok(); !strings.Contains(o.stderr, "note from the address plugin") {
			n.Errorf("standard error: %q", o.stderr)
		}
	}
})

var _ = row("B131", func(t *T) {
	n, p := ipamNode(t)
	result := p.plugin("bridge", "ADD", ipamBridge).raw()
	p.plugin("bridge", "CHECK", p.previous(ipamBridge, result)).ok()
	n.globalPlugin("bridge", "GC", ipamBridge, "cni.dev/valid-attachments", []types.GCAttachment{valid(p)}).ok()
	p.plugin("bridge", "DEL", p.previous(ipamBridge, result)).ok()
	n.wantTrace("ADD rec-ipam eth0, CHECK rec-ipam eth0, GC rec-ipam , DEL rec-ipam eth0")
})

var _ = row("B132", func(t *T) {
	n, p := ipamNode(t, `"DEL": {"error": {"cniVersion": "1.1.0", "code": 123, "msg": "store gone"}}`)
	p.plugin("bridge", "ADD", ipamBridge).ok()
	if e := p.plugin("bridge", "DEL", ipamBridge).failed(); !strings.Contains(e.text(), "store gone") {
		t.Errorf("the error does not say why: %s", e.text())
	}
	t.want("links of the pod", p.ns.Links(t), "[]")
	if strings.Contains(n.ruleset(), "10.1.1.9") {
		t.Error("rules after DEL")
	}
})

var _ = row("B133", func(t *T) {
	t.Plugin()
	n := t.Node()
	n.script("rec-ipam", failing)
	p := n.container()
	p.plugin("bridge", "ADD", ipamBridge).fails(123)
	n.wantTrace("ADD rec-ipam eth0, DEL rec-ipam eth0")
	t.want("configuration at DEL", n.one("rec-ipam", "DEL").Stdin, text(n.one("rec-ipam", "ADD").Stdin))
	t.want("links of the pod", p.ns.Links(t), "[]")
	t.want("pairs of the node", n.links("veth"), "null")
})

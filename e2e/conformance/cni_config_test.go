//go:build conformance

package conformance

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Rows of section 1 of the CNI specification: the configuration format.

// main makes a network the default one of the node's pods.
func (n *node) main(config string) {
	n.keys["delegates"] = []any{rawJSON(n.expand(config))}
}

var _ = row("B1", func(t *T) {
	n := t.Node()
	n.keys["cniVersion"] = nil
	n.main(`{"name": "cluster", "type": "rec-cluster"}`)
	r := n.container().add().raw()
	t.want("address in the format of 0.2.0", at(r, "ip4", "ip"), `"10.9.0.2/24"`)
	// A result without addresses cannot be told in that format. Whatever is made of that, it leaves nothing.
	n.main(`{"name": "cluster", "cniVersion": "1.0.0", "type": "rec-a"}`)
	n.script("rec-a", `{"ADD": {"result": {"cniVersion": "1.0.0", "interfaces": [{"name": "$IFNAME", "sandbox": "$NETNS"}]}}}`)
	if o := n.container().add(); o.exit != 0 && len(n.calls("rec-a", "ADD")) > len(n.calls("rec-a", "DEL")) {
		t.Errorf("a result without addresses cannot be told, and the interface stays: %s", o.said())
	}
})

var _ = row("B2", func(t *T) {
	n := t.Node()
	n.nad("net", `{"cniVersion": "1.0.0", "cniVersions": ["0.4.0", "1.1.0"], "plugins": [{"type": "rec-a"}]}`)
	n.pod("net").add().ok()
	t.want("cniVersion that the plugin gets", n.one("rec-a").conf()["cniVersion"], `"1.1.0"`)
})

var _ = row("B22", func(t *T) {
	n := t.Node()
	n.nad("net", `{"cniVersion": "9.0.0", "cniVersions": ["0.4.0", "1.2.0", "0.3.1"], "plugins": [{"type": "rec-a"}]}`)
	n.pod("net").add().ok()
	t.want("cniVersion that the plugin gets", n.one("rec-a").conf()["cniVersion"], `"0.4.0"`)
})

var _ = row("B23", func(t *T) {
	n := t.Node()
	n.script("rec-a", `{"VERSION": {"result": {"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", "1.0.0"]}},
		"ADD": {"error": {"cniVersion": "1.0.0", "code": 1, "msg": "incompatible CNI versions"}}}`)
	n.nad("net", list(`{"type": "rec-a"}`))
	p := n.pod("net")
	p.add().failed()
	asked := n.one("rec-a", "ADD").conf()["cniVersion"]
	p.del().ok()
	if asked != "1.0.0" {
		t.NotApplicable("a permission that it does not use: the plugin is asked in the version of the network, and its error reported")
	}
})

var _ = row("B3", func(t *T) {
	n := t.Node()
	n.keys["name"] = "cluster" // like the network that it delegates to
	one, other := n.container(), n.container()
	one.add().ok()
	other.add().ok()
	one.del().ok()
	other.check().ok()
	n.forget()
	other.del().ok()
	t.want("interface of prevResult at DEL", at(n.one("rec-cluster", "DEL").conf(), "prevResult", "interfaces", 0, "name"), `"eth0"`)
})

// badNames are no network names.
var badNames = []string{"-a", "a b", "a/b", "../a", ".a", "a:b"}

var _ = row("B4", func(t *T) {
	n := t.Node()
	n.works()
	for i, name := range append(badNames, "") {
		if name != "" { // an absent one is filled in
			nad := fmt.Sprint("net", i)
			n.nad(nad, rec("rec-a", fmt.Sprintf(`"name": %q`, name)))
			n.pod(nad).add().failed()
		}
		n.keys["name"] = name
		n.container().add().failed()
		delete(n.keys, "name")
	}
	if called := n.calls("rec-a", "ADD"); len(called) > 0 {
		t.Errorf("networks of invalid names were attached: %s", trace(called))
	}
})

var _ = row("B5", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a", `"name": "../../escaped"`))
	n.works()
	p := n.pod("net")
	p.add().failed()
	p.del()
	err := filepath.Walk(n.dir, func(path string, _ os.FileInfo, err error) error {
		if strings.Contains(path, "escaped") {
			t.Errorf("%s was written", path)
		}
		return err
	})
	n.must(err)
})

var _ = row("B6", disableCheck)
var _ = row("B61", disableCheck)
var _ = row("B110", disableCheck)

// disableCheck: plugins of a list that says so do not see CHECK, others do.
func disableCheck(t *T) {
	n := t.Node()
	n.script("rec-a", `{"CHECK": {"error": {"code": 123, "msg": "no"}}}`)
	n.keys["delegates"] = rawJSON(`[{"cniVersion": "1.1.0", "name": "quiet", "disableCheck": true, "plugins": [{"type": "rec-a"}]},
		{"cniVersion": "1.1.0", "name": "other", "plugins": [{"type": "rec-b"}]}]`)
	p := n.container()
	p.add().ok()
	p.check().ok()
	n.wantTrace("CHECK rec-b net1", "CHECK")
}

var _ = row("B7", func(t *T) {
	n := t.Node()
	p := n.container()
	for _, disabled := range []bool{true, false} {
		n.main(fmt.Sprintf(`{"cniVersion": "1.1.0", "name": "quiet", "disableGC": %v, "plugins": [{"type": "rec-a"}]}`, disabled))
		p.add().ok()
		n.global("GC", valid(p)).ok()
		if called := n.calls("rec-a", "GC"); (len(called) == 0) != disabled {
			t.Errorf("disableGC %v: %d calls of GC", disabled, len(called))
		}
		p.del().ok()
	}
})

// folders is a node whose default network is a file with a folder of its name beside it.
func folders(t *T, list, folder string) *node {
	n := t.Node()
	n.keys["clusterNetwork"] = n.write("main/10-main.conflist", list)
	n.write("main/"+folder+"/50-b.conf", `{"type": "rec-b"}`)
	n.write("main/"+folder+"/60-c.conf", `{"type": "rec-c"}`)
	return n
}

const mainList = `{"cniVersion": "1.1.0", "name": "main", "plugins": [{"type": "rec-a"}]%s}`

var _ = row("B8", func(t *T) {
	n := folders(t, fmt.Sprintf(mainList, ""), "main")
	n.pod("").add().ok()
	n.wantTrace("ADD rec-a eth0, ADD rec-b eth0, ADD rec-c eth0")
})

var _ = row("B9", func(t *T) {
	n := folders(t, fmt.Sprintf(mainList, `, "loadOnlyInlinedPlugins": true`), "main")
	n.pod("").add().ok()
	n.wantTrace("ADD rec-a eth0")
})

var _ = row("B10", func(t *T) {
	n := folders(t, fmt.Sprintf(mainList, ""), "main")
	n.pod("").add().ok()
	n = folders(t, `{"cniVersion": "1.1.0", "name": "main", "loadOnlyInlinedPlugins": true}`, "main")
	n.pod("").add().failed()
	n.wantTrace("")
})

var _ = row("B11", func(t *T) {
	// The sentence says "true", and contradicts the one before; everybody reads it as false.
	n := folders(t, fmt.Sprintf(mainList, `, "loadOnlyInlinedPlugins": false`), "main")
	n.pod("").add().ok()
	n.wantTrace("ADD rec-a eth0, ADD rec-b eth0, ADD rec-c eth0")
})

var _ = row("B12", func(t *T) {
	n := folders(t, fmt.Sprintf(mainList, ""), "10-main") // named like the file, not like the network
	n.pod("").add().ok()
	n.wantTrace("ADD rec-a eth0")
})

var _ = row("B13", func(t *T) {
	for _, bad := range []string{`{`, `{"mode": "x"}`} {
		n := folders(t, fmt.Sprintf(mainList, ""), "main")
		n.pod("").add().ok()
		n.write("main/main/55-bad.conf", bad)
		n.pod("").add().failed()
	}
})

// odd are keys that no plugin knows, with an integer that a float cannot hold.
const odd = `"odd": {"z": [true, null, "a\u00e9/"], "a": {"big": 9007199254740993}}, "big": 9007199254740993`

// wantOdd complains unless a plugin got them.
func wantOdd(t *T, c call) {
	t.Helper()
	var got struct {
		Odd struct {
			Z []any
			A struct{ Big json.Number }
		}
		Big json.Number
	}
	if err := json.Unmarshal([]byte(c.Stdin), &got); err != nil {
		t.Fatal(err)
	}
	t.want("odd.z at "+c.Command, got.Odd.Z, `[true,null,"aé/"]`)
	t.want("integers at "+c.Command, []string{string(got.Odd.A.Big), string(got.Big)}, `["9007199254740993","9007199254740993"]`)
}

var _ = row("B14", func(t *T) {
	n := t.Node()
	n.nad("single", rec("rec-a", odd))
	n.nad("several", list(`{"type": "rec-b", `+odd+`}`, `{"type": "rec-c", `+odd+`}`))
	n.pod("single,several").add().ok()
	for _, plugin := range []string{"rec-a", "rec-b", "rec-c"} {
		wantOdd(t, n.one(plugin))
	}
})

var _ = row("B21", func(t *T) {
	n := t.Node()
	// Something is put in, so that the configuration is transformed.
	n.nad("net", rec("rec-a", odd, `"capabilities": {"mac": true}`))
	p := n.pod(`[{"name": "net", "mac": "02:00:00:00:00:07", "cni-args": {"x": 1}}]`)
	p.add().ok()
	p.del().ok()
	wantOdd(t, n.one("rec-a", "ADD"))
	wantOdd(t, n.one("rec-a", "DEL"))
})

var _ = row("B15", func(t *T) {
	n := t.Node()
	outside := filepath.Join(n.dir, "outside")
	n.must(os.Symlink(filepath.Join(t.suite.bin, "recorder"), outside))
	n.api()
	n.works()
	for i, plugin := range []string{"../outside", "./rec-a", outside, "", ".."} {
		nad := fmt.Sprint("net", i)
		n.nad(nad, rec(plugin))
		n.pod(nad).add().failed()
	}
	if _, err := os.Stat(filepath.Join(n.dir, "calls.jsonl")); err == nil || len(n.calls("rec-a")) > 0 {
		t.Error("a program was executed by its path")
	}
})

var _ = row("B16", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a", `"capabilities": {"mac": true, "ips": true}`, `"runtimeConfig": {"mac": "02:00:00:00:00:66"}`,
		`"prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "forged0"}]}`, `"cni.dev/forged": 1`))
	n.works()
	p := n.pod("net")
	if o := p.add(); o.exit != 0 {
		o.failed()
		return
	}
	if c := n.one("rec-a"); strings.Contains(c.Stdin, "forged") || strings.Contains(c.Stdin, ":66") {
		t.Errorf("the plugin gets what only a runtime may say: %s", text(c.conf()))
	}
})

// macvlan and bridge by their names.

const dnsBridge = `{"cniVersion": "1.1.0", "name": "net", "type": "bridge", "bridge": "br0", "isGateway": true, "ipMasq": true,
	"ipam": {"type": "host-local", "dataDir": "$DIR", "subnet": "10.1.1.0/24"}, "dns": {"nameservers": ["10.1.1.53"], "domain": "example.org"}}`

var _ = row("B17", func(t *T) {
	t.Plugin()
	n := t.Node()
	p := n.container()
	r := p.plugin("bridge", "ADD", dnsBridge).result()
	t.want("dns", r.DNS, `{"nameservers":["10.1.1.53"],"domain":"example.org"}`)
	t.want("addresses", n.addresses(p.ns, "eth0"), `["10.1.1.2/24"]`)
	if rules := n.ruleset(); !strings.Contains(rules, "10.1.1.2") {
		t.Errorf("no rule masquerades the pod: %s", rules)
	}
})

var _ = row("B18", func(t *T) {
	t.Plugin()
	n := t.Node()
	p := n.container()
	p.plugin("bridge", "ADD", dnsBridge).ok()
	if rules := n.ruleset(); !strings.Contains(rules, "10.1.1.2") || !strings.Contains(rules, "masquerade") {
		t.Errorf("no rule masquerades the pod: %s", rules)
	}
	p.plugin("bridge", "DEL", dnsBridge).ok()
	if rules := n.ruleset(); strings.Contains(rules, "10.1.1.2") {
		t.Errorf("rules after DEL: %s", rules)
	}
})

var _ = row("B19", func(t *T) {
	t.Plugin()
	n := t.Node()
	for _, bad := range []string{"../bin/rec-ipam", "a/b", filepath.Join(n.bin, "rec-ipam")} {
		p := n.container()
		p.plugin("bridge", "ADD", `{"cniVersion": "1.1.0", "name": "net", "type": "bridge", "ipam": {"type": "`+bad+`"}}`).failed()
		t.want("links of the pod", p.ns.Links(t), "[]")
	}
	n.wantTrace("")
})

var _ = row("B20", func(t *T) {
	t.Plugin()
	n := t.Node()
	p := n.container()
	p.plugin("bridge", "ADD", `{"cniVersion": "1.1.0", "name": "net", "type": "bridge", "example.org/unknown": {"key": 1}}`).ok()
	t.want("links of the pod", p.ns.Links(t), `["eth0"]`)
})

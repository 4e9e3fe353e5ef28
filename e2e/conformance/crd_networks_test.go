//go:build conformance

package conformance

import (
	"fmt"
	"slices"
	"strings"
)

// Rows of section 3: the NetworkAttachmentDefinition object.

// rec is the configuration of a network that a recorder makes, with further keys.
func rec(plugin string, keys ...string) string {
	return fmt.Sprintf(`{"cniVersion": "1.1.0", "type": %q%s}`, plugin, strings.Join(append([]string{""}, keys...), ", "))
}

// list is the configuration of a network of several plugins.
func list(plugins ...string) string {
	return `{"cniVersion": "1.1.0", "plugins": [` + strings.Join(plugins, ", ") + `]}`
}

var _ = row("A1", func(t *T) {
	n := t.Node()
	n.api()
	for name, spec := range map[string]any{"n1": nil, "n2": dict{}, "n3": dict{"config": ""}} {
		n.nadIn(n.namespace, name, spec)
		n.write("conf/10-"+name+".conflist", `{"cniVersion": "1.1.0", "name": "`+name+`", "plugins": [{"type": "rec-a"}]}`)
	}
	p := n.pod("n1,n2,n3")
	p.add().ok()
	p.del().ok()
	for _, command := range []string{"ADD", "DEL"} {
		var names []string
		for _, c := range n.calls("rec-a", command) {
			names = append(names, c.conf()["name"].(string))
		}
		slices.Sort(names)
		t.want("networks of "+command, names, `["n1","n2","n3"]`)
	}
})

var _ = row("A2", func(t *T) {
	n := t.Node()
	n.nad("nameless", rec("rec-a"))
	n.pod("nameless").add().ok()
	t.want("name that the plugin sees", n.one("rec-a").conf()["name"], `"nameless"`)
})

var _ = row("A13", func(t *T) {
	n := t.Node()
	n.nad("single", rec("rec-a"))
	n.nad("several", list(`{"type": "rec-b"}`, `{"type": "rec-c"}`))
	p := n.pod("single,several")
	p.add().ok()
	p.check().ok()
	p.del().ok()
	for plugin, want := range map[string]string{"rec-a": "single", "rec-b": "several", "rec-c": "several"} {
		if len(n.calls(plugin, "ADD")) != 1 || len(n.calls(plugin, "DEL")) != 1 {
			t.Errorf("calls of %s: %s", plugin, trace(n.calls(plugin)))
		}
		for _, c := range n.calls(plugin) {
			t.want("name at "+c.Command+" of "+plugin, c.conf()["name"], fmt.Sprintf("%q", want))
		}
	}
})

func init() {
	notApplicable("it is about plugins that do not delegate", "A3")
}

var _ = row("A4", func(t *T) {
	n := t.Node()
	n.api()
	n.works()
	n.nad("a.b", rec("rec-a")) // the API server allows a subdomain
	for _, name := range []string{"Net_A", "-a", "a-"} {
		for _, networks := range []string{name, `[{"name": "` + name + `"}]`} {
			p := n.pod(networks)
			p.add().failed()
			p.del()
		}
	}
	if added := n.calls("rec-a", "ADD"); len(added) > 0 {
		t.Errorf("networks of invalid names were attached: %s", trace(added))
	}
	// A name with dots is units of labels: one format must not allow what the other forbids.
	comma, json := n.pod("a.b").add(), n.pod(`[{"name": "a.b"}]`).add()
	if (comma.exit == 0) != (json.exit == 0) {
		t.Errorf("the name a.b: exit code %d in the format with commas, %d in JSON", comma.exit, json.exit)
	}
})

var _ = row("A5", func(t *T) {
	n := t.Node()
	for _, length := range []int{63, 64, 253} {
		name := strings.Repeat("n", length)
		if length > 64 { // labels of 63, with dots between
			name = strings.Repeat(strings.Repeat("n", 62)+".", 4) + "n"
		}
		n.nad(name, rec("rec-a", `"name": "`+strings.Repeat("m", min(length, 200))+`"`))
		n.forget()
		p := n.pod(`[{"name": "` + name + `"}]`)
		p.id = strings.Repeat("0123456789abcdef", 4)
		o := p.add()
		if o.exit != 0 {
			o.failed()
			if length == 63 {
				t.Errorf("a name of 63 characters: %s", o.said())
			}
		}
		p.del().ok()
		if added, deleted := n.calls("rec-a", "ADD"), n.calls("rec-a", "DEL"); len(added) > len(deleted) {
			t.Errorf("a name of %d characters: %s", length, trace(n.calls("rec-a")))
		}
	}
})

// onDisk is a NetworkAttachmentDefinition without configuration, and files.
func onDisk(t *T, files ...string) *node {
	n := t.Node()
	n.nadIn(n.namespace, "net", dict{})
	for i := 0; i < len(files); i += 2 {
		n.write("conf/"+files[i], files[i+1])
	}
	return n
}

var _ = row("A6", func(t *T) {
	n := onDisk(t, "10-net.conf", `{"cniVersion": "1.1.0", "name": "net", "type": "rec-a"}`,
		"20-net.conflist", `{"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "rec-b"}]}`)
	n.pod("net").add().ok()
	n.wantTrace("ADD rec-cluster eth0, ADD rec-b net1")
})

var _ = row("A7", func(t *T) {
	n := t.Node()
	n.nad("one", rec("rec-a"))
	n.nad("several", list(`{"type": "rec-a"}`, `{"type": "rec-b"}`))
	for _, name := range []string{"one", "several"} {
		n.write("conf/10-"+name+".conflist", `{"cniVersion": "1.1.0", "name": "`+name+`", "plugins": [{"type": "rec-c"}]}`)
	}
	n.pod("one,several").add().ok()
	n.wantTrace("ADD rec-cluster eth0, ADD rec-a net1, ADD rec-a net2, ADD rec-b net2")
})

var _ = row("A8", func(t *T) {
	n := t.Node()
	for i, config := range []string{
		`{`, `null`, `[]`, `{}`, `"x"`, `{"cniVersion": "1.1.0", "plugins": []}`, `{"cniVersion": "1.1.0", "plugins": [null]}`,
		`{"cniVersion": "1.1.0", "plugins": [{"mode": "x"}]}`, `{"cniVersion": "1.1.0", "type": ""}`,
	} {
		name := fmt.Sprint("bad", i)
		n.nad(name, config)
		p := n.pod(name)
		if p.add().failed(); t.Failed() || t.verdict.Result == fail {
			t.Log(config)
		}
		p.del().ok()
	}
	if called := n.calls("rec-a"); len(called) > 0 {
		t.Errorf("calls: %s", trace(called))
	}
})

var _ = row("A9", func(t *T) {
	n := onDisk(t, "net.conflist", `{"cniVersion": "1.1.0", "name": "other", "plugins": [{"type": "rec-b"}]}`,
		"other.conflist", `{"cniVersion": "1.1.0", "name": "net", "plugins": [{"type": "rec-a"}]}`)
	n.pod("net").add().ok()
	n.wantTrace("ADD rec-cluster eth0, ADD rec-a net1")
})

var _ = row("A10", func(t *T) {
	n := onDisk(t, "net.conf", `{"cniVersion": "1.1.0", "name": "other", "type": "rec-b"}`,
		"other.conf", `{"cniVersion": "1.1.0", "name": "net", "type": "rec-a"}`)
	n.pod("net").add().ok()
	n.wantTrace("ADD rec-cluster eth0, ADD rec-a net1")
})

var _ = row("A11", func(t *T) {
	n := onDisk(t, "other.conf", `{"cniVersion": "1.1.0", "name": "other", "type": "rec-b"}`)
	n.nad("later", rec("rec-a"))
	n.works()
	e := n.pod("net,later").add().failed()
	if !strings.Contains(e.text(), "net") {
		t.Errorf("the error does not name the network: %s", e.text())
	}
	if called := append(n.calls("rec-a"), n.calls("rec-b")...); len(called) > 0 {
		t.Errorf("calls: %s", trace(called))
	}
})

var _ = row("A12", func(t *T) {
	n := t.Node()
	n.api()
	n.works()
	if e := n.pod("nowhere").add().failed(); !strings.Contains(e.text(), "nowhere") {
		t.Errorf("the error does not name the network: %s", e.text())
	}
	n.nad("net", rec("rec-a"))
	p := n.pod("net")
	n.cut()
	n.keys["deadlines"] = deadlines(t, `{"resolve": "2s"}`)
	p.add().failed()
	if added, deleted := n.calls("rec-a", "ADD"), n.calls("rec-a", "DEL"); len(added) > len(deleted) {
		t.Errorf("attached without the API server: %s", trace(n.calls()))
	}
})

// deadlines is the key of Braid's that makes a wait shorter.
func deadlines(t *T, value string) any {
	if !t.suite.impl.own {
		return nil
	}
	return rawJSON(value)
}

var _ = row("A14", otherName)
var _ = row("A15", otherName)

// otherName: the name of the object and that of the CNI network differ.
func otherName(t *T) {
	n := t.Node()
	n.nad("object", rec("rec-a", `"name": "network"`))
	p := n.pod("object")
	p.add().ok()
	t.want("name that the plugin sees", n.one("rec-a").conf()["name"], `"network"`)
	t.want("interface of the status of the object", p.statusOf(n.namespace + "/object")["interface"], `"net1"`)
}

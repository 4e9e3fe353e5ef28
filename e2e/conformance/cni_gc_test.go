//go:build conformance

package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// Rows of section 2 of the CNI specification: STATUS, VERSION and GC.

// global calls a plugin of the node for no container.
func (n *node) globalPlugin(name, command, config string, keys ...any) *outcome {
	n.Helper()
	stdin := []byte(n.expand(config))
	for i := 0; i < len(keys); i += 2 {
		stdin = set(n, stdin, keys[i].(string), keys[i+1])
	}
	return n.exec(filepath.Join(n.bin, name), map[string]string{"CNI_COMMAND": command, "CNI_PATH": n.path}, stdin)
}

// statusFails has a plugin say that it is not available.
func statusFails(code int) string {
	return fmt.Sprintf(`{"STATUS": {"error": {"cniVersion": "1.1.0", "code": %d, "msg": "out of order"}}}`, code)
}

var _ = row("B67", func(t *T) {
	n := t.Node()
	n.api()
	n.global("STATUS").ok()
	n.one("rec-cluster", "STATUS")
	n.pod("").add().ok() // it was ready indeed
})

var _ = row("B68", func(t *T) {
	n := t.Node()
	n.global("STATUS").ok()
	n.script("rec-cluster", statusFails(50))
	n.global("STATUS").failed()
})

var _ = row("B69", func(t *T) {
	n := t.Node()
	n.global("STATUS").ok()
	n.script("rec-cluster", statusFails(50))
	n.global("STATUS").failed()
	if t.suite.impl.plugins {
		socket := filepath.Join(n.dir, "none.sock")
		n.globalPlugin("dhcp", "STATUS", `{"cniVersion": "1.1.0", "name": "net", "type": "dhcp", "ipam": {"type": "dhcp", "daemonSocketPath": "`+socket+`"}}`).failed()
	}
})

const tiny = `{"cniVersion": "1.1.0", "name": "net", "type": "host-local", "ipam": {"type": "host-local", "dataDir": "$DIR",
	"ranges": [[{"subnet": "10.1.1.0/24", "rangeStart": "10.1.1.2", "rangeEnd": "10.1.1.3"}]]}}`

var _ = row("B70", func(t *T) {
	t.Plugin()
	n := t.Node()
	for range 2 {
		n.globalPlugin("host-local", "STATUS", tiny).ok()
		n.container().plugin("host-local", "ADD", tiny).ok()
	}
	n.globalPlugin("host-local", "STATUS", tiny).fails(types.ErrPluginNotAvailable)
})

var _ = row("B71", func(t *T) { statusCode(t, 50) })
var _ = row("B72", func(t *T) { statusCode(t, 51) })
var _ = row("B160", func(t *T) { statusCode(t, 50) })
var _ = row("B161", func(t *T) { statusCode(t, 51) })

// statusCode: the code of the default network's plugin is that of the answer.
func statusCode(t *T, code int) {
	n := t.Node()
	n.script("rec-cluster", statusFails(code))
	n.global("STATUS").fails(uint(code))
}

var _ = row("B73", func(t *T) {
	n := t.Node()
	n.container().add().ok()
	n.wantTrace("ADD rec-cluster eth0")
})

var _ = row("B74", func(t *T) {
	n := t.Node()
	p := n.container()
	p.add().ok()
	n.script("rec-cluster", statusFails(50))
	n.global("STATUS").failed()
	p.check().ok()
	p.del().ok()
	n.container().add().ok()
	n.wantTrace("ADD rec-cluster eth0, STATUS rec-cluster , CHECK rec-cluster eth0, DEL rec-cluster eth0, ADD rec-cluster eth0")
})

var _ = row("B75", func(t *T) {
	n := t.Node()
	n.main(`{"cniVersion": "1.1.0", "name": "cluster", "plugins": [{"type": "rec-a"}, {"type": "rec-b"}]}`)
	n.global("STATUS").ok()
	n.wantTrace("STATUS rec-a , STATUS rec-b ")
	if t.suite.impl.plugins {
		n.forget()
		n.globalPlugin("bridge", "STATUS", ipamBridge).ok()
		n.wantTrace("STATUS rec-ipam ")
	}
})

var _ = row("B76", func(t *T) {
	n := t.Node()
	n.global("STATUS").ok()
	n.script("rec-cluster", statusFails(123))
	n.global("STATUS").failed()
	if t.suite.impl.plugins {
		n.script("rec-ipam", statusFails(51))
		n.globalPlugin("bridge", "STATUS", ipamBridge).fails(types.ErrLimitedConnectivity)
	}
})

var _ = row("B77", func(t *T) {
	n := t.Node()
	n.main(`{"cniVersion": "1.1.0", "name": "cluster", "plugins": [{"type": "rec-a", "key": "value"}]}`)
	n.global("STATUS").ok()
	c := n.one("rec-a", "STATUS").conf()
	t.want("configuration", []any{c["cniVersion"], c["name"], c["type"], c["key"]}, `["1.1.0","cluster","rec-a","value"]`)
})

var _ = row("B78", func(t *T) {
	n := t.Node()
	r := n.exec(t.suite.impl.entry, map[string]string{"CNI_COMMAND": "VERSION"}, nil).raw()
	if list, _ := r["supportedVersions"].([]any); len(list) == 0 || r["cniVersion"] == nil {
		t.Errorf("VERSION: %s", text(r))
	}
})

var _ = row("B79", func(t *T) {
	n := t.Node()
	r := n.exec(t.suite.impl.entry, map[string]string{"CNI_COMMAND": "VERSION"}, []byte(`{"cniVersion": "0.4.0"}`)).raw()
	if list, _ := r["supportedVersions"].([]any); !slices.Contains(list, any("0.4.0")) {
		t.Errorf("VERSION: %s", text(r))
	}
})

var _ = row("B147", func(t *T) {
	n := t.Node()
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		r := n.exec(t.suite.impl.entry, map[string]string{"CNI_COMMAND": "VERSION"}, []byte(`{"cniVersion": "`+version+`"}`)).raw()
		t.want("cniVersion", r["cniVersion"], `"`+version+`"`)
	}
})

var _ = row("B148", func(t *T) {
	n := t.Node()
	r := n.exec(t.suite.impl.entry, map[string]string{"CNI_COMMAND": "VERSION"}, []byte(`{"cniVersion": "1.1.0"}`)).raw()
	list, _ := r["supportedVersions"].([]any)
	if len(list) == 0 {
		t.Fatalf("VERSION: %s", text(r))
	}
	for _, version := range list { // each can be asked for
		n.version = version.(string)
		t.want("version of the result", n.container().add().raw()["cniVersion"], fmt.Sprintf("%q", version))
	}
})

var _ = row("B81", staleGoes)

func init() {
	notApplicable("a permission, which the next row asks to be used", "B80")
	notApplicable("a permission to assume something", "B83")
}

// staleGoes: what is not in the runtime's list is removed, what is stays.
func staleGoes(t *T) {
	n := t.Node()
	kept, stale := n.container(), n.container()
	kept.add().ok()
	stale.add().ok()
	n.forget()
	n.global("GC", valid(kept)).ok()
	removed := func(id string) bool {
		for _, c := range n.calls() {
			list, _ := at(c.conf(), "cni.dev/valid-attachments").([]any)
			listed := slices.ContainsFunc(list, func(a any) bool { return at(a, "containerID") == id })
			if c.Command == "DEL" && c.Env["CNI_CONTAINERID"] == id || c.Command == "GC" && !listed {
				return true
			}
		}
		return false
	}
	if !removed(stale.id) {
		t.Errorf("the attachment that the runtime does not list stays: %s", trace(n.calls()))
	}
	if removed(kept.id) {
		t.Errorf("the attachment that the runtime lists is removed: %s", trace(n.calls()))
	}
}

var _ = row("B82", func(t *T) {
	t.Plugin()
	n := t.Node()
	kept, stale := n.container(), n.container()
	kept.plugin("host-local", "ADD", hostLocal).ok()
	stale.plugin("host-local", "ADD", hostLocal).ok()
	n.globalPlugin("host-local", "GC", hostLocal, "cni.dev/valid-attachments", []types.GCAttachment{valid(kept)}).ok()
	t.want("reservations", n.reservations(), `["10.1.1.2"]`)
})

const gcFails = `{"GC": {"error": {"cniVersion": "1.1.0", "code": 123, "msg": "busy"}}}`

var _ = row("B84", gcGoesOn)
var _ = row("B114", gcGoesOn)

// gcGoesOn: an error does not keep the rest from being told, and is reported.
func gcGoesOn(t *T) {
	n := t.Node()
	n.main(`{"cniVersion": "1.1.0", "name": "cluster", "plugins": [{"type": "rec-a"}, {"type": "rec-b"}]}`)
	p := n.container()
	p.add().ok()
	n.script("rec-a", gcFails)
	if e := n.global("GC", valid(p)).failed(); !strings.Contains(e.text(), "busy") {
		t.Errorf("the error does not say why: %s", e.text())
	}
	n.one("rec-b", "GC")
}

var _ = row("B85", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a"))
	p := n.pod("net")
	p.add().ok()
	n.global("GC", valid(p)).ok()
	n.one("rec-cluster", "GC")
	list, _ := at(n.one("rec-a", "GC").conf(), "cni.dev/valid-attachments").([]any)
	t.want("valid attachments of the pod's network", list, fmt.Sprintf(`[{"containerID":%q,"ifname":"net1"}]`, p.id))
	if t.suite.impl.plugins {
		n.forget()
		n.globalPlugin("bridge", "GC", ipamBridge, "cni.dev/valid-attachments", []types.GCAttachment{}).ok()
		n.one("rec-ipam", "GC")
	}
})

var _ = row("B86", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a"))
	p := n.pod("net")
	p.add().ok()
	p.del().ok()
	n.wantTrace("DEL rec-a net1, DEL rec-cluster eth0", "DEL")
	n.wantTrace("", "GC")
})

var _ = row("B87", validList)
var _ = row("B120", validList)

// validList: the plugins of the network get what is valid, and nothing else.
func validList(t *T) {
	n := t.Node()
	kept, stale := n.container(), n.container()
	kept.add().ok()
	stale.add().ok()
	n.global("GC", valid(kept)).ok()
	t.want("valid attachments", at(n.one("rec-cluster", "GC").conf(), "cni.dev/valid-attachments"), fmt.Sprintf(`[{"containerID":%q,"ifname":"eth0"}]`, kept.id))
}

var _ = row("B88", func(t *T) {
	n := t.Node()
	p := n.container()
	p.add().ok()
	n.global("GC", valid(p)).ok()
	n.one("rec-cluster", "GC")
	n.exec(t.suite.impl.entry, map[string]string{"CNI_COMMAND": "GC"}, n.entry()).failed() // CNI_PATH is required
})

var _ = row("B89", func(t *T) {
	n := t.Node()
	p := n.container()
	p.add().ok()
	if o := n.global("GC", valid(p)).ok(); o.stdout != "" {
		t.Errorf("standard output: %q", o.stdout)
	}
})

var _ = row("B113", func(t *T) {
	n := t.Node()
	p := n.container()
	p.add().ok()
	n.global("GC", valid(p)).ok()
	for _, name := range []string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"} {
		if value := n.one("rec-cluster", "GC").Env[name]; value != "" {
			t.Errorf("%s is %q at GC", name, value)
		}
	}
})

var _ = row("B99", func(t *T) {
	n := bridged(t)
	p := n.container()
	p.add().ok()
	p.del().ok()
	p.add().ok()
	n.global("GC").exitIsNoMatter()
	before, err := os.Stat(p.ns.Path())
	n.must(err)
	p.ns.Do(t, func() {
		now, err := os.Stat("/proc/thread-self/ns/net")
		n.must(err)
		if !os.SameFile(before, now) {
			t.Error("the path leads to another namespace")
		}
	})
})

// exitIsNoMatter is for calls whose success another row asks about.
func (o *outcome) exitIsNoMatter() {}

//go:build conformance

package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Rows of section 3 of the CNI specification: lifecycle, chains, derived configurations.

// parallel calls ADD for many containers at once.
func parallel(n *node, count int, add func(p *pod) *outcome) (found []*outcome) {
	pods := make([]*pod, count)
	for i := range pods {
		pods[i] = n.container()
	}
	found = make([]*outcome, count)
	var wg sync.WaitGroup
	for i, p := range pods {
		wg.Go(func() { found[i] = add(p) })
	}
	wg.Wait()
	return found
}

// wantDifferent addresses in results.
func wantDifferent(t *T, outcomes []*outcome) {
	t.Helper()
	seen := map[string]bool{}
	for _, o := range outcomes {
		if o == nil {
			t.Fatal("a call did not come to its end")
		}
		seen[text(at(o.raw(), "ips", 0, "address"))] = true
	}
	if len(seen) != len(outcomes) {
		t.Errorf("%d containers have %d addresses", len(outcomes), len(seen))
	}
}

// overlap returns two calls that ran at the same time, as a message.
func overlap(calls []call, which func(a, b call) bool) string {
	for i, a := range calls {
		for _, b := range calls[i+1:] {
			if which(a, b) && b.Start < a.End {
				return fmt.Sprintf("%s and %s", trace([]call{a}), trace([]call{b}))
			}
		}
	}
	return ""
}

var _ = row("B91", func(t *T) {
	n := bridged(t)
	wantDifferent(t, parallel(n, 6, (*pod).add))
	if !t.suite.impl.own {
		return
	}
	// More than the clause: a runtime that does not wait for an ADD is made to.
	n = t.Node()
	n.script("rec-cluster", `{"ADD": {"sleepMS": 600}, "DEL": {"sleepMS": 100}}`)
	p := n.container()
	var wg sync.WaitGroup
	wg.Go(func() { p.call("ADD") })
	until(t, func() bool { return busy(n, "ADD") })
	p.call("DEL")
	wg.Wait()
	if two := overlap(n.calls(), func(a, b call) bool { return true }); two != "" {
		t.Errorf("at the same time, of one container: %s", two)
	}
})

// busy says whether a recorder runs a command right now, from /proc.
func busy(n *node, command string) bool {
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	n.must(err)
	for _, path := range paths {
		exe, err := os.Readlink(filepath.Join(filepath.Dir(path), "exe"))
		if err != nil || filepath.Base(exe) != "recorder" {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err != nil || !strings.HasPrefix(string(cmdline), n.bin+"/") {
			continue
		}
		if env, err := os.ReadFile(path); err == nil && slices.Contains(strings.Split(string(env), "\x00"), "CNI_COMMAND="+command) {
			return true
		}
	}
	return false
}

// until waits for something to come true.
func until(t *T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come true within 20 s")
		}
	}
}

var _ = row("B92", exclusive)
var _ = row("B93", exclusive)

// exclusive: GC runs alone.
func exclusive(t *T) {
	if !t.suite.impl.own {
		t.NotApplicable("the container runtime sees to it; Braid does too, and only that can be asked of a plugin")
	}
	n := t.Node()
	n.container().add().ok()
	n.forget()
	n.script("rec-cluster", `{"ADD": {"sleepMS": 600}, "GC": {"sleepMS": 600}}`)
	during := func(first, second func(), command string) {
		var wg sync.WaitGroup
		wg.Go(first)
		until(t, func() bool { return busy(n, command) })
		second()
		wg.Wait()
	}
	added, other := n.container(), n.container()
	add := func(p *pod) func() { return func() { p.call("ADD") } }
	gc := func() { n.global("GC", valid(added), valid(other)) }
	during(add(added), gc, "ADD")
	during(gc, add(other), "GC")
	if len(n.calls("GC")) == 0 || len(n.calls("ADD")) != 2 {
		t.Fatalf("calls: %s", trace(n.calls()))
	}
	if two := overlap(n.calls(), func(a, b call) bool { return a.Command != b.Command }); two != "" {
		t.Errorf("at the same time: %s", two)
	}
}

var _ = row("B94", func(t *T) {
	t.Plugin()
	n := t.Node()
	wantDifferent(t, parallel(n, 12, func(p *pod) *outcome { return p.plugin("bridge", "ADD", dnsBridge) }))
	if bridges := n.links("bridge"); len(bridges) != 1 {
		t.Errorf("bridges: %q", bridges)
	}
})

var _ = row("B95", func(t *T) {
	n, p := threeNetworks(t)
	n.script("rec-b", failing)
	p.add().failed()
	p.del().ok()
	for _, plugin := range []string{"rec-b", "rec-a", "rec-cluster"} {
		if len(n.calls(plugin, "DEL")) == 0 {
			t.Errorf("no DEL of %s after the ADD failed", plugin)
		}
	}
})

var _ = row("B97", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a", `"mark": 1`))
	p := n.pod("net")
	p.add().ok()
	n.deleteNAD("net")
	n.nad("net", rec("rec-a", `"mark": 2`))
	p.del().ok()
	t.want("mark at DEL", n.one("rec-a", "DEL").conf()["mark"], "1")
})

var _ = row("B100", func(t *T) {
	n := t.Node()
	n.path = "/nonexistent:" + n.bin
	p := n.container()
	p.add().ok()
	p.del().ok()
	n.one("rec-cluster", "DEL")
	for _, c := range n.calls() {
		if !slices.Contains(filepath.SplitList(c.Env["CNI_PATH"]), n.bin) {
			t.Errorf("CNI_PATH of %s: %q", c.Command, c.Env["CNI_PATH"])
		}
	}
})

var _ = row("B101", func(t *T) {
	n := t.Node()
	n.works()
	n.main(`{"cniVersion": "1.1.0", "name": "cluster", "plugins": [{"type": "rec-a"}, {"type": "nowhere"}]}`)
	if e := n.container().add().failed(); !strings.Contains(e.text(), "nowhere") {
		t.Errorf("the error does not name the plugin: %s", e.text())
	}
})

// threePlugins is a pod whose default network is made by three plugins, the second of which changes the result.
func threePlugins(t *T) (*node, *pod) {
	n := t.Node()
	n.main(`{"cniVersion": "1.1.0", "name": "cluster", "plugins": [{"type": "rec-a"}, {"type": "rec-b"}, {"type": "rec-c"}]}`)
	n.script("rec-b", `{"ADD": {"result": `+full+`}}`)
	return n, n.container()
}

var _ = row("B102", func(t *T) {
	n, p := threePlugins(t)
	p.add().ok()
	if prev, found := n.one("rec-a", "ADD").conf()["prevResult"]; found {
		t.Errorf("prevResult of the first plugin: %s", text(prev))
	}
})

var _ = row("B103", func(t *T) {
	n, p := threePlugins(t)
	p.add().ok()
	t.want("address that the second plugin sees", at(n.one("rec-b").conf(), "prevResult", "ips", 0, "address"), `"10.9.0.2/24"`)
	t.want("address that the third plugin sees", at(n.one("rec-c").conf(), "prevResult", "ips", 0, "address"), `"10.1.1.9/24"`)
})

var _ = row("B104", func(t *T) {
	n, p := threePlugins(t)
	n.script("rec-b", failing)
	p.add().fails(123)
	if called := n.calls("rec-c", "ADD"); len(called) > 0 {
		t.Error("the plugin after the error was called")
	}
})

var _ = row("B105", func(t *T) {
	n, p := threePlugins(t)
	p.add().ok()
	p.check().ok() // by another process
	p.del().ok()
	for _, c := range append(n.calls("CHECK"), n.calls("DEL")...) {
		t.want("prevResult at "+c.Command, at(c.conf(), "prevResult", "ips", 0, "address"), `"10.1.1.9/24"`)
	}
	if len(n.calls("CHECK")) != 3 || len(n.calls("DEL")) != 3 {
		t.Errorf("calls: %s", trace(n.calls()))
	}
})

var _ = row("B106", func(t *T) {
	n, p := threePlugins(t)
	p.add().ok()
	p.del().ok()
	n.wantTrace("DEL rec-c eth0, DEL rec-b eth0, DEL rec-a eth0", "DEL")
})

var _ = row("B107", func(t *T) {
	n, p := threePlugins(t)
	p.add().ok()
	p.del().ok()
	for _, plugin := range []string{"rec-a", "rec-b", "rec-c"} {
		t.want("prevResult of "+plugin, at(n.one(plugin, "DEL").conf(), "prevResult", "ips", 0, "address"), `"10.1.1.9/24"`)
	}
})

var _ = row("B108", func(t *T) {
	n, p := threePlugins(t)
	p.add().ok()
	n.script("rec-c", `{"DEL": {"error": {"cniVersion": "1.1.0", "code": 123, "msg": "busy"}}}`)
	p.del().failed()
	t.want("CNI_COMMAND", n.one("rec-c", "DEL").Env["CNI_COMMAND"], `"DEL"`)
})

var _ = row("B112", func(t *T) {
	n := t.Node()
	n.main(`{"cniVersion": "0.3.1", "name": "cluster", "type": "rec-cluster"}`)
	p := n.container()
	p.add().ok()
	p.check().ok()
	if called := n.calls("CHECK"); len(called) > 0 {
		t.Errorf("a plugin of 0.3.1 was told to CHECK: %s", trace(called))
	}
	p.del().ok()
	n.one("rec-cluster", "DEL")
})

var _ = row("B115", func(t *T) {
	n := t.Node()
	n.nad("net", `{"cniVersion": "0.4.0", "plugins": [{"type": "rec-a"}, {"type": "rec-b", "cniVersion": "1.0.0"}]}`)
	n.pod("net").add().ok()
	for _, plugin := range []string{"rec-a", "rec-b"} {
		t.want("cniVersion of "+plugin, n.one(plugin).conf()["cniVersion"], `"0.4.0"`)
	}
})

var _ = row("B116", func(t *T) {
	n := t.Node()
	n.nad("net", `{"cniVersion": "1.1.0", "name": "network", "plugins": [{"type": "rec-a"}, {"type": "rec-b", "name": "other"}]}`)
	n.pod("net").add().ok()
	for _, plugin := range []string{"rec-a", "rec-b"} {
		t.want("name of "+plugin, n.one(plugin).conf()["name"], `"network"`)
	}
})

var _ = row("B117", func(t *T) {
	n := t.Node()
	n.nad("net", list(`{"type": "rec-a", "capabilities": {"mac": true, "portMappings": true, "ips": false}}`,
		`{"type": "rec-b", "capabilities": {"ips": true}}`, `{"type": "rec-c"}`))
	n.pod(`[{"name": "net", "mac": "02:00:00:00:00:07", "ips": ["10.1.1.9/24"]}]`).add().ok()
	for plugin, want := range map[string]string{"rec-a": `{"mac":"02:00:00:00:00:07"}`, "rec-b": `{"ips":["10.1.1.9/24"]}`, "rec-c": "null"} {
		t.want("runtimeConfig of "+plugin, n.one(plugin).conf()["runtimeConfig"], want)
	}
})

var _ = row("B118", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a", `"prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "forged0"}]}`))
	n.works()
	if o := n.pod("net").add(); o.exit != 0 {
		o.failed()
	} else if prev := n.one("rec-a").conf()["prevResult"]; prev != nil {
		t.Errorf("prevResult of the first plugin: %s", text(prev))
	}
})

var _ = row("B119", func(t *T) {
	n := t.Node()
	n.main(`{"cniVersion": "1.1.0", "name": "cluster", "type": "rec-cluster", "capabilities": {"ips": true}}`)
	p := n.container()
	p.add().ok()
	p.check().ok()
	p.del().ok()
	n.one("rec-cluster", "ADD")
	for _, c := range n.calls() {
		if value, found := c.conf()["capabilities"]; found {
			t.Errorf("capabilities at %s: %s", c.Command, text(value))
		}
	}
})

var _ = row("B121", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a", odd, `"example.org/key": {"a": 1}`))
	p := n.pod("net")
	p.add().ok()
	p.del().ok()
	n.one("rec-a", "DEL")
	for _, c := range n.calls("rec-a") {
		wantOdd(t, c)
		t.want("example.org/key", c.conf()["example.org/key"], `{"a":1}`)
	}
})

var _ = row("B122", func(t *T) {
	n := t.Node()
	n.main(`{"cniVersion": "1.1.0", "name": "cluster", "type": "rec-cluster", "capabilities": {"portMappings": true, "ips": true}}`)
	n.keys["capabilities"] = rawJSON(`{"portMappings": true, "ips": true, "mac": true}`)
	n.keys["runtimeConfig"] = rawJSON(`{"ips": ["10.244.0.7/24"], "mac": "02:00:00:00:00:07", "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}`)
	n.container().add().ok()
	t.want("runtimeConfig", n.one("rec-cluster").conf()["runtimeConfig"],
		`{"ips":["10.244.0.7/24"],"portMappings":[{"containerPort":80,"hostPort":8080,"protocol":"tcp"}]}`)
})

//go:build conformance

package conformance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// Rows of section 6, the cluster-wide default network, section 7, the runtime, and section 8, IPAMClaim.

var _ = row("A127", func(t *T) {
	n := t.Node()
	n.script("rec-cluster", `{"ADD": {"result": {"cniVersion": "$VERSION", "interfaces": [{"name": "$IFNAME", "sandbox": "$NETNS"}],
		"ips": [{"address": "10.244.0.7/24", "interface": 0}]}}}`)
	n.nad("net", rec("rec-a"))
	for _, p := range []*pod{n.pod(""), n.pod("net"), n.podIn("kube-system", dict{})} {
		r := p.add().result()
		if len(r.Interfaces) == 0 || r.Interfaces[0].Name != "eth0" {
			t.Errorf("the result does not begin with the default network: %s", text(r))
		}
		if len(r.IPs) == 0 || r.IPs[0].Address.String() != "10.244.0.7/24" {
			t.Errorf("the first address is not that of the default network: %s", text(r))
		}
	}
	if added := n.calls("rec-cluster", "ADD"); len(added) != 3 {
		t.Errorf("three pods, and %s", trace(added))
	}
})

var _ = row("A128", func(t *T) {
	n := t.Node()
	n.pod("").add().ok()
	n.nad("main", rec("rec-a"))
	conf := n.write("main/10-main.conflist", `{"cniVersion": "1.1.0", "name": "main", "plugins": [{"type": "rec-b"}]}`)
	n.keys["multusNamespace"] = n.namespace
	for _, network := range []string{"main", conf, filepath.Dir(conf)} {
		n.keys["clusterNetwork"] = network
		n.pod("").add().ok()
	}
	n.wantTrace("ADD rec-cluster eth0, ADD rec-a eth0, ADD rec-b eth0, ADD rec-b eth0")
})

var _ = row("A129", firstDefault)
var _ = row("A137", firstDefault)

// firstDefault: no network of the pod begins before the default network is done.
func firstDefault(t *T) {
	n := t.Node()
	n.script("rec-cluster", `{"ADD": {"sleepMS": 100}}`)
	n.nad("a", rec("rec-a"))
	n.nad("b", rec("rec-b"))
	n.pod("a,b").add().ok()
	n.wantTrace("ADD rec-cluster eth0, ADD rec-a net1, ADD rec-b net2")
	first := n.one("rec-cluster")
	for _, c := range n.calls() {
		if c.Type != first.Type && c.Start < first.End {
			t.Errorf("%s begins before the default network is attached", c.Type)
		}
	}
}

var _ = row("A130", func(t *T) {
	n := routed(t)
	plain, p := n.pod(""), n.pod(`[{"name": "gw", "default-route": ["10.20.0.1"]}]`)
	plain.add().ok()
	t.want("default routes without the key", plain.defaultRoutes(netlink.FAMILY_V4), `["via 10.244.0.1 dev eth0"]`)
	p.add().ok()
	t.want("default routes with the key", p.defaultRoutes(netlink.FAMILY_V4), `["via 10.20.0.1 dev net1"]`)
})

// installer runs Braid's installer on folders of a node, in the background.
func installer(t *T) (n *node, confDir string, done <-chan error) {
	if !t.suite.impl.own {
		t.NotApplicable("an entry binary does not install itself")
	}
	n = t.Node()
	confDir = filepath.Join(n.dir, "net.d")
	n.must(os.MkdirAll(confDir, 0o755))
	kubeconfig := n.write("kubeconfig", "")
	cmd := exec.CommandContext(t.Context(), filepath.Join(t.suite.bin, "braidd"), "install", "--bin-dir", filepath.Join(n.dir, "opt"), "--conf-dir", confDir,
		"--networks-dir", filepath.Join(n.dir, "networks"), "--cni-dir", filepath.Join(n.dir, "state"), "--kubeconfig", kubeconfig, "--primary-wait", "20s")
	out := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = out, out
	n.must(cmd.Start())
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		ended <- err
	}()
	return n, confDir, ended
}

const primary = `{"cniVersion": "1.0.0", "name": "primary", "plugins": [{"type": "rec-cluster"}]}`

var _ = row("A131", untilPrimary)
var _ = row("A134", untilPrimary)

// untilPrimary: the configuration is not there before that of the default network.
func untilPrimary(t *T) {
	n, confDir, done := installer(t)
	for range 10 {
		time.Sleep(100 * time.Millisecond)
		if ours, _ := filepath.Glob(confDir + "/*braid*.conf*"); len(ours) > 0 {
			t.Fatalf("%s is there before the default network", ours)
		}
	}
	n.write("net.d/10-primary.conflist", primary)
	n.must(<-done)
	if ours, _ := filepath.Glob(confDir + "/*braid*.conflist"); len(ours) != 1 {
		t.Errorf("configurations after the default network is there: %q", ours)
	}
}

var _ = row("A135", func(t *T) {
	n, confDir, done := installer(t)
	n.write("net.d/01-primary.conflist", primary)
	n.must(<-done)
	files, err := filepath.Glob(confDir + "/*.conf*") // sorted, as runtimes do
	n.must(err)
	if len(files) != 2 || !strings.Contains(filepath.Base(files[0]), "braid") {
		t.Errorf("configurations: %q", files)
	}
})

var _ = row("A132", func(t *T) {
	n := t.Node()
	n.keys["readinessindicatorfile"] = n.write("ready", "")
	p := n.pod("")
	began := time.Now()
	p.add().ok()
	n.one("rec-cluster", "ADD")
	if waited := time.Since(began); waited > 20*time.Second {
		t.Errorf("the ADD took %v although the default network was ready", waited)
	}
})

var _ = row("A136", func(t *T) {
	n := t.Node()
	ready := filepath.Join(n.dir, "ready")
	n.keys["readinessindicatorfile"] = ready
	p := n.pod("")
	go func() {
		time.Sleep(1500 * time.Millisecond)
		_ = os.WriteFile(ready, nil, 0o600) // the ADD fails if it fails
	}()
	p.add().ok()
	info, err := os.Stat(ready)
	n.must(err)
	if c := n.one("rec-cluster", "ADD"); c.Start < info.ModTime().UnixNano() {
		t.Error("the default network was attached before it was ready")
	}
	n.must(os.Remove(ready))
	n.forget()
	if o := p.del(); o.exit == 0 && len(n.calls("DEL")) == 1 {
		t.Differs("ADD waits; DEL does not: CNI wants it to be done with what is there")
	}
})

func init() {
	notApplicable("a recommendation for who sets up the node", "A133")
	notApplicable("it is about plugins that keep IPAMClaims", "A149", "A151", "A152")
}

// stepwise is the start of every chain's rows: a pod with networks of three recorders.
func threeNetworks(t *T) (*node, *pod) {
	n := t.Node()
	for _, name := range []string{"a", "b", "c"} {
		n.nad(name, rec("rec-"+name))
	}
	return n, n.pod("a,b,c")
}

var _ = row("A138", func(t *T) {
	n := t.Node()
	n.nad("net", list(`{"type": "rec-a"}`, `{"type": "rec-b"}`, `{"type": "rec-c"}`))
	p := n.pod("net")
	p.add().ok()
	p.del().ok()
	n.wantTrace("ADD rec-cluster eth0, ADD rec-a net1, ADD rec-b net1, ADD rec-c net1", "ADD")
	n.wantTrace("DEL rec-c net1, DEL rec-b net1, DEL rec-a net1, DEL rec-cluster eth0", "DEL")
	if n.one("rec-a", "ADD").conf()["prevResult"] != nil {
		t.Error("the first plugin has a prevResult")
	}
	t.want("prevResult of the second", at(n.one("rec-b", "ADD").conf(), "prevResult", "interfaces", 0, "name"), `"net1"`)
})

var _ = row("A139", func(t *T) {
	n := t.Node()
	n.nad("net", `{"cniVersion": "0.4.0", "name": "network", "plugins": [{"type": "rec-a"}, {"type": "rec-b", "name": "x", "cniVersion": "0.3.1"}]}`)
	p := n.pod("net")
	p.add().ok()
	p.del().ok()
	n.one("rec-b", "ADD")
	for _, c := range append(n.calls("rec-a"), n.calls("rec-b")...) {
		t.want("name and cniVersion at "+c.Command+" of "+c.Type, []any{c.conf()["name"], c.conf()["cniVersion"]}, `["network","0.4.0"]`)
	}
})

const failing = `{"ADD": {"error": {"cniVersion": "1.1.0", "code": 123, "msg": "no room left"}}}`

var _ = row("A140", func(t *T) {
	n, p := threeNetworks(t)
	n.script("rec-b", failing)
	if e := p.add().failed(); !strings.Contains(e.text(), "no room left") {
		t.Errorf("the error does not say why: %s", e.text())
	}
})

var _ = row("A141", func(t *T) {
	n, p := threeNetworks(t)
	n.script("rec-b", failing)
	p.add().failed()
	n.one("rec-a", "ADD")
	if called := n.calls("rec-c", "ADD"); len(called) > 0 {
		t.Errorf("the network after the failure was attempted: %s", trace(called))
	}
})

var _ = row("A142", func(t *T) {
	n, p := threeNetworks(t)
	n.script("rec-b", failing)
	p.add().failed()
	p.del().ok()
	for _, plugin := range []string{"rec-cluster", "rec-a", "rec-b"} {
		if len(n.calls(plugin, "DEL")) == 0 {
			t.Errorf("%s was attempted, and not torn down", plugin)
		}
	}
	// What could not be torn down is tried again.
	n, p = threeNetworks(t)
	p.add().ok()
	n.script("rec-b", `{"DEL": {"error": {"cniVersion": "1.1.0", "code": 123, "msg": "busy"}}}`)
	p.del().failed()
	n.script("rec-b", `{}`)
	n.forget()
	p.delete()
	p.del().ok()
	if len(n.calls("rec-b", "DEL")) != 1 {
		t.Error("a second DEL forgets the network whose teardown failed")
	}
})

var _ = row("A143", func(t *T) {
	n, p := threeNetworks(t)
	p.add().ok()
	n.script("rec-b", `{"DEL": {"error": {"cniVersion": "1.1.0", "code": 123, "msg": "busy"}}}`)
	p.del()
	for _, plugin := range []string{"rec-cluster", "rec-a", "rec-b", "rec-c"} {
		if len(n.calls(plugin, "DEL")) != 1 {
			t.Errorf("%s: %d calls of DEL, want 1", plugin, len(n.calls(plugin, "DEL")))
		}
	}
})

var _ = row("A144", func(t *T) {
	n, p := threeNetworks(t)
	p.add().ok()
	n.script("rec-b", `{"DEL": {"error": {"cniVersion": "1.1.0", "code": 123, "msg": "busy"}}}`)
	if e := p.del().failed(); !strings.Contains(e.text(), "busy") {
		t.Errorf("the error does not say why: %s", e.text())
	}
})

var _ = row("A145", func(t *T) {
	n, p := threeNetworks(t)
	for _, plugin := range []string{"rec-cluster", "rec-a", "rec-b", "rec-c"} {
		n.script(plugin, `{"ADD": {"sleepMS": 50}, "DEL": {"sleepMS": 50}}`)
	}
	p.add().ok()
	p.del().ok()
	all := n.calls()
	for i := 1; i < len(all); i++ {
		if all[i].Start < all[i-1].End {
			t.Errorf("%s begins before %s ends", trace(all[i:i+1]), trace(all[i-1:i]))
		}
	}
	if t.suite.impl.own {
		t.Differs("plugins that are executed run one after the other; own ones, which are made for it, overlap while they wait")
	}
})

var _ = row("A146", isolation)
var _ = row("A147", isolation)

// isolation: with namespaceIsolation, a pod's networks are of its own namespace or of a global one.
func isolation(t *T) {
	n := t.Node()
	other := n.otherNamespace()
	n.keys["namespaceIsolation"] = true
	n.nad("own", rec("rec-a"))
	n.nadIn(other, "foreign", dict{"config": rec("rec-b")})
	n.pod("own").add().ok()
	n.forget()
	p := n.pod("own," + other + "/foreign")
	p.add().failed()
	p.del().ok()
	if len(n.calls("rec-b")) > 0 {
		t.Error("the network of the other namespace was attached")
	}
	if added, deleted := n.calls("ADD"), n.calls("DEL"); len(added) > len(deleted) {
		t.Errorf("attached and not detached: %s", trace(n.calls()))
	}
	n.keys["globalNamespaces"] = other
	n.pod(other + "/foreign").add().ok()
	n.one("rec-b", "ADD")
}

var _ = row("A148", func(t *T) {
	n := t.Node()
	able := `"capabilities": {"ips": true, "mac": true, "portMappings": true, "bandwidth": true}`
	n.keys["delegates"] = []any{rawJSON(`{"cniVersion": "1.1.0", "name": "cluster", "type": "rec-cluster", ` + able + `}`)}
	n.nad("net", rec("rec-a", able))
	n.keys["runtimeConfig"] = rawJSON(`{"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}], "bandwidth": {"ingressRate": 8000, "ingressBurst": 8000}}`)
	n.pod("net").add().ok()
	t.want("hostPort that the default network sees", at(n.one("rec-cluster").conf(), "runtimeConfig", "portMappings", 0, "hostPort"), "8080")
	if r := at(n.one("rec-a").conf(), "runtimeConfig"); r != nil {
		t.Errorf("another network gets what the runtime asks of the default network: %s", text(r))
	}
})

var _ = row("A150", func(t *T) {
	n := t.Node()
	n.nad("main", rec("rec-a"))
	n.works()
	p := n.podIn(n.namespace, dict{"v1.multus-cni.io/default-network": `[{"name": "main", "namespace": "$NS", "ipam-claim-reference": "claim"}]`})
	if o := p.add(); o.exit != 0 {
		o.failed()
		return
	}
	if strings.Contains(n.one("rec-a").Stdin, "claim") {
		t.Error("a claim on the default network is handed on")
		return
	}
	t.NotApplicable("it is about plugins that keep IPAMClaims; the key is not handed on")
})

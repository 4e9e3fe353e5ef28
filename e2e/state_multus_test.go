package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/internal/refplugins"
)

// Pods that were there before Braid: their networks, by the plugins of the reference.
var beforeBraid = []struct{ name, ifName, config string }{
	{"cluster", "eth0", `{"cniVersion": "1.0.0", "name": "cluster", "type": "bridge", "bridge": "cluster0", "isDefaultGateway": true,
		"ipam": {"type": "host-local", "dataDir": "$DIR", "ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:244::/64"}]]}}`},
	{"storage", "net1", `{"cniVersion": "1.0.0", "name": "storage", "plugins": [{"type": "bridge", "bridge": "storage0",
		"ipam": {"type": "host-local", "dataDir": "$DIR", "subnet": "10.10.0.0/24"}}, {"type": "tuning"}]}`},
	{"lan", "lan0", `{"cniVersion": "1.0.0", "name": "lan", "type": "macvlan", "master": "$NIC",
		"ipam": {"type": "host-local", "dataDir": "$DIR", "subnet": "10.30.0.0/24"}}`},
}

// newNodeBeforeBraid is one whose default network is what it was before.
func newNodeBeforeBraid(t *testing.T) *node {
	n := newNode(t)
	t.Cleanup(n.removeBridges)
	n.reference()
	n.keys += `, "delegates": [` + beforeBraid[0].config + `]`
	n.nad("blue", "storage", beforeBraid[1].config)
	n.nad("blue", "lan", beforeBraid[2].config)
	return n
}

// made makes the networks of a pod as Multus does, by way of libcni with a cache in its own folder, and returns the result
// that the runtime has got.
func (p *pod) made() *types100.Result {
	p.t.Helper()
	multus := libcni.NewCNIConfigWithCacheDir([]string{refplugins.Dir(p.t)}, filepath.Join(p.dir, "braid"), nil)
	var first *types100.Result
	for _, network := range beforeBraid {
		rt := p.runtimeConf()
		rt.IfName = network.ifName
		res, err := addBy(multus, p, []byte(p.expand(network.config)), rt)
		if err != nil {
			p.t.Fatal(err)
		}
		if first == nil {
			if first, err = types100.NewResultFromResult(res); err != nil {
				p.t.Fatal(err)
			}
		}
	}
	scratch := filepath.Join(p.dir, "braid", "c-"+p.name)
	if err := os.WriteFile(scratch, []byte(`[{"Conf":{"name":"cluster"}}]`), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return first
}

// addBy makes one network, by a list of plugins or by a single one.
func addBy(c *libcni.CNIConfig, p *pod, config []byte, rt *libcni.RuntimeConf) (types.Result, error) {
	if bytes.Contains(config, []byte(`"plugins"`)) {
		list, err := libcni.NetworkConfFromBytes(config)
		if err != nil {
			return nil, err
		}
		return c.AddNetworkList(p.t.Context(), list, rt)
	}
	single, err := libcni.NetworkPluginConfFromBytes(config)
	if err != nil {
		return nil, err
	}
	return c.AddNetwork(p.t.Context(), single, rt)
}

// remembered has the runtime's cache have the result of an ADD, as it does whoever made it.
func (p *pod) remembered(res *types100.Result) {
	p.t.Helper()
	b, err := json.Marshal(res)
	if err != nil {
		p.t.Fatal(err)
	}
	text := fmt.Sprintf(`{"kind": "cniCacheV1", "containerId": "c-%s", "ifName": "eth0", "networkName": "pods", "config": "e30=", "result": %s}`,
		p.name, b)
	path := filepath.Join(p.cache, "results", "pods-c-"+p.name+"-eth0")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// afterMultus is a node on which Multus has made pods by the function, and that has Braid now.
func afterMultus(t *testing.T, n *node, add func(*pod) *types100.Result) {
	all := []string{"10.244.0.%d", "fd00:244::%d", "10.10.0.%d", "10.30.0.%d"}
	wantReservations := func(what string, host int, want bool) {
		t.Helper()
		for _, format := range all {
			address := fmt.Sprintf(format, host)
			if left := n.has(address); len(left) > 0 != want {
				t.Errorf("%s: %s is reserved: %t, want %t", what, address, !want, want)
			}
		}
	}
	stays, goes, dies := n.pod("stays", "storage,lan@lan0"), n.pod("goes", "storage,lan@lan0"), n.pod("dies", "storage,lan@lan0")
	for _, p := range []*pod{stays, goes, dies} {
		p.remembered(add(p))
	}
	links := stays.ns.Links(t)
	slices.Sort(links)
	if !slices.Equal(links, []string{"eth0", "lan0", "net1"}) {
		t.Fatalf("links: %q", links)
	}
	// Now Braid. A new pod gets other addresses, and nothing of those that are there is touched, by GC and sweep either.
	fresh := n.pod("fresh", "storage,lan@lan0")
	fresh.mustAdd()
	if err := fresh.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	wantReservations("new pod", 5, true)
	if err := n.gc(stays, goes, dies, fresh); err != nil {
		t.Errorf("GC: %v", err)
	}
	n.sweep([]delegate.Known{})
	for host, what := range map[int]string{2: "stays", 3: "goes", 4: "dies"} {
		wantReservations("GC and sweep, pod "+what, host, true)
	}
	wantError(t, "CHECK of a pod of Multus", stays.check(), "no interface eth0 of this network")

	goes.mustDel()
	wantReservations("DEL", 3, false)
	dies.ns.Remove(t)
	if err := dies.del(); err != nil {
		t.Errorf("DEL without the namespace: %v", err)
	}
	wantReservations("DEL without the namespace", 4, false)
	for range 2 {
		goes.mustDel()
	}
	wantReservations("DEL of others", 2, true)
	// The name of the container comes again.
	again := n.pod("goes", "storage,lan@lan0")
	again.mustAdd()
	again.mustDel()
	stays.mustDel()
	fresh.mustDel()
	n.left()
	if kept, _ := filepath.Glob(filepath.Join(n.dir, "braid", "results", "*")); len(kept) > 0 {
		t.Errorf("left in the cache of Multus: %q", kept)
	}
	if kept, _ := filepath.Glob(filepath.Join(n.dir, "braid", "c-*")); len(kept) > 0 {
		t.Errorf("left of Multus: %q", kept)
	}
}

// TestAfterMultus: pods that Multus has made are undone by Braid, all their networks, from what Multus has kept.
func TestAfterMultus(t *testing.T) {
	afterMultus(t, newNodeBeforeBraid(t), (*pod).made)
}

// TestBrokenCacheOfMultus: what cannot be read of it, or is none of its files, is in nobody's way. The default network is
// undone by what the runtime knows.
func TestBrokenCacheOfMultus(t *testing.T) {
	n := newNodeBeforeBraid(t)
	p := n.pod("web", "storage")
	p.remembered(p.made())
	results := filepath.Join(n.dir, "braid", "results")
	for name, text := range map[string]string{
		"cluster-c-web-eth0": `{"kind": "cniCacheV1", "containerId": "c-web", "ifNa`,
		"storage-c-web-net1": "\x00\x00\x00",
		"x-c-web-eth0":       `{"kind": "cniCacheV1", "containerId": "other", "ifName": "eth0", "networkName": "cluster", "config": "e30="}`,
		"y-c-web-eth0":       `{"kind": "cniCacheV1", "containerId": "c-web", "ifName": "../../x", "networkName": "../x", "config": "W10="}`,
		"pods-c-web-eth0":    `{"kind": "cniCacheV1", "containerId": "c-web", "ifName": "eth0", "networkName": "pods", "config": "eyJjbmlWZXJzaW9uIjoiMS4wLjAiLCJuYW1lIjoicG9kcyIsInR5cGUiOiJicmFpZCJ9"}`,
	} {
		if err := os.WriteFile(filepath.Join(results, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(results, "z-c-web-eth0"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := p.del(); err != nil {
		t.Errorf("DEL: %v", err)
	}
	for _, address := range []string{"10.244.0.2", "fd00:244::2", "10.30.0.2"} {
		if left := n.has(address); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	}
	if left := n.has("10.10.0.2"); len(left) == 0 {
		t.Error("the test is wrong: what nobody knows of is gone")
	}
}

package clients

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/braid-cni/braid/internal/nettest"
)

// A node is the surroundings of one test.
type node struct {
	t    *testing.T
	ns   *nettest.NS
	nic  string // a network card, for macvlan
	dir  string // everything that is kept
	conf string // what a runtime reads its networks from
}

func newNode(t *testing.T) *node {
	t.Helper()
	nettest.LeakCheck(t)
	n := &node{t: t, ns: nettest.Node(t), dir: t.TempDir(), conf: t.TempDir()}
	n.nic = nettest.Parent(t, n.ns).Name
	// libcni's cache is at a place that tests share, and a test that failed leaves things there.
	if err := errors.Join(os.Mkdir(n.manifests(), 0o755), os.RemoveAll("/var/lib/cni/results")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.removeBridges)
	return n
}

func (n *node) manifests() string { return filepath.Join(n.dir, "manifests") }

// expand fills in what differs from test to test: $DIR for reservations, $NIC for the card.
func (n *node) expand(s string) string {
	return strings.NewReplacer("$DIR", filepath.Join(n.dir, "ipam"), "$NIC", n.nic).Replace(s)
}

// cluster is the default network, of one address family.
const cluster = `{"cniVersion": "1.1.0", "name": "cluster", "type": "bridge", "bridge": "cluster0", "isDefaultGateway": true, "ipMasq": true,
	"ipam": {"type": "host-local", "dataDir": "$DIR", "ranges": [[{"subnet": "10.244.0.0/24"}]]}}`

// The pods' networks: one with addresses of both families, one on the card.
const (
	storage = `{"cniVersion": "1.1.0", "type": "bridge", "bridge": "storage0", "ipam": {"type": "host-local", "dataDir": "$DIR",
		"ranges": [[{"subnet": "10.10.0.0/24"}], [{"subnet": "fd00:10::/64"}]]}}`
	lan = `{"cniVersion": "1.0.0", "type": "macvlan", "master": "$NIC", "capabilities": {"ips": true}, "ipam": {"type": "static"}}`
)

// An entry is the configuration that a runtime loads.
type entry struct {
	version string // of CNI; "1.1.0" if empty
	name    string // of the network; "pods" if empty
	keys    string // of Braid's configuration, besides those that every test needs
}

// list returns the entry as a .conflist. Without a default network in its keys it has cluster.
func (n *node) list(e entry) string {
	if e.version == "" {
		e.version = "1.1.0"
	}
	if e.name == "" {
		e.name = "pods"
	}
	keys := fmt.Sprintf(`"cniDir": %q, "binDir": %q, "policy": [{"namespaces": ["*"], "paths": ["$DIR"]}]`, filepath.Join(n.dir, "braid"), binaries())
	if !strings.Contains(e.keys, `"delegates"`) && !strings.Contains(e.keys, `"clusterNetwork"`) {
		keys += `, "delegates": [` + cluster + `]`
	}
	if !strings.Contains(e.keys, `"manifests"`) {
		keys += fmt.Sprintf(`, "manifests": %q`, n.manifests())
	}
	if e.keys != "" {
		keys += ", " + e.keys
	}
	return n.expand(fmt.Sprintf(`{"cniVersion": %q, "name": %q, "plugins": [{"type": "braid", %s}]}`, e.version, e.name, keys))
}

// load puts a file into the runtime's configuration folder, by renaming as an installer does.
func (n *node) load(name, content string) {
	n.t.Helper()
	tmp := filepath.Join(n.dir, name)
	if err := os.WriteFile(tmp, []byte(n.expand(content)), 0o600); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Rename(tmp, filepath.Join(n.conf, name)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) unload(name string) {
	n.t.Helper()
	if err := os.Remove(filepath.Join(n.conf, name)); err != nil {
		n.t.Fatal(err)
	}
}

// nad writes a NetworkAttachmentDefinition of the namespace blue.
func (n *node) nad(name, config string) {
	n.t.Helper()
	n.manifest("nad-"+name, map[string]any{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": map[string]any{"namespace": "blue", "name": name},
		"spec":     map[string]any{"config": n.expand(config)},
	})
}

// pod writes a pod of the namespace blue, and makes its network namespace.
func (n *node) pod(name, networks string) *pod {
	n.t.Helper()
	annotations := map[string]any{}
	if networks != "" {
		annotations["k8s.v1.cni.cncf.io/networks"] = networks
	}
	n.manifest("pod-"+name, map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"namespace": "blue", "name": name, "uid": "uid-" + name, "annotations": annotations},
	})
	return &pod{name: name, id: "c-" + name, ns: nettest.NewNS(n.t)}
}

func (n *node) manifest(name string, object any) {
	n.t.Helper()
	b, err := json.Marshal(object)
	if err == nil {
		err = os.WriteFile(filepath.Join(n.manifests(), name+".yaml"), b, 0o600)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// A pod is a sandbox as its runtime knows it.
type pod struct {
	name, id string
	ns       *nettest.NS
}

// reserved returns the addresses that are reserved in a network of host-local.
func (n *node) reserved(network string) (addresses []string) {
	n.t.Helper()
	files, err := os.ReadDir(filepath.Join(n.dir, "ipam", network))
	if err != nil && !os.IsNotExist(err) {
		n.t.Fatal(err)
	}
	for _, f := range files {
		if _, err := netip.ParseAddr(f.Name()); err == nil {
			addresses = append(addresses, f.Name())
		}
	}
	return addresses
}

// records returns how many attachments Braid knows of.
func (n *node) records() int {
	n.t.Helper()
	files, err := filepath.Glob(filepath.Join(n.dir, "braid", "attachments", "*.json"))
	if err != nil {
		n.t.Fatal(err)
	}
	return len(files)
}

// nothingLeft fails the test if anything of any pod is still there. Links are seen to by the leak check.
func (n *node) nothingLeft() {
	n.t.Helper()
	for _, network := range []string{"cluster", "storage"} {
		if left := n.reserved(network); len(left) > 0 {
			n.t.Errorf("addresses of %s left behind: %q", network, left)
		}
	}
	if left := n.records(); left > 0 {
		n.t.Errorf("%d records left behind", left)
	}
	rules, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		n.t.Fatalf("nft list ruleset: %v", err)
	}
	if strings.Contains(string(rules), "10.244.0.") {
		n.t.Errorf("rules left behind: %s", rules)
	}
}

// removeBridges removes bridges, which stay when their last port goes.
func (n *node) removeBridges() {
	links, err := n.ns.Handle().LinkList()
	if err != nil {
		n.t.Fatal(err)
	}
	for _, l := range links {
		if l.Type() == "bridge" {
			if err := n.ns.Handle().LinkDel(l); err != nil {
				n.t.Error(err)
			}
		}
	}
}

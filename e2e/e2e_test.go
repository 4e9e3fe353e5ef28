// Package e2e drives the built binaries as a container runtime does: by way of libcni, in network namespaces.
package e2e

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/internal/refplugins"
)

func TestMain(m *testing.M) { os.Exit(nettest.MainWithBinaries(m, build)) }

func build(bin string) error {
	err := nettest.GoBuild(bin, "../cmd/...")
	for _, name := range []string{"bridge", "macvlan", "host-local", "static", "loopback"} {
		if err == nil {
			err = os.Symlink("braid", filepath.Join(bin, name))
		}
	}
	return err
}

func binaries() string { return nettest.Binaries() }

// A node is where pods come up: the surroundings of one test.
type node struct {
	t      *testing.T
	ns     *nettest.NS
	nic    string   // a network card, for macvlan
	plugin string   // the type that the runtime calls: braid, or braid-shim where there is a worker
	dir    string   // everything that is kept: manifests, state, reservations
	keys   string   // of the entry configuration, besides those of config
	path   []string // CNI_PATH
	cache  string   // of libcni
}

func newNode(t *testing.T) *node {
	nettest.LeakCheck(t)
	n := &node{t: t, ns: nettest.Node(t), plugin: "braid", dir: t.TempDir(), cache: t.TempDir()}
	nic := nettest.Parent(t, n.ns)
	n.nic = nic.Name
	n.path = []string{binaries()}
	n.keys = fmt.Sprintf(`"manifests": %q`, filepath.Join(n.dir, "manifests"))
	if err := os.MkdirAll(filepath.Join(n.dir, "manifests"), 0o755); err != nil {
		t.Fatal(err)
	}
	return n
}

// expand fills in what differs from test to test: $DIR for reservations, $NIC for the card, $BR for a bridge.
func (n *node) expand(s string) string {
	return strings.NewReplacer("$DIR", filepath.Join(n.dir, "ipam"), "$NIC", n.nic, "$BR", "conf0").Replace(s)
}

// nad writes a NetworkAttachmentDefinition into the manifests.
func (n *node) nad(namespace, name, config string) {
	n.t.Helper()
	n.manifest("nad-"+namespace+"-"+name, map[string]any{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": map[string]any{"namespace": namespace, "name": name},
		"spec":     map[string]any{"config": n.expand(config)},
	})
}

// pod writes a pod into the manifests, with its namespace on the node.
func (n *node) pod(name, networks string) *pod {
	n.t.Helper()
	n.manifest("pod-"+name, map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{
			"namespace": "blue", "name": name, "uid": "uid-" + name,
			"annotations": map[string]any{"k8s.v1.cni.cncf.io/networks": networks},
		},
	})
	return &pod{node: n, name: name, ns: nettest.NewNS(n.t)}
}

func (n *node) manifest(name string, object any) {
	n.t.Helper()
	b, err := json.Marshal(object)
	if err == nil {
		err = os.WriteFile(filepath.Join(n.dir, "manifests", name+".yaml"), b, 0o600)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

const clusterNetwork = `{"cniVersion": "1.1.0", "name": "cluster", "type": "bridge", "bridge": "cluster0", "isDefaultGateway": true, "ipMasq": true,
	"ipam": {"type": "host-local", "dataDir": "$DIR", "ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd00:244::/64"}]]}}`

// network returns the entry configuration as a runtime loads it.
func (n *node) network(version string) *libcni.NetworkConfigList {
	n.t.Helper()
	delegates := ""
	if !strings.Contains(n.keys, `"delegates"`) {
		delegates = `"delegates": [` + clusterNetwork + `],`
	}
	list, err := libcni.NetworkConfFromBytes([]byte(n.expand(fmt.Sprintf(`{"cniVersion": %q, "name": "pods", "plugins": [
		{"type": %q, "cniDir": %q, "binDir": %q, "policy": [{"namespaces": ["blue"], "paths": ["$DIR"]}], %s %s}]}`,
		version, n.plugin, filepath.Join(n.dir, "braid"), n.path[0], delegates, n.keys))))
	if err != nil {
		n.t.Fatal(err)
	}
	return list
}

// left fails the test if anything of any pod is still there: reservations, records or rules. Links are seen to by the
// leak check of newNode.
func (n *node) left() {
	n.t.Helper()
	var found []string
	for _, pattern := range []string{"ipam/*/*.*.*.*", "ipam/*/*:*", "braid/attachments/*.json"} {
		files, err := filepath.Glob(filepath.Join(n.dir, pattern))
		if err != nil {
			n.t.Fatal(err)
		}
		for _, f := range files {
			if !strings.HasPrefix(filepath.Base(f), "last_reserved_ip") {
				found = append(found, f)
			}
		}
	}
	if len(found) > 0 {
		n.t.Errorf("left behind: %q", found)
	}
	rules, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		n.t.Fatalf("nft list ruleset: %v", err)
	}
	for _, subnet := range []string{"10.244.0.", "fd00:244::"} {
		if strings.Contains(string(rules), subnet) {
			n.t.Errorf("rules left behind for %s: %s", subnet, rules)
		}
	}
}

// removeBridges removes bridges, which stay when their last port goes.
func (n *node) removeBridges() {
	n.t.Helper()
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

// A pod is a container as its runtime sees it.
type pod struct {
	*node
	name string
	ns   *nettest.NS
	args [][2]string // CNI_ARGS, if not those of a pod of the manifests
}

func (p *pod) runtimeConf() *libcni.RuntimeConf {
	args := p.args
	if args == nil {
		args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "blue"}, {"K8S_POD_NAME", p.name}, {"K8S_POD_UID", "uid-" + p.name}}
	}
	return &libcni.RuntimeConf{ContainerID: "c-" + p.name, NetNS: p.ns.Path(), IfName: "eth0", Args: args}
}

func (p *pod) cni() *libcni.CNIConfig { return libcni.NewCNIConfigWithCacheDir(p.path, p.cache, nil) }

func (p *pod) add() (*types100.Result, error) { return p.addVersion("1.1.0") }

func (p *pod) addVersion(version string) (*types100.Result, error) {
	res, err := p.cni().AddNetworkList(p.t.Context(), p.network(version), p.runtimeConf())
	if err != nil {
		return nil, err
	}
	if res.Version() != version {
		p.t.Errorf("the result is of version %s, asked for was %s", res.Version(), version)
	}
	return types100.NewResultFromResult(res)
}

func (p *pod) mustAdd() *types100.Result {
	p.t.Helper()
	res, err := p.add()
	if err != nil {
		p.t.Fatalf("ADD: %v", err)
	}
	return res
}

func (p *pod) check() error {
	return p.cni().CheckNetworkList(p.t.Context(), p.network("1.1.0"), p.runtimeConf())
}

func (p *pod) del() error {
	return p.cni().DelNetworkList(p.t.Context(), p.network("1.1.0"), p.runtimeConf())
}

func (p *pod) mustDel() {
	p.t.Helper()
	if err := p.del(); err != nil {
		p.t.Fatalf("DEL: %v", err)
	}
	if links := p.ns.Links(p.t); len(links) > 0 {
		p.t.Errorf("links of pod %s after DEL: %q", p.name, links)
	}
}

// defaultRoutes returns the default routes of the kernel, as "via GATEWAY dev INTERFACE".
func (p *pod) defaultRoutes(family int) (routes []string) {
	p.t.Helper()
	all, err := p.ns.Handle().RouteList(nil, family)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, r := range all {
		if ones, _ := r.Dst.Mask.Size(); ones != 0 || !r.Dst.IP.IsUnspecified() {
			continue
		}
		link, err := p.ns.Handle().LinkByIndex(r.LinkIndex)
		if err != nil {
			p.t.Fatal(err)
		}
		routes = append(routes, "via "+r.Gw.String()+" dev "+link.Attrs().Name)
	}
	slices.Sort(routes)
	return routes
}

// addresses returns the addresses of a result by interface.
func addresses(t *testing.T, res *types100.Result) map[string][]string {
	t.Helper()
	found := make(map[string][]string)
	for i, ip := range res.IPs {
		if ip.Interface == nil || *ip.Interface < 0 || *ip.Interface >= len(res.Interfaces) {
			t.Fatalf("ips[%d] has no interface of the result", i)
		}
		of := res.Interfaces[*ip.Interface]
		if of.Sandbox == "" {
			t.Errorf("ips[%d] is an address of the host's %s", i, of.Name)
		}
		prefix, err := netip.ParsePrefix(ip.Address.String())
		if err != nil {
			t.Fatal(err)
		}
		found[of.Name] = append(found[of.Name], prefix.String())
	}
	return found
}

func (n *node) reference() {
	n.path = append(n.path, refplugins.Dir(n.t))
}

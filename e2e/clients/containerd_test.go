package clients

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocni "github.com/containerd/go-cni"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/internal/nettest"
)

// A containerd does with containerd's driver what its CRI plugin does.
type containerd struct {
	*node
	gocni.CNI
}

// newContainerd starts the driver. Until 2.0 containerd has a second network, lo, made by the plugin loopback.
func (n *node) newContainerd(lo bool) *containerd {
	n.t.Helper()
	c := &containerd{node: n}
	networks, options := 1, []gocni.Opt{gocni.WithDefaultConf}
	if lo {
		networks, options = 2, []gocni.Opt{gocni.WithLoNetwork, gocni.WithDefaultConf}
	}
	var err error
	c.CNI, err = gocni.New(gocni.WithMinNetworkCount(networks), gocni.WithPluginConfDir(n.conf), gocni.WithPluginMaxConfNum(1),
		gocni.WithPluginDir([]string{binaries()}))
	if err == nil {
		err = c.Load(options...)
	}
	if err != nil {
		n.t.Fatal(err)
	}
	return c
}

// options is containerd's cniNamespaceOpts. The annotations are those of the sandbox's configuration, the kubelet's.
func (p *pod) options(annotations map[string]string) []gocni.NamespaceOpts {
	return []gocni.NamespaceOpts{
		gocni.WithLabels(map[string]string{
			"K8S_POD_NAMESPACE": "blue", "K8S_POD_NAME": p.name, "K8S_POD_INFRA_CONTAINER_ID": p.id, "K8S_POD_UID": "uid-" + p.name,
			"IgnoreUnknown": "1",
		}),
		gocni.WithCapability("io.kubernetes.cri.pod-annotations", annotations),
		gocni.WithCapabilityPortMap([]gocni.PortMapping{{HostPort: 8080, ContainerPort: 80, Protocol: "TCP"}}),
		gocni.WithCapabilityDNS(gocni.DNS{}),
		gocni.WithCapabilityCgroupPath("/kubepods/pod"),
	}
}

// podIPs is containerd's selectPodIPs: the addresses of eth0, an IPv4 one first.
func podIPs(t *testing.T, result *gocni.Result) (podIPs []string) {
	t.Helper()
	eth0, ok := result.Interfaces["eth0"]
	if !ok || len(eth0.IPConfigs) == 0 {
		t.Fatal("the result has no address for eth0")
	}
	ips := slices.Clone(eth0.IPConfigs)
	slices.SortStableFunc(ips, func(a, b *gocni.IPConfig) int { return length(a.IP) - length(b.IP) })
	for _, ip := range ips {
		podIPs = append(podIPs, ip.IP.String())
	}
	return podIPs
}

func length(ip net.IP) int {
	if v4 := ip.To4(); v4 != nil {
		return len(v4)
	}
	return len(ip)
}

// TestContainerdTakesEth0ForThePods: containerd keeps addresses by the name of their interface, so the merged result
// tells it of all, and none of net1 becomes the pod's.
func TestContainerdTakesEth0ForThePods(t *testing.T) {
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		for _, result := range []string{"merged", "default"} {
			t.Run(version+"/"+result, func(t *testing.T) {
				n := newNode(t)
				n.nad("storage", storage)
				n.load("00-braid.conflist", n.list(entry{version: version, keys: `"result": "` + result + `"`}))
				c, p := n.newContainerd(true), n.pod("web", "storage")
				res, err := c.Setup(t.Context(), p.id, p.ns.Path(), p.options(nil)...)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]string{"10.244.0.2"}, podIPs(t, res)); diff != "" {
					t.Errorf("addresses of the pod (-want +got):\n%s", diff)
				}
				net1 := res.Interfaces["net1"]
				if (net1 != nil) != (result == "merged") {
					t.Errorf("net1 in the result: %+v", net1)
				}
				if net1 != nil && (len(net1.IPConfigs) != 2 || net1.Mac == "" || net1.Sandbox != p.ns.Path()) {
					t.Errorf("net1 in the result: %+v", net1)
				}
				if err := n.checkByDriver(p); err != nil {
					t.Errorf("CHECK: %v", err)
				}
				if err := c.Status(); err != nil {
					t.Errorf("STATUS: %v", err)
				}
				c.stop(p)
				n.nothingLeft()
			})
		}
	}
}

// stop is what containerd does of a pod that ends: DEL with the namespace, when the sandbox stops, and without it, when it is
// removed.
func (c *containerd) stop(p *pod) {
	c.t.Helper()
	for _, path := range []string{p.ns.Path(), ""} {
		if err := c.Remove(c.t.Context(), p.id, path, p.options(nil)...); err != nil {
			c.t.Errorf("DEL with namespace %q: %v", path, err)
		}
	}
	if links := p.ns.Links(c.t); len(links) > 0 {
		c.t.Errorf("links of pod %s after DEL: %q", p.name, links)
	}
}

// checkByDriver is CHECK, of the driver without its own network lo: that is of CNI 0.3.1, which has no CHECK, so that it
// always fails. containerd never calls it.
func (n *node) checkByDriver(p *pod) error {
	return n.newContainerd(false).Check(n.t.Context(), p.id, p.ns.Path(), p.options(nil)...)
}

// TestContainerdDualStack: both addresses of the default network are the pod's, and IPv4 comes first.
func TestContainerdDualStack(t *testing.T) {
	n := newNode(t)
	n.nad("storage", storage)
	dual := strings.Replace(cluster, `[[{"subnet": "10.244.0.0/24"}]]`, `[[{"subnet": "fd00:244::/64"}], [{"subnet": "10.244.0.0/24"}]]`, 1)
	n.load("00-braid.conflist", n.list(entry{keys: `"delegates": [` + dual + `]`}))
	c, p := n.newContainerd(false), n.pod("web", "storage")
	res, err := c.SetupSerially(t.Context(), p.id, p.ns.Path(), p.options(nil)...)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"10.244.0.2", "fd00:244::2"}, podIPs(t, res)); diff != "" {
		t.Errorf("addresses of the pod (-want +got):\n%s", diff)
	}
	c.stop(p)
	n.nothingLeft()
}

// TestContainerdVerbs: errors reach containerd with their text, DEL works whatever happened before.
func TestContainerdVerbs(t *testing.T) {
	n := newNode(t)
	n.nad("storage", storage)
	ready := filepath.Join(n.dir, "ready")
	list := n.list(entry{keys: `"readinessindicatorfile": "` + ready + `"`})
	n.load("00-braid.conflist", list)
	c, p := n.newContainerd(true), n.pod("web", "storage")
	if err := c.Status(); err == nil || !strings.Contains(err.Error(), ready) {
		t.Errorf("STATUS before the default network is ready: %v", err)
	}
	if err := os.WriteFile(ready, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.Status(); err != nil {
		t.Errorf("STATUS: %v", err)
	}

	broken := n.pod("broken", "storage, gone")
	if _, err := c.Setup(t.Context(), broken.id, broken.ns.Path(), broken.options(nil)...); err == nil || !strings.Contains(err.Error(), "blue/gone") {
		t.Errorf("ADD with a network that does not exist: %v", err)
	}
	n.nothingLeft()
	c.stop(broken)

	if _, err := c.Setup(t.Context(), p.id, p.ns.Path(), p.options(nil)...); err != nil {
		t.Fatal(err)
	}
	if err := p.ns.Handle().LinkSetDown(p.ns.Link(t, "net1")); err != nil {
		t.Fatal(err)
	}
	if err := n.checkByDriver(p); err == nil || !strings.Contains(err.Error(), "net1") {
		t.Errorf("CHECK with net1 down: %v", err)
	}

	t.Log("containerd deletes by the configuration of the moment, of another name even, and without the namespace")
	n.unload("00-braid.conflist")
	n.load("00-renamed.conflist", n.list(entry{name: "renamed"}))
	if err := c.Load(gocni.WithLoNetwork, gocni.WithDefaultConf); err != nil {
		t.Fatal(err)
	}
	p.ns.Remove(t)
	if err := c.Remove(t.Context(), p.id, "", p.options(nil)...); err != nil {
		t.Errorf("DEL: %v", err)
	}
	n.nothingLeft()
}

// TestContainerdAnnotations: the capability by which containerd hands over a pod's annotations. A driver passes it to
// plugins that declare it.
func TestContainerdAnnotations(t *testing.T) {
	n := newNode(t)
	n.nad("storage", storage)
	list := n.list(entry{keys: `"capabilities": {"io.kubernetes.cri.pod-annotations": true, "portMappings": true, "dns": true}`})
	n.load("00-braid.conflist", list)
	c, p := n.newContainerd(true), n.pod("web", "storage")
	for name, handed := range map[string]map[string]string{
		"the same":  {"k8s.v1.cni.cncf.io/networks": "storage", "kubernetes.io/config.source": "api"},
		"older":     {"k8s.v1.cni.cncf.io/networks": "gone", "kubernetes.io/config.source": "api"}, // those of the API count
		"none":      {},
		"not given": nil,
	} {
		res, err := c.Setup(t.Context(), p.id, p.ns.Path(), p.options(handed)...)
		if err != nil {
			t.Fatalf("annotations handed over: %s: %v", name, err)
		}
		if net1 := res.Interfaces["net1"]; net1 == nil || len(net1.IPConfigs) != 2 {
			t.Errorf("annotations handed over: %s: net1 in the result: %+v", name, net1)
		}
		c.stop(p)
	}

	t.Log("a static pod, of which the API has nothing yet")
	p = n.staticPod("static")
	res, err := c.Setup(t.Context(), p.id, p.ns.Path(), p.options(staticAnnotations)...)
	if err != nil {
		t.Fatal(err)
	}
	if net1 := res.Interfaces["net1"]; net1 == nil || len(net1.IPConfigs) != 2 {
		t.Errorf("net1 in the result: %+v", net1)
	}
	c.stop(p)
	n.nothingLeft()
}

// staticAnnotations are what the kubelet tells a runtime of a static pod.
var staticAnnotations = map[string]string{"k8s.v1.cni.cncf.io/networks": "storage", "kubernetes.io/config.source": "file"}

// staticPod is a pod that no manifest has.
func (n *node) staticPod(name string) *pod {
	return &pod{name: name, id: "c-" + name, ns: nettest.NewNS(n.t)}
}

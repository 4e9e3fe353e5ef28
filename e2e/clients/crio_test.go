package clients

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/cri-o/ocicni/pkg/ocicni"
	"github.com/google/go-cmp/cmp"
)

// A crio does with CRI-O's driver what CRI-O does.
type crio struct {
	*node
	ocicni.CNIPlugin
	cache string
}

// newCRIO starts the driver, which watches the configuration folder from then on.
func (n *node) newCRIO() *crio {
	n.t.Helper()
	c := &crio{node: n, cache: n.t.TempDir()}
	c.start()
	return c
}

func (c *crio) start() {
	c.t.Helper()
	driver, err := ocicni.InitCNIWithCache("", c.conf, c.cache, binaries())
	if err != nil {
		c.t.Fatal(err)
	}
	c.CNIPlugin = driver
	c.t.Cleanup(func() { _ = driver.Shutdown() })
}

// network is what CRI-O's newPodNetwork makes of a sandbox: no networks, which stands for the default one.
func (p *pod) network() ocicni.PodNetwork {
	return ocicni.PodNetwork{Name: p.name, Namespace: "blue", ID: p.id, UID: "uid-" + p.name, NetNS: p.ns.Path()}
}

// run is CRI-O's networkStart: ADD, then at once CHECK, and every address of the result is an address of the pod,
// whatever interface it belongs to.
func (c *crio) run(p *pod) (podIPs []string, err error) {
	c.t.Helper()
	if _, err := c.SetUpPod(p.network()); err != nil {
		return nil, err
	}
	return c.podIPs(p)
}

// podIPs is CRI-O's getSandboxIPs.
func (c *crio) podIPs(p *pod) (podIPs []string, err error) {
	c.t.Helper()
	status, err := c.GetPodNetworkStatus(p.network())
	if err != nil {
		return nil, err
	}
	if len(status) != 1 || status[0].Name != "pods" && status[0].Name != "other" || status[0].Ifname != "eth0" {
		c.t.Errorf("status of pod %s: %+v", p.name, status)
	}
	res, err := types100.NewResultFromResult(status[0].Result)
	if err != nil {
		return nil, err
	}
	for _, ip := range res.IPs {
		podIPs = append(podIPs, ip.Address.IP.String())
	}
	return podIPs, nil
}

func (c *crio) mustRun(p *pod) []string {
	c.t.Helper()
	podIPs, err := c.run(p)
	if err != nil {
		c.t.Fatalf("run pod %s: %v", p.name, err)
	}
	return podIPs
}

func (c *crio) mustStop(p *pod) {
	c.t.Helper()
	if err := c.TearDownPod(p.network()); err != nil {
		c.t.Errorf("stop pod %s: %v", p.name, err)
	}
}

// until waits for the driver to take up a change of its configuration folder.
func (c *crio) until(what string, done func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("the driver does not notice: %s", what)
		}
	}
}

// TestCRIOTakesEveryAddressForThePods: with the merged result, an address of net1 becomes the pod's address of a family
// that the cluster's network does not have. "result": "default" is what CRI-O needs.
func TestCRIOTakesEveryAddressForThePods(t *testing.T) {
	want := map[string][]string{
		"merged":  {"10.244.0.2", "10.10.0.2", "fd00:10::2"},
		"default": {"10.244.0.2"},
	}
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		for _, result := range []string{"merged", "default"} {
			t.Run(version+"/"+result, func(t *testing.T) {
				n := newNode(t)
				n.nad("storage", storage)
				n.load("00-braid.conflist", n.list(entry{version: version, keys: `"result": "` + result + `"`}))
				c, p := n.newCRIO(), n.pod("web", "storage")
				if diff := cmp.Diff(want[result], c.mustRun(p)); diff != "" {
					t.Errorf("addresses of the pod (-want +got):\n%s", diff)
				}
				if links := p.ns.Links(t); !slices.Contains(links, "eth0") || !slices.Contains(links, "net1") {
					t.Errorf("links of the pod: %q", links)
				}
				if err := c.Status(); err != nil {
					t.Errorf("STATUS: %v", err)
				}
				c.mustStop(p)
				c.mustStop(p)
				if links := p.ns.Links(t); len(links) > 0 {
					t.Errorf("links of the pod after DEL: %q", links)
				}
				n.nothingLeft()
			})
		}
	}
}

// TestCRIOChecks: CRI-O asks for a pod's addresses by CHECK, which looks at every network whichever result it got.
func TestCRIOChecks(t *testing.T) {
	n := newNode(t)
	n.nad("storage", storage)
	n.load("00-braid.conflist", n.list(entry{keys: `"result": "default"`}))
	c, p := n.newCRIO(), n.pod("web", "storage")
	c.mustRun(p)
	if err := p.ns.Handle().LinkSetDown(p.ns.Link(t, "net1")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.podIPs(p); err == nil || !strings.Contains(err.Error(), "net1") {
		t.Errorf("CHECK with net1 down: %v", err)
	}
	c.mustStop(p)
	n.nothingLeft()
}

// TestCRIOErrors: what CRI-O passes on to whoever describes the pod.
func TestCRIOErrors(t *testing.T) {
	n := newNode(t)
	n.nad("storage", storage)
	n.load("00-braid.conflist", n.list(entry{}))
	c, p := n.newCRIO(), n.pod("web", "storage, gone")
	_, err := c.run(p)
	if err == nil || !strings.Contains(err.Error(), "blue/gone") {
		t.Errorf("ADD with a network that does not exist: %v", err)
	}
	if links := p.ns.Links(t); len(links) > 0 {
		t.Errorf("links of the pod after the failure: %q", links)
	}
	n.nothingLeft()
	c.mustStop(p) // CRI-O does, after any failure

	stranger := n.pod("stranger", "")
	if err := os.Remove(filepath.Join(n.manifests(), "pod-stranger.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.run(stranger); err == nil || !strings.Contains(err.Error(), "blue/stranger") {
		t.Errorf("ADD of a pod that does not exist: %v", err)
	}
	n.nothingLeft()
}

// TestCRIOStatus: readiness of the node follows STATUS, which there is from CNI 1.1.0 on.
func TestCRIOStatus(t *testing.T) {
	for _, version := range []string{"1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			n := newNode(t)
			c := n.newCRIO()
			if err := c.Status(); err == nil {
				t.Error("STATUS without a configuration succeeds")
			}
			ready := filepath.Join(n.dir, "ready")
			n.load("00-braid.conflist", n.list(entry{version: version, keys: `"readinessindicatorfile": "` + ready + `"`}))
			c.until("a configuration", func() bool { return c.GetDefaultNetworkName() == "pods" })
			if err := c.Status(); (err != nil) != (version == "1.1.0") {
				t.Errorf("STATUS before the default network is ready: %v", err)
			} else if err != nil && !strings.Contains(err.Error(), ready) {
				t.Errorf("STATUS does not say what is missing: %v", err)
			}
			if err := os.WriteFile(ready, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := c.Status(); err != nil {
				t.Errorf("STATUS: %v", err)
			}
		})
	}
}

// TestCRIOGC: CRI-O lists the pods that it knows, by sandbox and eth0. Lists before 1.1.0 know no GC: then the driver
// deletes what is in its cache.
func TestCRIOGC(t *testing.T) {
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			n := newNode(t)
			n.nad("storage", storage)
			n.load("00-braid.conflist", n.list(entry{version: version}))
			c := n.newCRIO()
			web, db, dead := n.pod("web", "storage"), n.pod("db", "storage, storage"), n.pod("dead", "storage")
			for _, p := range []*pod{web, db, dead} {
				c.mustRun(p)
			}
			dead.ns.Remove(t)
			valid := func(pods ...*pod) (list []*ocicni.PodNetwork) {
				for _, p := range pods {
					network := p.network()
					list = append(list, &network)
				}
				return list
			}
			if err := c.GC(t.Context(), valid(web, db)); err != nil {
				t.Errorf("GC: %v", err)
			}
			if n.records() != 2 || len(n.reserved("cluster")) != 2 || len(n.reserved("storage")) != 6 {
				t.Errorf("after GC: %d records, %q and %q are reserved", n.records(), n.reserved("cluster"), n.reserved("storage"))
			}
			for _, p := range []*pod{web, db} {
				if _, err := c.podIPs(p); err != nil {
					t.Errorf("CHECK of pod %s after GC: %v", p.name, err)
				}
			}

			// A pod whose entry in the driver's cache is lost as well is found by the plugin's GC only.
			if err := os.RemoveAll(filepath.Join(c.cache, "results")); err != nil {
				t.Fatal(err)
			}
			if err := c.GC(t.Context(), valid(web)); err != nil {
				t.Errorf("GC: %v", err)
			}
			if left := n.records(); (left == 1) != (version == "1.1.0") {
				t.Errorf("after GC without a cache there are %d records", left)
			}
			if links := web.ns.Links(t); !slices.Contains(links, "eth0") || !slices.Contains(links, "net1") {
				t.Errorf("links of the pod that is valid: %q", links)
			}
			// A node without a pod, after a reboot: the list is null.
			if err := c.GC(context.WithoutCancel(t.Context()), nil); err != nil {
				t.Errorf("GC with no valid attachment: %v", err)
			}
			if left := n.records(); version == "1.1.0" && left != 0 {
				t.Errorf("after GC with no valid attachment there are %d records", left)
			}
			for _, p := range []*pod{web, db, dead} {
				c.mustStop(p)
			}
			if version == "1.1.0" {
				n.nothingLeft()
			}
		})
	}
}

// TestCRIOCollectsTheNetworkBesideBraid: CRI-O sends GC to every configuration in the folder, each with the attachments
// of its own name. A primary network's configuration that Braid delegates to, and that stays in the folder, is told
// that no attachment is valid, while Braid has made one for each pod. From CNI 1.1.0 on its plugins may free what
// living pods have; before that, or with "disableGC", nothing happens.
func TestCRIOCollectsTheNetworkBesideBraid(t *testing.T) {
	for _, test := range []struct {
		name, from, to string
		kept           bool
	}{
		{name: "1.1.0"},
		{name: "1.0.0", from: `"cniVersion": "1.1.0"`, to: `"cniVersion": "1.0.0"`, kept: true},
		{name: "disableGC", from: `"cniVersion": "1.1.0"`, to: `"cniVersion": "1.1.0", "disableGC": true`, kept: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newNode(t)
			primary := `{"cniVersion": "1.1.0", "name": "cluster", "plugins": [
				{"type": "bridge", "bridge": "cluster0", "ipam": {"type": "host-local", "dataDir": "$DIR", "subnet": "10.244.0.0/24"}}]}`
			n.load("10-cluster.conflist", strings.Replace(primary, test.from, test.to, 1))
			n.load("00-braid.conflist", n.list(entry{keys: `"clusterNetwork": "` + filepath.Join(n.conf, "10-cluster.conflist") + `"`}))
			c, p := n.newCRIO(), n.pod("web", "")
			c.mustRun(p)
			network := p.network()
			if err := c.GC(t.Context(), []*ocicni.PodNetwork{&network}); err != nil {
				t.Errorf("GC: %v", err)
			}
			if kept := len(n.reserved("cluster")) == 1; kept != test.kept {
				t.Errorf("the address of the living pod is kept: %v, want %v", kept, test.kept)
			}
			c.mustStop(p)
			n.nothingLeft()
		})
	}
}

// TestCRIOAnnotations: CRI-O hands over a pod's annotations as containerd does.
func TestCRIOAnnotations(t *testing.T) {
	n := newNode(t)
	n.nad("storage", storage)
	n.load("00-braid.conflist", n.list(entry{keys: `"result": "default", "capabilities": {"io.kubernetes.cri.pod-annotations": true}`}))
	c, p := n.newCRIO(), n.staticPod("static")
	network := p.network()
	network.RuntimeConfig = map[string]ocicni.RuntimeConfig{"pods": {PodAnnotations: &staticAnnotations}}
	if _, err := c.SetUpPod(network); err != nil {
		t.Fatal(err)
	}
	if podIPs, err := c.podIPs(p); err != nil || len(podIPs) != 1 {
		t.Errorf("addresses of the pod: %q, %v", podIPs, err)
	}
	if links := p.ns.Links(t); !slices.Contains(links, "net1") {
		t.Errorf("links of the pod: %q", links)
	}
	c.mustStop(p)
	n.nothingLeft()
}

// TestCRIOConfigurationFolderChanges: what CRI-O has set up it tears down from its cache; new pods get what the folder
// has now.
func TestCRIOConfigurationFolderChanges(t *testing.T) {
	n := newNode(t)
	n.nad("storage", storage)
	n.load("10-braid.conflist", n.list(entry{}))
	c := n.newCRIO()
	before, after := n.pod("before", "storage"), n.pod("after", "storage")
	c.mustRun(before)

	t.Log("replaced by an edited one")
	n.load("10-braid.conflist", n.list(entry{keys: `"result": "default"`}))
	c.until("an edit", func() bool {
		podIPs := c.mustRun(after)
		c.mustStop(after)
		return len(podIPs) == 1
	})
	if podIPs, err := c.podIPs(before); err != nil || len(podIPs) != 3 {
		t.Errorf("a pod from before the edit: %q, %v", podIPs, err)
	}

	t.Log("another network comes first")
	n.load("05-other.conflist", n.list(entry{name: "other"}))
	c.until("a new network", func() bool { return c.GetDefaultNetworkName() == "other" })
	if podIPs := c.mustRun(after); len(podIPs) != 3 {
		t.Errorf("a pod on the new network: %q", podIPs)
	}

	t.Log("everything removed")
	n.unload("05-other.conflist")
	n.unload("10-braid.conflist")
	c.until("the loss of all networks", func() bool { return c.Status() != nil })
	c.start() // and CRI-O restarted
	c.mustStop(before)
	c.mustStop(after)
	n.nothingLeft()
}

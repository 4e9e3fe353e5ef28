package install

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/kube/kubetest"
)

func TestInstallOnEmptyNode(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.install()

	list, c := n.config()
	if list.Name != "cluster" || list.CNIVersion != "1.1.0" {
		t.Errorf("a runtime reads network %q, version %q, want cluster and 1.1.0", list.Name, list.CNIVersion)
	}
	// What runtimes of CNI 1.0 read, which do not know "cniVersions".
	var old struct{ CNIVersion string }
	must(t, json.Unmarshal([]byte(n.read(ours)), &old))
	if old.CNIVersion != "1.0.0" {
		t.Errorf("an old runtime reads version %q, want 1.0.0", old.CNIVersion)
	}
	if len(list.Plugins) != 1 || !list.Plugins[0].Network.Capabilities["io.kubernetes.cri.pod-annotations"] {
		t.Errorf("found plugins %v, want one with the capabilities", list.Plugins)
	}

	if diff := cmp.Diff([]string{n.path("etc/cni/braid/net.d/10-cluster.conflist"), n.path("etc/cni/net.d/braid.d/kubeconfig"), n.BinDir, n.CNIDir, n.NetworksDir},
		[]string{c.ClusterNetwork, c.Kubeconfig, c.BinDir, c.CNIDir, c.ConfDir}); diff != "" {
		t.Errorf("configuration (-want +got):\n%s", diff)
	}
	bridge, err := readPrimary(c.ClusterNetwork)
	must(t, err)
	if b := string(bridge.Plugins[0].Bytes); !strings.Contains(b, "10.244.1.0/24") || !strings.Contains(b, "fd00:244::/64") || !strings.Contains(b, "braid0") {
		t.Errorf("found bridge %s, want braid0 with both pod CIDRs", b)
	}
	if len(bridge.Plugins) != 1 {
		t.Errorf("found plugins %v, want no portmap: the node has none", bridge.Plugins)
	}
	if target, err := os.Readlink(n.path("opt/cni/bin/loopback")); err != nil || target != "braid" {
		t.Errorf("loopback: found link to %q, %v, want braid", target, err)
	}
	for name, mode := range map[string]os.FileMode{
		"opt/cni/bin/braid": 0o755, "opt/cni/bin/braidd": 0o755, "opt/cni/bin/braid-shim": 0o755, ours: 0o644,
		"etc/cni/net.d/braid.d/kubeconfig": 0o600, "etc/cni/net.d/braid.d/token": 0o600,
	} {
		if info, err := os.Stat(n.path(name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: found %v, %v, want mode %v", name, info, err, mode)
		}
	}
	if kubeconfig := n.read("etc/cni/net.d/braid.d/kubeconfig"); !json.Valid([]byte(kubeconfig)) {
		t.Errorf("found kubeconfig %s, want JSON, which an ADD reads sooner than YAML", kubeconfig)
	}
	before := n.tree()
	n.install()
	if diff := cmp.Diff(before, n.tree()); diff != "" {
		t.Errorf("a second install has changed something (-before +after):\n%s", diff)
	}
}

// A node of a version that had no shim gets it before the configuration names it. Until it is installed anew, the guard leaves the
// configuration as that version wrote it.
func TestUpgradeToShim(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.Worker = false
	n.install()
	n.remove("opt/cni/bin/braid-shim")
	s := n.state()
	s.forget(s.find(n.path("opt/cni/bin/braid-shim")))
	must(t, s.save())
	old := n.read(ours)
	content, err := n.state().compose()
	must(t, err)
	if string(content) != old || !strings.Contains(old, `"type": "braid"`) {
		t.Errorf("found %s, want the configuration as it was: %s", content, old)
	}

	n.Worker = true
	n.remove("image/braid-shim")
	if err := n.try(); err == nil || !strings.Contains(err.Error(), "braid-shim does not exist") || n.read(ours) != old {
		t.Errorf("without a shim: %v, %s", err, n.read(ours))
	}
	n.write("image/braid-shim", "the shim", 0o755)
	n.install()
	if list, _ := n.config(); list.Plugins[0].Network.Type != "braid-shim" || n.read("opt/cni/bin/braid-shim") != "the shim" {
		t.Errorf("found type %q", list.Plugins[0].Network.Type)
	}
	must(t, n.uninstall(false))
	if exists(n.path("opt/cni/bin/braid-shim")) {
		t.Error("the shim is still there")
	}
}

func TestPortmapIsChained(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ answer, want string }{
		{`echo '{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0", "1.1.0"]}'`, "1.1.0"},
		{`echo '{"cniVersion": "1.0.0", "supportedVersions": ["1.0.0"]}'`, "1.0.0"},
		{`exit 127`, "1.0.0"}, // its libraries are not in the container
	} {
		n := newNode(t)
		n.write("opt/cni/bin/portmap", "#!/bin/sh\n"+c.answer+"\n", 0o755)
		n.install()
		network, err := readPrimary(n.path("etc/cni/braid/net.d/10-cluster.conflist"))
		must(t, err)
		if len(network.Plugins) != 2 || !network.Supports("portMappings") || network.CNIVersion != c.want {
			t.Errorf("%s: found %v in version %s, want portmap in version %s", c.answer, network.Plugins, network.CNIVersion, c.want)
		}
	}
}

func TestPrimary(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		confs          map[string]string
		clusterNetwork string // relative to the root if it is a path
		want           string // "" for Braid's own bridge
		network        string
		err            string
	}{
		{name: "first", confs: map[string]string{"10-calico.conflist": calico, "20-other.conf": lo, "05-cilium.conflist": cilium}, want: "05-cilium.conflist", network: "cilium"},
		{name: "single plugin", confs: map[string]string{"10-x.conf": `{"name": "x", "type": "ptp"}`}, want: "10-x.conf", network: "x"},
		{name: "broken", confs: map[string]string{"10-a.conflist": `{"name": "a", "plug`, "11-empty.conflist": "", "20-calico.conflist": calico}, want: "20-calico.conflist", network: "k8s-pod-network"},
		{name: "loopback", confs: map[string]string{"00-lo.conf": lo}, network: "cluster"},
		{name: "multus", confs: map[string]string{"00-multus.conf": multus, "10-calico.conflist": calico}, want: "10-calico.conflist", network: "k8s-pod-network"},
		{name: "multus only", confs: map[string]string{"00-multus.conf": multus}, network: "cluster"},
		{name: "itself", confs: map[string]string{"10-braid.conf": `{"name": "b", "type": "braid", "clusterNetwork": "x"}`}, network: "cluster"},
		{name: "itself, by its shim", confs: map[string]string{"10-braid.conf": `{"name": "b", "type": "braid-shim", "clusterNetwork": "x"}`}, network: "cluster"},
		{name: "not a configuration", confs: map[string]string{"10-calico.conflist.bak": calico, "cni.yaml": "a: b"}, network: "cluster"},
		{name: "bridge wanted", confs: map[string]string{"10-calico.conflist": calico}, clusterNetwork: Bridge, network: "cluster"},
		{name: "path", confs: map[string]string{"10-calico.conflist": calico, "05-cilium.conflist": cilium}, clusterNetwork: "etc/cni/net.d/10-calico.conflist", want: "10-calico.conflist", network: "k8s-pod-network"},
		{name: "path to come", clusterNetwork: "etc/cni/net.d/10-calico.conflist", want: "10-calico.conflist", network: "cluster"},
		{name: "path to multus", confs: map[string]string{"00-multus.conf": multus}, clusterNetwork: "etc/cni/net.d/00-multus.conf", err: `"multus-shim" attaches pods to networks itself`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			for name, content := range c.confs {
				n.conf(name, content)
			}
			if n.ClusterNetwork = c.clusterNetwork; c.clusterNetwork == "" {
				n.ClusterNetwork = Auto
			} else if c.clusterNetwork != Bridge {
				n.ClusterNetwork = n.path(c.clusterNetwork)
			}
			if err := n.try(); c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("found %v, want %s", err, c.err)
				}
				return
			} else if err != nil {
				t.Fatal(err)
			}
			want := filepath.Join(n.ConfDir, c.want)
			if c.want == "" {
				want = n.bridgeConf()
			}
			list, parsed := n.config()
			if parsed.ClusterNetwork != want || list.Name != c.network {
				t.Errorf("found network %s at %s, want %s at %s", list.Name, parsed.ClusterNetwork, c.network, want)
			}
			for name, content := range c.confs {
				if got := n.read("etc/cni/net.d/" + name); got != content {
					t.Errorf("%s was changed to %s", name, got)
				}
			}
		})
	}
}

// An upgrade of Braid while the primary is away, or half written, leaves it what it was: pods wait for it rather than get
// the network of somebody else.
func TestPrimaryIsAwayAtUpgrade(t *testing.T) {
	t.Parallel()
	for name, away := range map[string]func(n *testNode){
		"gone":          func(n *testNode) { n.remove("etc/cni/net.d/10-calico.conflist") },
		"being written": func(n *testNode) { n.conf("10-calico.conflist", `{"name": "half`) },
		"another is left": func(n *testNode) {
			n.remove("etc/cni/net.d/10-calico.conflist")
			n.conf("20-other.conflist", `{"name": "other", "type": "ptp"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.conf("10-calico.conflist", calico)
			n.install()
			away(n)
			n.install()
			if got := n.clusterNetwork(); got != "10-calico.conflist" {
				t.Errorf("found %s, want what it was", got)
			}
			n.conf("05-cilium.conflist", cilium) // comes before
			n.install()
			if got := n.clusterNetwork(); got != "05-cilium.conflist" {
				t.Errorf("found %s, want what a runtime would take", got)
			}
			n.ClusterNetwork = Bridge
			n.install()
			n.remove("etc/cni/net.d/05-cilium.conflist")
			n.remove("etc/cni/net.d/10-calico.conflist")
			n.conf("30-late.conflist", `{"name": "late", "type": "ptp"}`)
			n.ClusterNetwork = Auto
			n.install()
			if got := n.clusterNetwork(); got == "10-cluster.conflist" {
				t.Errorf("found %s, want what there is now", got)
			}
		})
	}
}

func TestOptionsAreChecked(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Options){
		"--bin-dir":         func(o *Options) { o.BinDir = "bin" },
		"--networks-dir":    func(o *Options) { o.NetworksDir = o.ConfDir },
		"--plugins":         func(o *Options) { o.Plugins = []string{"brigde"} },
		"--cluster-network": func(o *Options) { o.ClusterNetwork = "calico" },
		"--api-server":      func(o *Options) { o.APIServer = "10.96.0.1" },
		"--pod-cidr":        func(o *Options) { o.PodCIDRs = []string{"10.244.1.1/24"} },
		"clusterNetwork":    func(o *Options) { o.Config = []byte(`{"clusterNetwork": "x"}`) },
		"JSON object":       func(o *Options) { o.Config = []byte(`[]`) },
		"result":            func(o *Options) { o.Config = []byte(`{"reslut": "default"}`) },
	} {
		n := newNode(t)
		change(&n.Options)
		if err := n.try(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("found %v, want an error about %s", err, want)
		}
		if exists(n.path(ours)) {
			t.Errorf("%s: there is a configuration in spite of the error", want)
		}
	}
}

func TestFurtherKeys(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.Config = []byte(`{"result": "default", "namespaceIsolation": true, "defaultNetworks": ["storage"], "capabilities": {"portMappings": true}}`)
	n.install()
	_, c := n.config()
	if c.Result != conf.ResultDefault || !c.NamespaceIsolation || len(c.DefaultNetworks) != 1 || len(c.Capabilities) != 1 {
		t.Errorf("found %+v, want what was given", c)
	}
}

// What ADD answers is right for the container runtime, and stays while the API server is away.
func TestResultForRuntime(t *testing.T) {
	t.Parallel()
	api := kubetest.New(t)
	n := newNode(t)
	n.Kubeconfig = api.Kubeconfig()
	for _, tt := range []struct{ runtime, want string }{
		{"containerd://2.4.2", conf.ResultMerged}, {"cri-o://1.34.0", conf.ResultDefault}, {"docker://27", conf.ResultDefault},
	} {
		n.NodeName = strings.ReplaceAll(tt.runtime, "://", "-")
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.NodeName}}
		node.Status.NodeInfo.ContainerRuntimeVersion = tt.runtime
		api.AddNode(node)
		must(t, Install(t.Context(), n.Options, apiServer{t}, testLog(t)))
		if _, c := n.config(); c.Result != tt.want {
			t.Errorf("%s: found result %s, want %s", tt.runtime, c.Result, tt.want)
		}
		must(t, Install(t.Context(), n.Options, noCluster{}, testLog(t)))
		if _, c := n.config(); c.Result != tt.want {
			t.Errorf("%s, without an API server: found result %s, want %s", tt.runtime, c.Result, tt.want)
		}
	}
	n = newNode(t)
	n.install()
	if _, c := n.config(); c.Result != conf.ResultDefault {
		t.Errorf("a runtime that is not known: found result %s", c.Result)
	}
}

// The name that the runtime keeps results under stays when another network becomes the default one.
func TestNetworkNameStays(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.conf("10-calico.conflist", calico)
	n.install()
	n.remove("etc/cni/net.d/10-calico.conflist")
	n.conf("05-cilium.conflist", cilium)
	n.install()
	if s := n.state(); s.Network != "k8s-pod-network" || filepath.Base(s.Primary) != "05-cilium.conflist" {
		t.Errorf("found %s at %s, want the first name and the second path", s.Network, s.Primary)
	}
}

func TestWaitForPrimary(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.PrimaryWait = time.Hour
	done := make(chan error)
	go func() { done <- n.try() }()
	n.conf("10-calico.conflist", `{"name": "half`) // as somebody writes it who does not rename
	n.conf("10-calico.conflist", calico)
	must(t, <-done)
	if s := n.state(); filepath.Base(s.Primary) != "10-calico.conflist" {
		t.Errorf("found %s, want calico's", s.Primary)
	}
}

func TestPodCIDRsOfNode(t *testing.T) {
	t.Parallel()
	api := kubetest.New(t)
	api.AddNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}, Spec: corev1.NodeSpec{PodCIDR: "10.9.0.0/24", PodCIDRs: []string{"10.9.0.0/24", "fd09::/64"}}})
	api.AddNode(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "without"}})
	ask := apiServer{t}
	n := newNode(t)
	n.PodCIDRs, n.Kubeconfig, n.NodeName = nil, api.Kubeconfig(), "without"
	if err := Install(t.Context(), n.Options, ask, testLog(t)); err == nil || !strings.Contains(err.Error(), "--allocate-node-cidrs") {
		t.Errorf("a node without a pod CIDR: found %v", err)
	}
	n.NodeName = "nobody"
	if err := Install(t.Context(), n.Options, ask, testLog(t)); err == nil || !strings.Contains(err.Error(), "node nobody not found") {
		t.Errorf("no such node: found %v", err)
	}
	n.NodeName = "node1"
	must(t, Install(t.Context(), n.Options, ask, testLog(t)))
	if got := n.read("etc/cni/braid/net.d/10-cluster.conflist"); !strings.Contains(got, "10.9.0.0/24") || !strings.Contains(got, "fd09::/64") {
		t.Errorf("found %s, want both pod CIDRs", got)
	}
	api.Stop()
	must(t, Install(t.Context(), n.Options, noCluster{}, testLog(t))) // a node that starts while the API server is away
}

// A binary that runs can be replaced, which an ordinary copy cannot do.
func TestReplaceRunningBinary(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	self, err := os.Executable()
	must(t, err)
	content, err := os.ReadFile(self)
	must(t, err)
	n.write("image/braid", string(content), 0o755)
	n.install()
	running := exec.Command(n.path("opt/cni/bin/braid"))
	out, err := running.StdoutPipe()
	must(t, err)
	must(t, running.Start())
	t.Cleanup(func() { _ = running.Process.Kill(); _ = running.Wait() })
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if f, err := os.OpenFile(n.path("opt/cni/bin/braid"), os.O_WRONLY, 0); !errors.Is(err, syscall.ETXTBSY) {
		f.Close()
		t.Fatalf("open for writing: found %v, want %v: the test has lost its point", err, syscall.ETXTBSY)
	}
	n.write("image/braid", "second", 0o755)
	n.install()
	if got := n.read("opt/cni/bin/braid"); got != "second" {
		t.Errorf("found %q, want the new binary", got)
	}
	if err := running.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the old one does not run any more: %v", err)
	}
}

// Binaries that this version does not have any more go with the upgrade, unless they are somebody else's by now.
func TestFormerBinaries(t *testing.T) {
	t.Parallel()
	for _, others := range []bool{false, true} {
		n := newNode(t)
		n.install()
		path, s := n.path("opt/cni/bin/braid-resolve"), n.state()
		n.write("image/braid-resolve", "earlier", 0o755)
		must(t, s.putBinary("braid-resolve"))
		must(t, s.save())
		if others {
			n.write("opt/cni/bin/braid-resolve", "of others", 0o755)
		}
		n.install()
		if exists(path) != others {
			t.Errorf("others have replaced the binary %t: it is there %t", others, exists(path))
		}
		if f := n.state().find(path); f != nil {
			t.Errorf("found %+v in the state", f)
		}
	}
}

// installAgainAndAgain is the process that TestKilledInstall kills.
func installAgainAndAgain(root string) {
	n := nodeAt(&testing.T{}, root)
	big := strings.Repeat("braid ", 1<<20)
	for i := range 1000 {
		n.write("image/braid", big[i:], 0o755)
		if err := Install(context.Background(), n.Options, noCluster{}, discard); err != nil {
			panic(err)
		}
	}
}

package node

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/braid-cni/braid/e2e/cluster"
	"github.com/braid-cni/braid/internal/nettest"
)

// What the node is known by.
const (
	Name = "node1"
	IP   = "10.55.0.1"
	// NIC is a second network card, the parent of macvlan and the like. Node.LAN is what its cable leads to.
	NIC = "lan0"
	// PodCIDR is the cluster's; the node has a /24 of it.
	PodCIDR = "10.244.0.0/16"

	StaticPods = "/etc/kubernetes/manifests"
	ConfDir    = "/etc/cni/net.d"
	BinDir     = "/opt/cni/bin"

	// apiAddress is the cluster IP of the service "kubernetes". The API server itself has it, so there is nothing that
	// kube-proxy would have to do.
	apiAddress = "10.96.0.1"
	uplink     = "node0" // the interface that has the node's addresses
)

// A Node is a Kubernetes node and its control plane, in the namespaces of this process. There is one per process.
type Node struct {
	*cluster.Cluster
	LAN *nettest.NS // other hosts on the network of NIC, which reach it by the interface lan0

	t          testing.TB
	bin        string   // with all programs
	kubeconfig string   // of the administrator
	images     []string // archives of them
	known      []string // what a test has complained of that pods have left behind

	stopContainerd, stopKubelet func(syscall.Signal)
}

// Start starts everything but has no pod network yet, so that the node is not Ready. It ends with t. containerd has one
// image, [Toolbox].
func Start(t testing.TB) *Node {
	t.Helper()
	n := &Node{t: t, bin: programs(t)}
	n.interfaces()
	n.Cluster = cluster.StartWhole(t, n.bin, apiAddress+":443", PodCIDR)
	t.Cleanup(n.keepLogs)
	n.kubeconfig, _ = n.ClientKubeconfig("kubectl", "system:masters", n.URL)
	if err := makeCgroups(os.Getenv(insideEnv)); err != nil {
		t.Fatal(err)
	}
	n.configureContainerd()
	n.configureKubelet()
	n.StartContainerd()
	n.Import(toolbox(t, n.bin))
	n.StartKubelet()
	return n
}

// programs returns a folder with the programs of both folders, and makes it the first of PATH: containerd looks there for
// its shim.
func programs(t testing.TB) string {
	t.Helper()
	bin := t.TempDir()
	for env, script := range map[string]string{"BRAID_KUBEBIN": "hack/kubebin node", "BRAID_NODEBIN": "hack/nodebin"} {
		found, err := filepath.Glob(filepath.Join(os.Getenv(env), "*"))
		if err != nil || os.Getenv(env) == "" || len(found) == 0 {
			t.Fatalf("%s has no programs, it is to be what %s prints: run `make test-node`", env, script)
		}
		for _, program := range found {
			if err := os.Symlink(program, filepath.Join(bin, filepath.Base(program))); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return bin
}

// interfaces makes what a node has before anything runs on it. Not every kernel has dummy devices; a bridge does as well.
func (n *Node) interfaces() {
	n.t.Helper()
	host := nettest.Node(n.t)
	first := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	first.Name = uplink
	if err := host.Handle().LinkAdd(first); err != nil {
		n.t.Fatal(err)
	}
	host.Address(n.t, uplink, IP+"/24", apiAddress+"/32")
	if err := host.Handle().LinkSetUp(first); err != nil {
		n.t.Fatal(err)
	}
	n.LAN = nettest.NewNS(n.t)
	lan, err := netns.GetFromPath(n.LAN.Path())
	if err != nil {
		n.t.Fatal(err)
	}
	defer lan.Close()
	nic := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "lan0", PeerNamespace: netlink.NsFd(lan)}
	nic.Name = NIC
	if err := host.Handle().LinkAdd(nic); err != nil {
		n.t.Fatal(err)
	}
	if err := errors.Join(host.Handle().LinkSetUp(nic), n.LAN.Handle().LinkSetUp(n.LAN.Link(n.t, "lan0"))); err != nil {
		n.t.Fatal(err)
	}
}

// Poll calls done until it returns nil, or fails the test with its last error.
func (n *Node) Poll(t testing.TB, patience time.Duration, done func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %v", patience, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// keepLogs copies what the programs and the pods that are still there have written to where it is asked for.
func (n *Node) keepLogs() {
	dir := os.Getenv("BRAID_NODE_LOGS")
	if dir == "" {
		return
	}
	for _, program := range []string{
		"containerd", "kubelet", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd",
	} {
		if err := os.WriteFile(filepath.Join(dir, program+".log"), []byte(n.Log(program)), 0o644); err != nil {
			n.t.Error(err)
		}
	}
	if err := os.CopyFS(filepath.Join(dir, "pods"), os.DirFS("/var/log/pods")); err != nil {
		n.t.Error(err)
	}
}

//go:build cluster

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/e2e/cluster"
)

// A daemonNode is a node of a real cluster on which the daemon runs. The plugin and the daemon reach the API server by
// different proxies, so that it is known who has asked.
type daemonNode struct {
	*clusterNode
	ofDaemon *cluster.Proxy
	socket   string
	listen   string
	daemon   *exec.Cmd
	bin      string   // folder of the daemon, and of its worker's binary
	flags    []string // of the daemon, besides
}

func newDaemonNode(t *testing.T) *daemonNode {
	t.Helper()
	c := newClusterNode(t)
	return c.withDaemon(c.cluster.NewProxy())
}

// withDaemon starts a daemon that reaches the API server by way of a proxy.
func (c *clusterNode) withDaemon(p *cluster.Proxy) *daemonNode {
	t := c.t
	t.Helper()
	n := &daemonNode{clusterNode: c, ofDaemon: p, bin: binaries()}
	n.plugin = "braid-shim"
	n.socket = filepath.Join(n.dir, "run", "braidd.sock")
	n.keys += fmt.Sprintf(`, "daemonSocket": %q`, n.socket)
	n.listen = freeAddress(t)
	n.start()
	t.Cleanup(func() { n.kill() })
	return n
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// start starts the daemon, and waits until it is ready.
func (n *daemonNode) start() {
	n.t.Helper()
	args := []string{
		"daemon", "--socket", n.socket, "--node-name", "node1",
		"--kubeconfig", n.cluster.Kubeconfig("kube-system", "braid", n.ofDaemon.URL), "--cni-dir", filepath.Join(n.dir, "braid"),
		"--dhcp-socket", filepath.Join(n.dir, "run", "dhcp.sock"), "--listen", n.listen, "--log-level", "debug",
	}
	n.daemon = exec.Command(filepath.Join(n.bin, "braidd"), append(args, n.flags...)...)
	n.daemon.Stderr = n.t.Output()
	n.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := n.daemon.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.eventually("the daemon is ready", func() bool {
		resp, err := http.Get("http://" + n.listen + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

// kill ends the daemon as kill -9 does.
func (n *daemonNode) kill() {
	if n.daemon == nil {
		return
	}
	_ = n.daemon.Process.Kill()
	_ = n.daemon.Wait()
	n.daemon = nil
}

func (n *daemonNode) eventually(what string, is func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("not within a minute: %s", what)
		}
	}
}

// podOn is podWith for a pod that has been scheduled to the node.
func (n *daemonNode) podOn(name, networks string) *clusterPod {
	n.t.Helper()
	return n.podSpec(name, networks, map[string]any{"nodeName": "node1"})
}

// TestClusterDaemon: no ADD asks the API server anything; what is to be told is told later, by the daemon.
func TestClusterDaemon(t *testing.T) {
	n := newDaemonNode(t)
	n.waitWorker(0)
	p := n.podOn("web", fmt.Sprintf(both, 10, 10))
	n.eventually("the daemon knows the pod", func() bool { return n.metric(`braid_informer_objects{resource="pods"}`) == "1" })
	n.proxy.Requests()
	n.ofDaemon.Requests()
	release := make(chan struct{})
	n.ofDaemon.Set(func(_ http.ResponseWriter, r *http.Request) bool {
		<-release // an API server that takes its time
		return false
	})
	p.mustAdd()
	for _, r := range n.ofDaemon.Requests() {
		if strings.HasPrefix(r, "GET ") {
			t.Errorf("the daemon has asked for an ADD: %s", r)
		}
	}
	if status := p.status(); status != nil {
		t.Errorf("network-status while the API server does not answer: %q", status)
	}
	n.ofDaemon.Set(nil)
	close(release)
	want := []string{"cluster eth0 10.244.0.2 fd00:244::2", "blue/storage net1 10.10.0.2", "blue/lan lan0 192.0.2.10 2001:db8::10"}
	n.eventually("network-status is written", func() bool { return len(p.status()) == 3 })
	if diff := cmp.Diff(want, p.status()); diff != "" {
		t.Errorf("network-status (-want +got):\n%s", diff)
	}
	n.eventually("the event of ADD is written", func() bool { return len(p.events()) == 1 })
	p.mustDel()
	n.eventually("the event of DEL is written", func() bool {
		const removed = "Normal RemovedInterface Remove eth0 from cluster, net1 from blue/storage, lan0 from blue/lan"
		return slices.Contains(p.events(), removed) && len(p.events()) == 2
	})
	if r := n.proxy.Requests(); len(r) > 0 {
		t.Errorf("the plugin has asked the API server: %q", r)
	}
	n.eventually("metrics tell of both calls", func() bool {
		return n.metric(`braid_cni_calls_total{code="",outcome="success",verb="ADD"}`) == "1" && n.metric(`braid_cni_calls_total{code="",outcome="success",verb="DEL"}`) == "1"
	})
	// A pod of which the daemon has not heard, because it is not of its node as far as the API server knows.
	q := n.podWith("early", "storage")
	q.mustAdd()
	n.eventually("network-status is written", func() bool { return len(q.status()) == 2 })
	q.mustDel()
	n.left()
	n.removeBridges()
}

// TestClusterDaemonWaitForStatus: for those who need network-status to be there before the pod starts.
func TestClusterDaemonWaitForStatus(t *testing.T) {
	n := newDaemonNode(t)
	n.keys += `, "waitForStatus": true`
	p := n.podOn("web", "storage")
	p.mustAdd()
	if got := p.status(); len(got) != 2 {
		t.Errorf("network-status when ADD is answered: %q", got)
	}
	p.mustDel()
	n.left()
	n.removeBridges()
}

// TestClusterDaemonKilled: a status that the daemon has taken is written though it is killed; and without it all goes on.
func TestClusterDaemonKilled(t *testing.T) {
	n := newDaemonNode(t)
	p := n.podOn("web", "storage")
	var failing atomic.Bool
	failing.Store(true)
	n.ofDaemon.Set(func(w http.ResponseWriter, r *http.Request) bool {
		if failing.Load() && r.Method == http.MethodPatch {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}
		return false
	})
	p.mustAdd()
	n.kill()
	if status := p.status(); status != nil {
		t.Fatalf("network-status: %q", status)
	}
	other := n.podOn("alone", "storage") // the plugin asks for itself
	other.mustAdd()
	if got := other.status(); len(got) != 2 {
		t.Errorf("network-status without a daemon: %q", got)
	}
	failing.Store(false)
	n.start()
	n.eventually("network-status is written after all", func() bool { return len(p.status()) == 2 })
	p.mustDel()
	other.mustDel()
	n.left()
	n.removeBridges()
}

// TestClusterDaemonRestarts: pods come and go while the daemon is killed, upgraded and hung again and again. None fails.
func TestClusterDaemonRestarts(t *testing.T) {
	n := newDaemonNode(t)
	const pods, atOnce = 48, 8
	all := make([]*clusterPod, pods)
	for i := range all {
		all[i] = n.podOn(fmt.Sprint("web-", i), "storage")
	}
	var next atomic.Int32
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < pods; i = int(next.Add(1)) - 1 {
				if _, err := all[i].add(); err != nil {
					t.Errorf("ADD of %s: %v", all[i].name, err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	restarts := 0
	for ended := false; !ended; restarts++ {
		switch restarts % 3 {
		case 0:
			n.kill()
			n.start()
		case 1: // an upgrade: the next one stands by while this one ends
			old := n.daemon
			_ = old.Process.Signal(syscall.SIGTERM)
			_ = old.Wait()
			n.start()
		case 2:
			_ = n.daemon.Process.Signal(syscall.SIGSTOP)
			time.Sleep(300 * time.Millisecond)
			_ = n.daemon.Process.Signal(syscall.SIGCONT)
		}
		select {
		case <-done:
			ended = true
		case <-time.After(100 * time.Millisecond):
		}
	}
	t.Logf("%d pods, %d at once, while the daemon was restarted or stopped %d times", pods, atOnce, restarts)
	for _, p := range all {
		n.eventually("network-status of "+p.name, func() bool { return len(p.status()) == 2 })
	}
	for _, p := range all {
		p.mustDel()
	}
	n.left()
	n.removeBridges()
}

// metric returns the value of a time series, as it is written.
func (n *daemonNode) metric(series string) string {
	resp, err := http.Get("http://" + n.listen + "/metrics")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), series+" "); ok {
			return value
		}
	}
	return ""
}

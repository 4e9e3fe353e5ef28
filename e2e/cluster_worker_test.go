//go:build cluster

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/braid-cni/braid/worker/client"
	"github.com/braid-cni/braid/worker/protocol"
)

// workers returns the process IDs of the workers that listen at the node's socket, or want to.
func (n *daemonNode) workers() (pids []int) {
	n.t.Helper()
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		n.t.Fatal(err)
	}
	for _, path := range commands {
		command, _ := os.ReadFile(path) // it may have ended
		if strings.HasSuffix(string(command), "\x00worker\x00"+protocol.SocketOf(n.socket)+"\x00") {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// waitWorker waits until the one worker of the node answers, which is another one than before, and returns its process ID.
func (n *daemonNode) waitWorker(before int) (pid int) {
	n.t.Helper()
	n.eventually("a worker answers", func() bool {
		pids := n.workers()
		if len(pids) != 1 || pids[0] == before || (&client.Client{Socket: protocol.SocketOf(n.socket)}).Ping() != nil {
			return false
		}
		pid = pids[0]
		return true
	})
	return pid
}

// byWorker returns how many calls of a verb the worker has done, as far as the daemon has been told.
func (n *daemonNode) byWorker(verb string) int {
	n.t.Helper()
	value := n.metric(`braid_worker_calls_total{verb="` + verb + `"}`)
	if value == "" {
		return 0
	}
	count, err := strconv.Atoi(value)
	if err != nil {
		n.t.Fatal(err)
	}
	return count
}

// wantWorker fails the test unless the worker does a call, or does none.
func (n *daemonNode) wantWorker(p *clusterPod, by bool) {
	n.t.Helper()
	want := n.byWorker("ADD")
	if by {
		want++
	}
	calls := n.metric(`braid_cni_calls_total{code="",outcome="success",verb="ADD"}`)
	p.mustAdd()
	n.eventually("metrics tell of the ADD", func() bool {
		return n.metric(`braid_cni_calls_total{code="",outcome="success",verb="ADD"}`) != calls
	})
	if got := n.byWorker("ADD"); got != want {
		n.t.Errorf("the worker has done %d ADDs, want %d", got, want)
	}
	if err := p.check(); err != nil {
		n.t.Errorf("CHECK of %s: %v", p.name, err)
	}
	p.mustDel()
}

// during has pods come and go as long as something is done. None fails.
func (n *daemonNode) during(what string, do func()) {
	n.t.Helper()
	const atOnce = 3
	var ended atomic.Bool
	var calls atomic.Int32
	var longest atomic.Int64
	var wg sync.WaitGroup
	for i := range atOnce {
		p := n.podOn(fmt.Sprint(strings.ReplaceAll(what, " ", "-"), "-", i), "storage")
		wg.Go(func() {
			for !ended.Load() {
				begin := time.Now()
				_, err := p.add()
				for took, most := int64(time.Since(begin)), longest.Load(); took > most && !longest.CompareAndSwap(most, took); {
					most = longest.Load()
				}
				if err != nil {
					n.t.Errorf("%s: ADD: %v", what, err)
				} else if err := p.check(); err != nil {
					n.t.Errorf("%s: CHECK: %v", what, err)
				}
				if err := p.del(); err != nil {
					n.t.Errorf("%s: DEL: %v", what, err)
				}
				calls.Add(1)
			}
		})
	}
	do()
	ended.Store(true)
	wg.Wait()
	n.t.Logf("%s: %d times an ADD, a CHECK and a DEL, %d at once; the longest ADD took %s", what, calls.Load(), atOnce, time.Duration(longest.Load()))
}

// TestClusterWorker: the daemon always has a worker, whatever becomes of it, and no call depends on that.
func TestClusterWorker(t *testing.T) {
	n := newDaemonNode(t)
	pid := n.waitWorker(0)
	kill := func(pid int) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}

	// Between two calls.
	web := n.podOn("web", "storage")
	n.wantWorker(web, true)
	kill(pid)
	web.mustAdd()
	web.mustDel()
	pid = n.waitWorker(pid)
	n.wantWorker(web, true)

	// In the middle of them.
	n.during("workers are killed", func() {
		for range 5 {
			kill(pid)
			pid = n.waitWorker(pid)
			time.Sleep(200 * time.Millisecond) // in which calls begin
		}
	})

	// With the daemon, whose child it is: nobody serves then.
	n.during("daemons are killed", func() {
		for range 3 {
			n.kill()
			n.eventually("the worker has ended with the daemon", func() bool { return len(n.workers()) == 0 })
			time.Sleep(200 * time.Millisecond)
			n.start()
			pid = n.waitWorker(pid)
		}
	})
	n.kill()
	web.mustAdd()
	web.mustDel()

	n.flags = []string{"--worker=false"}
	n.start()
	n.wantWorker(web, false)
	if pids := n.workers(); len(pids) > 0 {
		t.Errorf("there are workers: %v", pids)
	}
	n.left()
	n.removeBridges()
}

// TestClusterWorkerForeignPlugin: what the plugins of others are needed for is done by the worker as well; the plugin process
// runs them.
func TestClusterWorkerForeignPlugin(t *testing.T) {
	n := newDaemonNode(t)
	n.reference()
	n.waitWorker(0)
	n.apply("tuned", `{"cniVersion": "1.0.0", "plugins": [
		{"type": "bridge", "bridge": "tuned0", "ipam": {"type": "host-local", "dataDir": "$DIR", "subnet": "10.20.0.0/24"}},
		{"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}, "mtu": 1400}]}`)
	p := n.podOn("tuned", "tuned,storage")
	p.mustAdd()
	if mtu := p.ns.Link(t, "net1").Attrs().MTU; mtu != 1400 {
		t.Errorf("tuning was not heeded: mtu %d", mtu)
	}
	p.mustDel()
	n.wantWorker(p, true)
	n.left()
	n.removeBridges()
}

// TestClusterWorkerUpgrade: the binaries are replaced while pods come and go.
func TestClusterWorkerUpgrade(t *testing.T) {
	n := newDaemonNode(t)
	n.kill()
	n.bin = t.TempDir()
	n.path = []string{n.bin}
	install := func(version string) {
		fresh := t.TempDir()
		build := exec.Command("go", "build", "-ldflags", "-X github.com/braid-cni/braid/internal/buildinfo.Version="+version, "-o", fresh+"/",
			"../cmd/braid", "../cmd/braidd", "../cmd/braid-shim")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, name := range []string{"braid", "braidd", "braid-shim"} {
			if err := os.Rename(filepath.Join(fresh, name), filepath.Join(n.bin, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	install("old")
	n.start()
	old := n.waitWorker(0)
	web := n.podOn("web", "storage")
	n.wantWorker(web, true)

	// The worker learns from the first caller that it is not the one that is installed.
	n.during("the binary is replaced", func() {
		install("new")
		old = n.waitWorker(old)
	})
	if there, err := os.Stat(filepath.Join(n.bin, "braid")); err != nil {
		t.Error(err)
	} else if running, err := os.Stat(fmt.Sprintf("/proc/%d/exe", old)); err != nil || !os.SameFile(there, running) {
		t.Errorf("the worker is not of the binary that is installed: %v", err)
	}
	n.wantWorker(web, true)

	// The next daemon, and its worker, stand by until those before end.
	next := &daemonNode{clusterNode: n.clusterNode, ofDaemon: n.ofDaemon, socket: n.socket, listen: freeAddress(t), bin: n.bin}
	t.Cleanup(func() { next.kill() })
	n.during("daemons take turns", func() {
		for range 2 {
			next.start()
			next.eventually("there are two workers", func() bool { return len(next.workers()) == 2 })
			if err := n.daemon.Process.Signal(syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			if err := n.daemon.Wait(); err != nil {
				t.Errorf("the daemon ends: %v", err)
			}
			n.daemon = nil
			old = next.waitWorker(old)
			time.Sleep(300 * time.Millisecond) // in which it does calls
			n, next = next, n
		}
	})
	n.wantWorker(web, true)
	n.left()
	n.removeBridges()
}

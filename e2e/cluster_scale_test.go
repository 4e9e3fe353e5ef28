//go:build cluster

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/e2e/cluster"
)

// A scaleNode is a node whose daemon's traffic is metered.
type scaleNode struct {
	*daemonNode
	meter   *cluster.Meter
	plugins *measuredExec
}

func newScaleNode(t *testing.T) *scaleNode {
	t.Helper()
	c := newClusterNode(t)
	m := c.cluster.NewMeter()
	return &scaleNode{daemonNode: c.withDaemon(&cluster.Proxy{URL: m.URL}), meter: m, plugins: &measuredExec{}}
}

// TestClusterScale: as many pods as a node may have come in one storm, and go in another.
func TestClusterScale(t *testing.T) {
	const pods, atOnce = 250, 32
	n := newScaleNode(t)
	all := make([]*clusterPod, pods)
	for i := range all {
		all[i] = n.podOn(fmt.Sprint("web-", i), fmt.Sprintf(both, i+1, i+1))
	}
	n.eventually("the daemon knows the pods", func() bool { return n.metric(`braid_informer_objects{resource="pods"}`) == fmt.Sprint(pods) })
	n.proxy.Requests()
	before := n.load()

	results := make([]*types100.Result, pods)
	start := time.Now()
	atOnceEach(atOnce, pods, func(i int) {
		var err error
		if results[i], err = n.add(all[i]); err != nil {
			t.Errorf("ADD of %s: %v", all[i].name, err)
		}
	})
	took := time.Since(start)
	if t.Failed() {
		return
	}
	n.eventually("every network-status is written", func() bool { return n.metric("braid_reports_pending") == "0" })
	t.Logf("%d ADDs, %d at once: %v, %.0f pods/s; the last network-status was written %v after the first ADD began",
		pods, atOnce, took.Round(time.Millisecond), pods/took.Seconds(), time.Since(start).Round(time.Millisecond))
	n.wantDistinct(results)
	n.wantStatuses(all, results)
	n.eventually("every event is written", func() bool { return n.events() >= pods })
	t.Logf("the last of %d events was written %v after the first ADD began", pods, time.Since(start).Round(time.Millisecond))
	n.logLoad("ADD of all", before)

	before, start = n.load(), time.Now()
	atOnceEach(atOnce, pods, func(i int) {
		if err := n.del(all[i]); err != nil {
			t.Errorf("DEL of %s: %v", all[i].name, err)
		}
	})
	took = time.Since(start)
	t.Logf("%d DELs, %d at once: %v, %.0f pods/s", pods, atOnce, took.Round(time.Millisecond), pods/took.Seconds())
	for _, p := range all {
		if links := p.ns.Links(t); len(links) > 0 {
			t.Errorf("links of pod %s after DEL: %q", p.name, links)
		}
	}
	n.eventually("every event is written", func() bool { return n.events() >= 2*pods })
	n.logLoad("DEL of all", before)
	if r := n.proxy.Requests(); len(r) > 0 {
		t.Errorf("the plugin has asked the API server: %q", r)
	}
	if sent := n.load().requests; sent["get pods"] > 0 || sent["get network-attachment-definitions"] > 0 || sent["patch pods/status"] != pods {
		t.Errorf("requests of the daemon: %v, want one patch for each of %d pods and no get", sent, pods)
	}
	t.Logf("at most %d MB of memory for the daemon, %d MB for a plugin (resident)", n.daemonPeak()>>20, n.plugins.peak.Load()>>20)
	n.left()
	n.removeBridges()
}

// atOnceEach calls f for 0 to n-1, some at once.
func atOnceEach(atOnce, n int, f func(i int)) {
	var next atomic.Int32
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}

// wantDistinct fails the test unless each pod has five addresses which nobody else has.
func (n *scaleNode) wantDistinct(results []*types100.Result) {
	n.t.Helper()
	owner := make(map[string]int)
	for i, res := range results {
		if len(res.IPs) != 5 {
			n.t.Errorf("addresses of pod %d: %v, want 5", i, res.IPs)
		}
		for _, ip := range res.IPs {
			address := ip.Address.IP.String()
			if other, taken := owner[address]; taken {
				n.t.Errorf("pods %d and %d both have %s", other, i, address)
			}
			owner[address] = i
		}
	}
}

// wantStatuses compares network-status of all pods with what their ADDs returned.
func (n *scaleNode) wantStatuses(all []*clusterPod, results []*types100.Result) {
	n.t.Helper()
	var list struct {
		Items []struct {
			Metadata struct {
				Name        string
				Annotations map[string]string
			}
		}
	}
	n.cluster.Do(http.MethodGet, "/api/v1/namespaces/blue/pods", nil, &list)
	written := make(map[string]string)
	for _, pod := range list.Items {
		written[pod.Metadata.Name] = pod.Metadata.Annotations["k8s.v1.cni.cncf.io/network-status"]
	}
	for i, p := range all {
		var entries []struct {
			Interface string
			IPs       []string
		}
		if err := json.Unmarshal([]byte(written[p.name]), &entries); err != nil {
			n.t.Errorf("network-status of %s: %v: %q", p.name, err, written[p.name])
			continue
		}
		got, want := make(map[string][]string), make(map[string][]string)
		for _, e := range entries {
			got[e.Interface] = e.IPs
		}
		for name, prefixes := range addresses(n.t, results[i]) {
			for _, prefix := range prefixes {
				address, _, _ := strings.Cut(prefix, "/")
				want[name] = append(want[name], address)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			n.t.Errorf("network-status of %s (-ADD +got):\n%s", p.name, diff)
		}
	}
}

// events returns how many events the daemon has written.
func (n *scaleNode) events() int {
	count, _ := strconv.Atoi(n.metric(`braid_api_requests_total{code="201",resource="events",verb="create"}`))
	return count
}

// A load is what a daemon has asked of the API server since it started.
type load struct {
	requests map[string]int // by "verb resource"
	cluster.Traffic
}

func (n *scaleNode) load() load {
	n.t.Helper()
	return load{requestsOf(n.t, "http://"+n.listen+"/metrics"), n.meter.Traffic()}
}

// logLoad logs what was asked since then.
func (n *scaleNode) logLoad(what string, since load) {
	n.t.Helper()
	now, traffic := n.load(), n.meter.Since(since.Traffic)
	var requests []string
	for _, r := range slices.Sorted(maps.Keys(now.requests)) {
		if count := now.requests[r] - since.requests[r]; count > 0 {
			requests = append(requests, fmt.Sprintf("%d × %s", count, r))
		}
	}
	n.t.Logf("%s: the daemon sent %d bytes, received %d, opened %d connections; requests: %s",
		what, traffic.Sent, traffic.Received, traffic.Connections, strings.Join(requests, ", "))
}

// requestsOf reads braid_api_requests_total, whatever the answers were.
func requestsOf(t *testing.T, url string) map[string]int {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	requests := make(map[string]int)
	for line := range strings.Lines(string(b)) {
		labels, ok := strings.CutPrefix(line, "braid_api_requests_total{")
		if !ok {
			continue
		}
		labels, value, _ := strings.Cut(labels, "} ")
		of := make(map[string]string)
		for label := range strings.SplitSeq(labels, ",") {
			name, quoted, _ := strings.Cut(label, "=")
			of[name] = strings.Trim(quoted, `"`)
		}
		count, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		requests[of["verb"]+" "+of["resource"]] += int(count)
	}
	return requests
}

// daemonPeak returns the most memory that the daemon has had at once, in bytes.
func (n *scaleNode) daemonPeak() int64 { return memory(n.t, n.daemon.Process.Pid, "VmHWM") }

// memory returns a size of /proc/PID/status, in bytes.
func memory(t *testing.T, pid int, key string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("no %s of process %d", key, pid)
	return 0
}

func (n *scaleNode) cni(p *clusterPod) *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(p.path, p.cache, n.plugins)
}

func (n *scaleNode) add(p *clusterPod) (*types100.Result, error) {
	res, err := n.cni(p).AddNetworkList(n.t.Context(), p.network("1.1.0"), p.runtimeConf())
	if err != nil {
		return nil, err
	}
	return types100.NewResultFromResult(res)
}

func (n *scaleNode) del(p *clusterPod) error {
	return n.cni(p).DelNetworkList(n.t.Context(), p.network("1.1.0"), p.runtimeConf())
}

// A measuredExec starts plugins as libcni does, and knows how much memory they took.
type measuredExec struct {
	invoke.DefaultExec
	peak atomic.Int64 // bytes of the one that took the most
}

func (e *measuredExec) FindInPath(plugin string, paths []string) (string, error) {
	return invoke.FindInPath(plugin, paths)
}

func (e *measuredExec) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	c := exec.CommandContext(ctx, path)
	c.Env, c.Stdin, c.Stdout, c.Stderr = environ, bytes.NewReader(stdin), &stdout, &stderr
	err := c.Run()
	if c.ProcessState != nil {
		peak := c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss << 10
		for was := e.peak.Load(); was < peak && !e.peak.CompareAndSwap(was, peak); was = e.peak.Load() {
		}
	}
	if err != nil {
		var coded types.Error
		if json.Unmarshal(stdout.Bytes(), &coded) == nil && coded.Code != 0 {
			return nil, &coded
		}
		return nil, fmt.Errorf("%w: %s%s", err, &stdout, &stderr)
	}
	return stdout.Bytes(), nil
}

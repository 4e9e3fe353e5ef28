//go:build cluster

package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The tests in this file measure what docs/scale.md calculates with. They take minutes, and are not part of make
// test-cluster, see there.

const networksPath = "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"

// idleEnv says how long the daemon is watched while nothing happens.
const idleEnv = "BRAID_SCALE_IDLE"

// TestScaleIdle measures a node on which nothing happens.
func TestScaleIdle(t *testing.T) {
	long := 16 * time.Minute // twice the mean time of a watch
	if text := os.Getenv(idleEnv); text != "" {
		var err error
		if long, err = time.ParseDuration(text); err != nil {
			t.Fatalf("%s: %v", idleEnv, err)
		}
	}
	n := newScaleNode(t)
	time.Sleep(5 * time.Second) // all that a start brings is over
	before := n.load()
	time.Sleep(long)
	n.logLoad(fmt.Sprint("idle for ", long), before)
}

// TestScalePod measures one pod from its creation to its end, and an edit of a network.
func TestScalePod(t *testing.T) {
	n := newScaleNode(t)
	known := func(pods string) func() bool {
		return func() bool { return n.metric(`braid_informer_objects{resource="pods"}`) == pods }
	}
	warm := n.podOn("warm", fmt.Sprintf(both, 10, 10)) // HTTP/2 compresses what it has sent before
	warm.mustAdd()
	warm.mustDel()
	n.eventually("events of the first pod", func() bool { return n.events() == 2 })

	var p *clusterPod
	for _, step := range []struct {
		name string
		do   func()
		done func() bool
	}{
		{"a pod is created", func() { p = n.podOn("web", fmt.Sprintf(both, 11, 11)) }, known("2")},
		{"the kubelet changes its status", func() {
			n.cluster.Do(http.MethodPut, "/api/v1/namespaces/blue/pods/web/status", n.withPhase("web", "Running"), nil)
		}, func() bool { return true }},
		{"ADD, three networks", func() { p.mustAdd() }, func() bool { return n.events() == 3 }},
		{"DEL", func() { p.mustDel() }, func() bool { return n.events() == 4 }},
		{"the pod is deleted", func() { p.delete() }, known("1")},
		{"a network is edited", func() { n.edit("blue", "storage", 1) }, func() bool { return true }},
	} {
		before := n.load()
		step.do()
		n.eventually(step.name, step.done)
		time.Sleep(time.Second) // answers and watches come after what is waited for
		n.logLoad(step.name, before)
	}
	warm.delete()
	n.left()
	n.removeBridges()
}

func (n *clusterNode) withPhase(pod, phase string) (object map[string]any) {
	n.t.Helper()
	n.cluster.Do(http.MethodGet, "/api/v1/namespaces/blue/pods/"+pod, nil, &object)
	object["status"].(map[string]any)["phase"] = phase
	return object
}

// edit changes a network. What it changes is read by nobody.
func (n *clusterNode) edit(namespace, name string, edition int) {
	n.t.Helper()
	path := strings.Replace(networksPath, "network-", "namespaces/"+namespace+"/network-", 1) + "/" + name
	var object map[string]any
	n.cluster.Do(http.MethodGet, path, nil, &object)
	metadata := object["metadata"].(map[string]any)
	metadata["labels"] = map[string]any{"edition": fmt.Sprint("e", edition)}
	n.cluster.Do(http.MethodPut, path, object, nil)
}

// fill makes networks of a usual kind, as kubectl apply makes them, and returns what one takes on average in an answer.
func (n *clusterNode) fill(networks, extra int) (size int) {
	n.t.Helper()
	n.cluster.Create(map[string]any{"kind": "Namespace", "metadata": map[string]any{"name": "tenant"}})
	atOnceEach(2, networks, func(i int) {
		config := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net-%d","plugins":[{"type":"macvlan","master":"eth1.%d","mode":"bridge","mtu":1500,`+
			`"ipam":{"type":"host-local","ranges":[[{"subnet":"10.%d.%d.0/24","rangeStart":"10.%[3]d.%[4]d.16","rangeEnd":"10.%[3]d.%[4]d.239"}]],`+
			`"routes":[{"dst":"172.16.0.0/12"}]}},{"type":"tuning","sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}}]}`, i, i%4094, i/256, i%256)
		if extra > 0 {
			config = strings.Replace(config, `"cniVersion"`, fmt.Sprintf(`"args":{"x":%q},"cniVersion"`, strings.Repeat("x", extra)), 1)
		}
		object := map[string]any{
			"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
			"metadata": map[string]any{"namespace": "tenant", "name": fmt.Sprint("net-", i)}, "spec": map[string]any{"config": config},
		}
		applied, err := json.Marshal(object)
		if err != nil {
			n.t.Error(err)
		}
		object["metadata"].(map[string]any)["annotations"] = map[string]any{"kubectl.kubernetes.io/last-applied-configuration": string(applied)}
		n.cluster.Create(object)
	})
	return len(n.cluster.Get(networksPath)) / networks
}

// cpu returns the CPU time of the API server until now, in seconds.
func (n *clusterNode) cpu() float64 {
	n.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.cluster.APIServerPID()))
	if err != nil {
		n.t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(b), ") ") // the name of the program may have spaces
	fields := strings.Fields(text)
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100 // USER_HZ
}

// resident returns a size of the API server in MB.
func (n *clusterNode) resident(key string) int64 {
	return memory(n.t, n.cluster.APIServerPID(), key) / 1e6
}

// TestScaleStart measures the start of a daemon in a cluster with 5,000 networks and 250 pods of the node.
func TestScaleStart(t *testing.T) {
	for _, tt := range []struct {
		name            string
		networks, extra int // extra bytes of configuration
		lists           bool
	}{{"none", 1, 0, false}, {"usual", 5000, 0, false}, {"1 KB more of configuration", 5000, 1000, false}, {"usual, lists", 5000, 0, true}} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.lists { // as with an API server that does not begin a watch with what there is
				t.Setenv("KUBE_FEATURE_WatchListClient", "false")
			}
			n := newScaleNode(t)
			n.kill()
			size := n.fill(tt.networks, tt.extra)
			pods := 0
			if tt.networks > 1 {
				pods = 250
			}
			for i := range pods {
				n.podObject(fmt.Sprint("web-", i))
			}
			cpu, before := n.cpu(), n.meter.Traffic()
			n.start()
			cpu = n.cpu() - cpu
			time.Sleep(2 * time.Second)
			n.logLoad("start", load{Traffic: before})
			t.Logf("%d networks of %d bytes (JSON), %d pods: %.2f s of CPU time of the API server; the daemon has %d MB, had %d MB (resident)",
				tt.networks, size, pods, cpu, memory(t, n.daemon.Process.Pid, "VmRSS")>>20, n.daemonPeak()>>20)
			for _, encoding := range []string{"identity", "gzip"} {
				cpu, start := n.cpu(), time.Now()
				plain, sent := n.list(encoding)
				t.Logf("a list, %s: %d bytes of %d, %.2f s of CPU time, %v", encoding, sent, plain, n.cpu()-cpu, time.Since(start))
			}
		})
	}
}

func (n *clusterNode) podObject(name string) {
	n.t.Helper()
	n.cluster.Create(map[string]any{
		"kind": "Pod", "metadata": map[string]any{
			"namespace": "blue", "name": name, "annotations": map[string]any{"k8s.v1.cni.cncf.io/networks": fmt.Sprintf(both, 1, 1)},
		},
		"spec": map[string]any{"nodeName": "node1", "containers": []any{map[string]any{"name": "c", "image": "example.org/c"}}},
	})
}

// list lists all networks, and returns the size of the answer and what was sent of it.
func (n *scaleNode) list(encoding string) (plain, sent int64) {
	n.t.Helper()
	c := newFleet(n.clusterNode).client()
	defer c.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodGet, n.cluster.URL+networksPath+"?resourceVersion=0", nil)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", encoding)
	req.Header.Set("Authorization", "Bearer "+n.cluster.Token("kube-system", "braid"))
	resp, err := c.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		n.t.Fatalf("%s: %v", resp.Status, err)
	}
	plain = int64(len(body))
	if resp.Header.Get("Content-Encoding") == "gzip" {
		r, err := gzip.NewReader(bytes.NewReader(body))
		if err != nil {
			n.t.Fatal(err)
		}
		if plain, err = io.Copy(io.Discard, r); err != nil {
			n.t.Fatal(err)
		}
	}
	return plain, int64(len(body))
}

// A fleet is what the API server has of the daemons of many nodes: a connection each, and two watches on it, which begin
// with what there is.
type fleet struct {
	*clusterNode
	gzip     bool // accept compressed answers
	roots    *x509.CertPool
	token    string
	received atomic.Int64 // bytes, as TCP carries them
	synced   atomic.Int32 // watches that have heard of everything
	denied   atomic.Int32 // answers 429
	others   atomic.Int32 // other answers than 200
	edits    atomic.Int32 // of networks, heard of
}

func newFleet(n *clusterNode) *fleet {
	n.t.Helper()
	pem, err := os.ReadFile(n.cluster.CA())
	if err != nil {
		n.t.Fatal(err)
	}
	f := &fleet{clusterNode: n, roots: x509.NewCertPool(), token: n.cluster.Token("kube-system", "braid")}
	f.roots.AppendCertsFromPEM(pem)
	return f
}

// client returns one that has connections of its own.
func (f *fleet) client() *http.Client {
	f.t.Helper()
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: f.roots}, ForceAttemptHTTP2: true, DisableCompression: !f.gzip,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			return countedConn{conn, &f.received}, err
		},
	}}
}

type countedConn struct {
	net.Conn
	received *atomic.Int64
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Add(int64(n))
	return n, err
}

// run has the daemons of some nodes watch until ctx ends.
func (f *fleet) run(ctx context.Context, nodes int) (wait func()) {
	var wg sync.WaitGroup
	for i := range nodes {
		c := f.client()
		pods := "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-" + strconv.Itoa(i) + "&"
		wg.Go(func() {
			f.watch(ctx, c, pods, "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json")
		})
		wg.Go(func() { f.watch(ctx, c, networksPath+"?", "application/json") })
		context.AfterFunc(ctx, c.CloseIdleConnections)
	}
	return wg.Wait
}

func (f *fleet) watch(ctx context.Context, c *http.Client, path, accept string) {
	path += "watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=3600"
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.cluster.URL+path, nil)
		if err != nil {
			f.t.Error(err)
			return
		}
		req.Header.Set("Accept", accept)
		req.Header.Set("Authorization", "Bearer "+f.token)
		resp, err := c.Do(req)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			f.others.Add(1)
		case resp.StatusCode == http.StatusOK:
			f.follow(resp.Body)
		case resp.StatusCode == http.StatusTooManyRequests:
			f.denied.Add(1)
		default:
			f.others.Add(1)
		}
		if resp != nil {
			resp.Body.Close()
		}
		time.Sleep(time.Second) // as it says in Retry-After
	}
}

// follow reads a watch to its end.
func (f *fleet) follow(body io.Reader) {
	r := bufio.NewReaderSize(body, 4096)
	for {
		line, err := r.ReadSlice('\n')
		whole := len(line)
		switch {
		case bytes.HasPrefix(line, []byte(`{"type":"BOOKMARK"`)) && bytes.Contains(line, []byte("k8s.io/initial-events-end")):
			f.synced.Add(1)
		case bytes.HasPrefix(line, []byte(`{"type":"MODIFIED"`)):
			f.edits.Add(1)
		}
		for err == bufio.ErrBufferFull {
			line, err = r.ReadSlice('\n')
			whole += len(line)
		}
		if err != nil {
			return
		}
	}
}

// TestScaleFleet measures the API server with the watches of many nodes: all start at once; then networks are edited.
func TestScaleFleet(t *testing.T) {
	for _, tt := range []struct {
		nodes, networks int
		gzip            bool
	}{{1000, 1, true}, {1000, 500, false}, {1000, 500, true}, {200, 5000, false}, {200, 5000, true}} {
		t.Run(fmt.Sprintf("%d nodes, %d networks, gzip %v", tt.nodes, tt.networks, tt.gzip), func(t *testing.T) {
			n := newClusterNode(t)
			n.fill(tt.networks, 0)
			f := newFleet(n)
			f.gzip = tt.gzip
			time.Sleep(5 * time.Second)
			rss, cpu, start := n.resident("VmRSS"), n.cpu(), time.Now()
			ctx, cancel := context.WithCancel(t.Context())
			wait := f.run(ctx, tt.nodes)
			defer wait()
			defer cancel()
			var slowest time.Duration // answer to somebody else
			for int(f.synced.Load()) < 2*tt.nodes {
				time.Sleep(200 * time.Millisecond)
				asked := time.Now()
				_, _ = n.cluster.Try(http.MethodGet, "/api/v1/namespaces/blue", nil, nil)
				slowest = max(slowest, time.Since(asked))
				if time.Since(start) > 8*time.Minute {
					t.Fatalf("%d of %d watches are in sync after %v", f.synced.Load(), 2*tt.nodes, time.Since(start))
				}
			}
			t.Logf("start of all: %v, %d MB received, %.1f s of CPU time; %d answers 429, %d other failures; another client waited up to %v for an answer",
				time.Since(start).Round(100*time.Millisecond), f.received.Load()/1e6, n.cpu()-cpu, f.denied.Load(), f.others.Load(), slowest.Round(time.Millisecond))
			time.Sleep(5 * time.Second)
			t.Logf("resident: %d MB before, %d MB at most, %d MB after", rss, n.resident("VmHWM"), n.resident("VmRSS"))

			const edits = 10
			cpu, received := n.cpu(), f.received.Load()
			start = time.Now()
			for i := range edits {
				n.edit("tenant", "net-0", i)
			}
			for int(f.edits.Load()) < edits*tt.nodes {
				time.Sleep(5 * time.Millisecond)
				if time.Since(start) > time.Minute {
					t.Fatalf("%d of %d edits heard of", f.edits.Load(), edits*tt.nodes)
				}
			}
			took := time.Since(start)
			time.Sleep(time.Second)
			t.Logf("%d edits of a network: all nodes have heard of all after %v, %d bytes received, %.2f s of CPU time",
				edits, took.Round(time.Millisecond), f.received.Load()-received, n.cpu()-cpu)
		})
	}
}

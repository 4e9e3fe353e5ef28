// Command bench measures Braid against what operators run today, and against the least that can be.
//
// All peers attach the same kinds of pods on one node (namespaces of this machine's own), with a real API server behind
// them, called through libcni as container runtimes do. They take turns, call by call, so that what else the machine does
// hits all alike; ratios are those of calls that followed each other. What was measured goes to a file of JSON, from which
// the tables, plots and the list of goals in docs/benchmarks.md are made.
//
//	go run ./bench -quick       the most important, in three minutes
//	go run ./bench              everything; writes docs/benchmarks.md
//	go run ./bench -report      writes it again, from the figures of the last run
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/braid-cni/braid/e2e/cluster"
	"github.com/braid-cni/braid/internal/nettest"
)

const (
	namespace = "bench"
	nodeName  = "node1"
)

// A bench is a run.
type bench struct {
	t       *tb
	top     string // of the source tree
	bin     string // where the programs under test are
	cluster *cluster.Cluster
	peers   []*peer
	results Results

	kubeconfig, token, ca string
	networks              map[string]bool // that the API server has
	fresh                 time.Time       // when something was created last
	ns                    []*nettest.NS
	open                  map[string]*os.File
	ids                   int
}

func main() {
	var o options
	flag.BoolVar(&o.quick, "quick", false, "the most important only")
	flag.BoolVar(&o.report, "report", false, "write the report from the figures in -results")
	flag.IntVar(&o.rounds, "rounds", 0, "counted rounds of each loop, instead of the usual number")
	flag.StringVar(&o.only, "only", "", "sections, with commas: "+strings.Join(sectionNames(), ", "))
	flag.StringVar(&o.peers, "peers", strings.Join(allPeers, ","), "with commas")
	flag.StringVar(&o.results, "results", "bin/bench.json", "where figures are written")
	flag.StringVar(&o.docs, "docs", "", "folder for benchmarks.md and its plots; by default docs for a full run, and bin for any other")
	flag.Parse()
	if err := o.run(); err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok { // the process inside has said why
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	quick, report bool
	rounds        int
	only, peers   string
	results, docs string
	top, dir      string
}

// run builds everything with the machine's own network, since modules may have to be downloaded, and then starts itself
// again on the node.
func (o *options) run() (err error) {
	if o.top, err = topFolder(); err != nil {
		return err
	}
	if o.docs == "" {
		o.docs = filepath.Join(o.top, "bin")
		if !o.quick && o.only == "" && o.rounds == 0 || o.report {
			o.docs = filepath.Join(o.top, "docs")
		}
	}
	if !filepath.IsAbs(o.results) {
		o.results = filepath.Join(o.top, o.results)
	}
	if o.report {
		r, err := load(o.results)
		if err != nil {
			return err
		}
		return r.write(o.docs)
	}
	if os.Geteuid() != 0 {
		return errors.New("namespaces need root")
	}
	if o.dir = os.Getenv(insideEnv); o.dir != "" {
		return o.inside()
	}
	if o.dir, err = os.MkdirTemp("", "braid-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(o.dir)
	t := &tb{dir: o.dir}
	if err := t.do(func() {
		build(t, o.top, filepath.Join(o.dir, "bin"))
		t.must(os.Setenv("BRAID_KUBEBIN", kubebin(t, o.top)))
	}); err != nil {
		return err
	}
	return enterNode(o.dir)
}

// inside measures, on the node.
func (o *options) inside() error {
	if err := setUpNode(o.dir); err != nil {
		return err
	}
	t := &tb{dir: o.dir}
	b := &bench{
		t: t, top: o.top, bin: filepath.Join(o.dir, "bin"),
		results:  Results{Quick: o.quick, Machine: machine(), Values: make(map[string]float64)},
		networks: make(map[string]bool), open: make(map[string]*os.File),
	}
	err := t.do(func() {
		b.startCluster(os.Getenv("BRAID_KUBEBIN"))
		b.startPeers(strings.Split(o.peers, ","))
		b.measure(o)
	})
	err = errors.Join(err, t.do(t.close))
	if err == nil && t.failed {
		err = errors.New("some calls failed, see above")
	}
	return errors.Join(err, b.results.save(o.results), b.results.write(o.docs))
}

// do runs f and returns what it fails with.
func (t *tb) do(f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(failure)
			if !ok {
				t.close()
				panic(r)
			}
			err = errors.New(string(f))
		}
	}()
	f()
	return nil
}

// A section measures one thing, for a quick run and for a full one.
type section struct {
	name string
	run  func(b *bench, quick bool, rounds func(quick, full int) int)
}

var sections = []section{
	{"latency", func(b *bench, quick bool, rounds func(quick, full int) int) {
		numbers := []int{0, 1, 2, 4, 8}
		if quick {
			numbers = []int{0, 1, 4, 8}
		}
		for _, kind := range []string{"macvlan", "bridge"} {
			for _, n := range numbers {
				b.latency("latency", place{kind: kind, n: n}, n, rounds(5, 31), b.peers)
			}
		}
	}},
	{"dual", func(b *bench, quick bool, rounds func(quick, full int) int) {
		for _, kind := range []string{"macvlan", "bridge"} {
			for _, n := range []int{1, 4} {
				peers := b.peers
				if quick && (n > 1 || kind == "bridge") {
					peers = b.local(braidPeer, braidDaemonPeer, floorPeer)
				}
				repeats := rounds(5, 15)
				if kind == "macvlan" { // an ADD of Multus waits for seconds
					repeats = rounds(1, 7)
				}
				b.dualStack(place{kind: kind, dual: true, n: n}, repeats, peers)
			}
		}
		for _, n := range []int{1, 4} {
			at := place{kind: "macvlan", dual: true, optimistic: true, n: n}
			b.dualStack(at, rounds(5, 15), b.local(braidPeer, braidDaemonPeer, standalonePeer, floorPeer))
		}
	}},
	{"counts", func(b *bench, quick bool, _ func(quick, full int) int) {
		for _, n := range []int{1, 4, 8} {
			if !quick || n == 4 {
				b.counts(place{kind: "macvlan", n: n})
			}
		}
	}},
	{"storm", func(b *bench, quick bool, _ func(quick, full int) int) {
		kinds, sizes := []string{"macvlan"}, []int{32}
		if !quick {
			kinds, sizes = []string{"macvlan", "bridge"}, []int{1, 8, 32, 100}
		}
		for _, kind := range kinds {
			for _, size := range sizes {
				for _, p := range b.peers {
					if p.name != floorJournalPeer {
						b.storm(p, place{kind: kind, n: 4}, size, max(1, min(10, 32/size)))
					}
				}
			}
		}
	}},
	{"allocation", func(b *bench, quick bool, rounds func(quick, full int) int) {
		counts := []int{10, 100, 1000, 10_000, 60_000}
		if quick {
			counts = []int{10, 60_000}
		}
		b.allocation(counts, rounds(3, 15))
	}},
	{"ports", func(b *bench, quick bool, rounds func(quick, full int) int) {
		counts := []int{10, 100, 250, 500}
		if quick {
			counts = []int{10, 250}
		}
		b.ports(counts, rounds(3, 15))
	}},
	{"masquerade", func(b *bench, quick bool, rounds func(quick, full int) int) {
		counts := []int{1, 10, 100, 1000}
		if quick {
			counts = []int{1, 1000}
		}
		b.masquerade(counts, rounds(5, 21))
	}},
	{"dhcp", func(b *bench, quick bool, rounds func(quick, full int) int) {
		counts := []int{1, 4}
		if quick {
			counts = []int{4}
		}
		b.dhcp(counts, rounds(2, 7))
	}},
	// Last, because what it makes stays in the API server.
	{"definitions", func(b *bench, quick bool, rounds func(quick, full int) int) {
		counts := []int{100, 1000, 10_000}
		if quick {
			counts = []int{1000}
		}
		b.definitions(counts, rounds(3, 15))
	}},
}

func sectionNames() (names []string) {
	for _, s := range sections {
		names = append(names, s.name)
	}
	return names
}

func (b *bench) measure(o *options) {
	rounds := func(quick, full int) int {
		switch {
		case o.rounds > 0:
			return o.rounds
		case o.quick:
			return quick
		}
		return full
	}
	for _, s := range sections {
		if o.only != "" && !contains(strings.Split(o.only, ","), s.name) {
			continue
		}
		start := time.Now()
		s.run(b, o.quick, rounds)
		b.t.Logf("%s: %.0f s", s.name, time.Since(start).Seconds())
	}
}

// startCluster starts the API server. Everybody uses the same account, which may do everything: rights are not what is
// measured.
func (b *bench) startCluster(kubebin string) {
	b.cluster = cluster.Start(b.t, kubebin)
	b.cluster.Apply(filepath.Join(b.top, "deploy", "crd.yaml"))
	for _, object := range []map[string]any{
		{"kind": "Namespace", "metadata": map[string]any{"name": namespace}},
		{"kind": "ServiceAccount", "metadata": map[string]any{"namespace": "kube-system", "name": "bench"}},
		{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": map[string]any{"name": "bench"},
			"roleRef":  map[string]any{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
			"subjects": []any{map[string]any{"kind": "ServiceAccount", "namespace": "kube-system", "name": "bench"}},
		},
	} {
		b.cluster.Create(object)
	}
	b.kubeconfig = b.cluster.Kubeconfig("kube-system", "bench", b.cluster.URL)
	content, err := os.ReadFile(b.kubeconfig)
	b.t.must(err)
	var c struct {
		Clusters []struct {
			Cluster struct {
				CA string `json:"certificate-authority"`
			}
		}
		Users []struct{ User struct{ Token string } }
	}
	b.t.must(json.Unmarshal(content, &c))
	b.token = c.Users[0].User.Token
	ca, err := os.ReadFile(c.Clusters[0].Cluster.CA)
	b.t.must(err)
	b.ca = string(ca)
}

// topFolder is that of the main module, in or above the working directory.
func topFolder() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "bench", "multus", "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("find the source tree in or above %s: not there", wd)
		}
	}
}

//go:build conformance

package conformance

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/braid-cni/braid/e2e/cluster"
	"github.com/braid-cni/braid/internal/nettest"
)

// What TestMain has built, for the process inside the node.
const (
	kubeBinEnv = "BRAID_KUBEBIN"      // see hack/kubebin
	implEnv    = "IMPL"               // another implementation: the path of its entry binary, or the name of a peer
	versionEnv = "IMPL_VERSION"       // for the report
	reportEnv  = "CONFORMANCE_REPORT" // 1: write the results and the report
)

func TestMain(m *testing.M) { os.Exit(nettest.MainWithBinaries(m, build)) }

// peers can be built here: name, nested module, package below that of the peer's module.
var peers = map[string]struct{ dir, module, command string }{
	"multus": {"../../bench/multus", "gopkg.in/k8snetworkplumbingwg/multus-cni.v4", "cmd/multus"},
}

// impostors are implementations that try the tests: one agrees to everything and does nothing, one refuses everything. A
// row that one of them passes shows nothing, but for the few listed.
var impostors = map[string]struct {
	replies string
	passes  []string
}{
	"yes": {`{}`, []string{"B78", "B79", "B144"}}, // it answers VERSION, and hands prevResult on
	"no": {`{"ADD": {"error": ` + no + `}, "DEL": {"error": ` + no + `}, "CHECK": {"error": ` + no + `}, "GC": {"error": ` + no + `},
		"STATUS": {"error": ` + no + `}, "VERSION": {"error": ` + no + `}}`, nil},
}

const no = `{"cniVersion": "1.1.0", "code": 7, "msg": "no"}`

// build puts braid, braidd, the recorder and the peer into the folder.
func build(bin string) error {
	if _, err := goCommand(".", "build", "-o", bin+"/", "../../cmd/...", "./recorder"); err != nil {
		return err
	}
	name := os.Getenv(implEnv)
	path := filepath.Join(bin, name)
	if impostor, ok := impostors[name]; ok {
		os.Setenv(implEnv, path)
		return errors.Join(os.Symlink("recorder", path), os.WriteFile(path+".json", []byte(impostor.replies), 0o600))
	}
	peer, ok := peers[name]
	if !ok {
		return nil
	}
	version, err := goCommand(peer.dir, "list", "-m", "-f", "{{.Version}}", peer.module)
	if err == nil {
		_, err = goCommand(peer.dir, "build", "-o", path, peer.module+"/"+peer.command)
	}
	os.Setenv(implEnv, path)
	os.Setenv(versionEnv, version)
	return err
}

func goCommand(dir string, args ...string) (output string, err error) {
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// An implementation is what is asked.
type implementation struct {
	name    string // of its results
	entry   string // path of the meta-plugin
	own     bool   // it is this project's: a row that fails fails the test
	plugins bool   // it serves bridge, macvlan, ipvlan, host-local, static, dhcp and loopback itself
	daemon  bool   // nodes that have an API server have its daemon
	config  func(n *node, entry dict)
}

// withDaemon is the name of this project's implementation with a daemon on each node.
const withDaemon = "braid+daemon"

func theImplementation() implementation {
	path := os.Getenv(implEnv)
	if path != "" && path != withDaemon {
		name := filepath.Base(path)
		return implementation{name: name, entry: path, config: func(_ *node, entry dict) {
			entry["type"] = name
			entry["logLevel"] = "error"
		}}
	}
	entry := "braid"
	if path == withDaemon {
		entry = "braid-shim"
	}
	return implementation{
		name: cmp.Or(path, "braid"), daemon: path == withDaemon, entry: filepath.Join(nettest.Binaries(), entry), own: true, plugins: true,
		config: func(n *node, config dict) {
			config["type"] = entry
			config["daemonSocket"] = n.socket() // nobody listens without a daemon
			config["waitForStatus"] = true      // that the test can look at once
			// Stores are in the node's folder, and there is no kubelet.
			config["policy"] = []any{dict{"namespaces": []string{"*"}, "paths": []string{n.dir}, "files": []string{"*"}, "deviceIDs": "any"}}
		},
	}
}

// interfacePlugins are those that Braid serves itself.
var interfacePlugins = []string{"bridge", "macvlan", "ipvlan", "loopback", "host-local", "static", "dhcp"}

// A suite is one run.
type suite struct {
	t         *testing.T
	impl      implementation
	bin       string
	reference string // folder of the reference plugins

	start      sync.Once
	cluster    *cluster.Cluster
	kubeconfig string

	byWorker atomic.Int64 // nodes on which calls were done by the daemon's worker

	mu       sync.Mutex
	verdicts map[string]verdict
}

// apiAddress is where nodes find the API server: each has a listener there that passes connections on.
const apiAddress = "127.0.0.1:6443"

// TestClauses asks every row.
func TestClauses(t *testing.T) {
	nettest.LeakCheck(t)
	s := &suite{t: t, impl: theImplementation(), bin: nettest.Binaries(), verdicts: map[string]verdict{}}
	s.reference = s.referencePlugins()
	t.Cleanup(s.report)
	t.Cleanup(func() {
		if s.impl.daemon && s.byWorker.Load() == 0 {
			t.Error("no call was done by the daemon's worker")
		}
	})
	all := clauses()
	for _, id := range sortedRows() {
		if !slices.ContainsFunc(all, func(c clause) bool { return c.row == id }) {
			t.Errorf("row %s is not in clauses.tsv", id)
		}
	}
	for _, c := range all {
		t.Run(c.row, func(t *testing.T) {
			t.Parallel()
			r := &T{T: t, suite: s, id: c.row, verdict: verdict{Result: pass}}
			t.Cleanup(func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				r.verdict.Why = stable(r.verdict.Why)
				s.verdicts[c.row] = r.verdict
			})
			ask := tests[c.row]
			if ask == nil {
				r.Fatal("no test asks it")
			}
			ask(r)
		})
	}
}

// api starts the API server, once.
func (s *suite) api() *cluster.Cluster {
	s.start.Do(func() {
		bin := os.Getenv(kubeBinEnv)
		if bin == "" {
			s.t.Fatalf("%s is not set: run `make conformance`", kubeBinEnv)
		}
		c := cluster.Start(s.t, bin)
		c.Apply("../../deploy/crd.yaml")
		c.Apply("../../deploy/rbac.yaml")
		if !s.impl.own { // its rights are not what is asked about
			c.Create(dict{"kind": "ServiceAccount", "metadata": dict{"namespace": "kube-system", "name": s.impl.name}})
			c.Create(dict{
				"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": dict{"name": s.impl.name},
				"roleRef":  dict{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
				"subjects": []any{dict{"kind": "ServiceAccount", "namespace": "kube-system", "name": s.impl.name}},
			})
		}
		account := s.impl.name
		if s.impl.own {
			account = "braid" // of deploy/rbac.yaml
		}
		s.kubeconfig = c.Kubeconfig("kube-system", account, "https://"+apiAddress)
		s.cluster = c
	})
	return s.cluster
}

// A relay passes connections of a node on to an address of the machine's own loopback.
type relay struct {
	listener net.Listener
	done     chan struct{} // closed when it accepts no more

	mu    sync.Mutex
	to    string
	conns []net.Conn // of both sides; those that have ended too
}

func newRelay(l net.Listener, to string) *relay {
	r := &relay{listener: l, done: make(chan struct{}), to: to}
	go r.serve()
	return r
}

// lead has the node reach another address from now on. Connections break.
func (r *relay) lead(to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = to
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

// close ends it, and all connections. Doing it twice is no error.
func (r *relay) close() {
	r.listener.Close()
	<-r.done
	r.lead("")
}

func (r *relay) serve() {
	defer close(r.done)
	for {
		from, err := r.listener.Accept()
		if err != nil {
			return
		}
		go r.pass(from)
	}
}

func (r *relay) pass(from net.Conn) {
	defer from.Close()
	r.mu.Lock()
	server, err := net.Dial("tcp", r.to)
	if err == nil {
		r.conns = append(r.conns, from, server)
	}
	r.mu.Unlock()
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, from) // a connection that breaks is closed, that is all
		_ = server.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(from, server)
}

// host returns host:port of a URL.
func host(url string) string { return strings.TrimPrefix(url, "https://") }

//go:build storm && linux

package storm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/e2e/stock"
	"github.com/braid-cni/braid/internal/nettest"
)

// The networks of every pod: those that most clusters have, with all that has to be kept apart between pods on a node.
const (
	clusterNetwork = `{"cniVersion": "1.1.0", "name": "cluster", "type": "bridge", "bridge": "cluster0", "isDefaultGateway": true, "ipMasq": true,
		"ipam": {"type": "host-local", "dataDir": "$DIR/ipam", "ranges": $CLUSTER}}`
	storageNetwork = `{"cniVersion": "1.1.0", "type": "bridge", "bridge": "storage0", "macspoofchk": true, "sourceRouting": true,
		"ipam": {"type": "host-local", "dataDir": "$DIR/ipam", "ranges": $STORAGE}}`
	lanNetwork = `{"cniVersion": "1.1.0", "type": "macvlan", "master": "$NIC",
		"ipam": {"type": "host-local", "dataDir": "$DIR/ipam", "ranges": $LAN}}`
	wanNetwork = `{"cniVersion": "1.1.0", "type": "macvlan", "master": "$NIC",
		"ipam": {"type": "dhcp", "daemonSocketPath": "$DIR/dhcp.sock"}}`
)

// An option changes what a world is like.
type option func(*world)

// ranges gives a network other addresses.
func ranges(network, ranges string) option { return func(w *world) { w.ranges["$"+network] = ranges } }

// withDHCP gives each pod an interface with a lease too.
func withDHCP(w *world) { w.networks, w.kept = w.networks+", wan", []string{"dhcp.leases"} }

// A world is a node with a card on a LAN. A folder of manifests stands in for the API server.
type world struct {
	testing.TB
	node     *nettest.NS
	nic      *nettest.NIC
	dir      string
	ranges   map[string]string
	networks string   // of a pod
	keys     string   // of the entry configuration: who answers for the API server
	kept     []string // folders of others, besides those of addresses and of the plugin

	plugin     string       // what the runtime calls: braid, or braid-shim where there is a worker
	killWorker func()       // which another one follows; nil if there is no worker
	byWorker   atomic.Int64 // calls that a worker has done

	witness  *pod        // lives from the begin to the end, and is to lose nothing
	baseline stock.Stock // what there is beside the pods that come and go
	pods     atomic.Int64
	calls    atomic.Int64 // of the plugin
}

func newWorld(t testing.TB, options ...option) *world {
	t.Helper()
	nettest.LeakCheck(t)
	w := &world{TB: t, node: nettest.Node(t), dir: t.TempDir(), plugin: "braid", networks: "storage, lan", ranges: map[string]string{
		"$CLUSTER": `[[{"subnet": "10.244.0.0/16"}], [{"subnet": "fd00:244::/64"}]]`,
		"$STORAGE": `[[{"subnet": "10.10.0.0/16"}]]`,
		"$LAN":     `[[{"subnet": "10.30.0.0/16"}]]`,
	}}
	w.nic = nettest.Parent(t, w.node)
	w.nic.LAN.Address(w, w.nic.Port, "10.99.0.1/16")
	w.keys = w.expand(`, "manifests": "$DIR/manifests"`)
	for _, o := range options {
		o(w)
	}
	w.manifests()
	t.Cleanup(w.removeBridges)
	return w
}

func (w *world) expand(s string) string {
	s = strings.NewReplacer("$DIR", w.dir, "$NIC", w.nic.Name).Replace(s)
	for name, ranges := range w.ranges {
		s = strings.ReplaceAll(s, name, ranges)
	}
	return s
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// manifests writes the pod, which all containers are of, and its networks.
func (w *world) manifests() {
	w.Helper()
	dir := filepath.Join(w.dir, "manifests")
	w.must(os.Mkdir(dir, 0o755))
	write := func(name string, object map[string]any) {
		b, err := json.Marshal(object)
		w.must(errors.Join(err, os.WriteFile(filepath.Join(dir, name+".yaml"), b, 0o600)))
	}
	for name, config := range map[string]string{"storage": storageNetwork, "lan": lanNetwork, "wan": wanNetwork} {
		write(name, map[string]any{
			"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
			"metadata": map[string]any{"namespace": "blue", "name": name}, "spec": map[string]any{"config": w.expand(config)},
		})
	}
	write("web", map[string]any{
		"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{
			"namespace": "blue", "name": "web", "annotations": map[string]any{"k8s.v1.cni.cncf.io/networks": w.networks},
		},
	})
}

// config is the entry configuration. It has the deadlines that a configuration has which names none.
func (w *world) config(more string) []byte {
	return []byte(w.expand(`{"cniVersion": "1.1.0", "name": "pods", "type": "` + w.plugin + `", "cniDir": "$DIR/braid", "binDir": "` + filepath.Dir(binary("")) +
		`", "delegates": [` + clusterNetwork + `], "policy": [{"namespaces": ["blue"], "paths": ["$DIR"]}]` + w.keys + more + `}`))
}

// begin brings up the witness, has one pod come and go, so that there is all that stays, and takes stock.
func (w *world) begin() {
	w.Helper()
	w.witness = w.pod()
	w.must(w.witness.add())
	first := w.pod()
	w.must(errors.Join(first.add(), first.del()))
	first.ns.Remove(w)
	w.baseline = w.stock()
}

// end fails the test if anything of any pod is left, and takes the witness down.
func (w *world) end() {
	w.Helper()
	w.clean()
	w.right(w.witness)
	w.must(w.gc()) // has to have the locks of all containers: nobody still holds one
	w.clean()
	w.must(w.witness.del())
	w.witness.empty()
	w.note("processes of the plugin in storms", int(w.calls.Load()))
	// All but some that a GC, a sweep or a DEL without a record is about, and that were killed.
	if n := w.byWorker.Load(); w.killWorker != nil && n < w.calls.Load()/20 {
		w.Errorf("%d of %d calls were done by a worker", n, w.calls.Load())
	}
}

// stock is all that pods have on the node.
func (w *world) stock() stock.Stock {
	w.Helper()
	s := make(stock.Stock)
	s.Kernel(w, w.node)
	s.Rules(w)
	s.Files(w, w.dir, append([]string{"ipam", "braid"}, w.kept...)...)
	// Of the index there is one for each network, however many there were at work, and of files for the next reservation one
	// at most.
	private, err := filepath.Glob(filepath.Join(w.dir, "ipam", "*", ".braid", "*"))
	w.must(err)
	for _, path := range private {
		if filepath.Base(path) != "reservation" {
			s.Add("file %s", strings.TrimPrefix(path, w.dir+"/"))
		}
	}
	return s
}

// clean fails the test unless the node has what it had in the beginning.
func (w *world) clean() {
	w.Helper()
	if complaint := wait(func() string {
		have := w.stock()
		var lines []string
		for _, thing := range have.Minus(w.baseline) {
			lines = append(lines, "left: "+thing)
		}
		for _, thing := range w.baseline.Minus(have) {
			lines = append(lines, "missing: "+thing)
		}
		return strings.Join(lines, "\n")
	}); complaint != "" {
		w.Error(complaint)
	}
}

// patience is how long the kernel may take to end a namespace, and others to hear of it.
const patience = 10 * time.Second

// wait waits until nothing is wrong any more, or returns what is.
func wait(wrong func() string) (complaint string) {
	for deadline, pause := time.Now().Add(patience), 2*time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		if complaint = wrong(); complaint == "" || time.Now().After(deadline) {
			return complaint
		}
		time.Sleep(pause)
	}
}

// removeBridges removes bridges, which stay when their last port goes.
func (w *world) removeBridges() {
	links, err := w.node.Handle().LinkList()
	if err != nil {
		w.Error(err)
	}
	for _, l := range links {
		if l.Type() == "bridge" {
			if err := w.node.Handle().LinkDel(l); err != nil {
				w.Error(err)
			}
		}
	}
}

// gcConfig lists the witness and the pods.
func (w *world) gcConfig(valid ...*pod) []byte {
	list := []map[string]string{}
	for _, p := range append(valid, w.witness) {
		list = append(list, map[string]string{"containerID": p.id, "ifname": "eth0"})
	}
	b, err := json.Marshal(list)
	w.must(err)
	return w.config(`, "cni.dev/valid-attachments": ` + string(b))
}

func (w *world) startGC(valid ...*pod) *call {
	return w.start([]string{"CNI_COMMAND=GC", "CNI_PATH=" + filepath.Dir(binary(""))}, bytes.NewReader(w.gcConfig(valid...)))
}

func (w *world) gc(valid ...*pod) error {
	_, err := w.startGC(valid...).wait()
	return err
}

// sweep runs braidd sweep without any grace, and returns how many records it has undone.
func (w *world) sweep() (undone int, err error) {
	path := filepath.Join(w.dir, "pods.conf")
	if err := os.WriteFile(path, w.config(""), 0o600); err != nil {
		return 0, err
	}
	out, err := exec.Command(binary("braidd"), "sweep", "--config", path, "--grace", "0s", "--json").CombinedOutput()
	if err == nil && bytes.Contains(out, []byte(`"action":"failed"`)) {
		err = errors.New("not all could be undone")
	}
	if err != nil {
		err = fmt.Errorf("braidd sweep: %w: %s", err, out)
	}
	return bytes.Count(out, []byte(`"action":"undone"`)), err
}

// background starts a program that runs as long as the world does. Its output is shown if the test fails.
func (w *world) background(cmd *exec.Cmd) {
	w.Helper()
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	w.must(cmd.Start())
	w.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		dead := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		dead.Stop()
		if w.Failed() {
			b := output.Bytes()
			w.Logf("%s says:\n%s", filepath.Base(cmd.Path), b[max(0, len(b)-8192):])
		}
	})
}

//go:build crash && linux && amd64

package crash

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/kube/manifests"
	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/node/server"
	"github.com/braid-cni/braid/resolve"
)

// The networks of every pod. Between them they have all that Braid makes on a node: bridges, ports, gateway addresses,
// masquerading, spoof checks, reservations of both IP versions, interfaces on a card, the node's own way to them, routing
// tables in the pod, a lease, and what a third-party plugin makes.
const (
	clusterNetwork = `{"cniVersion": "1.1.0", "name": "cluster", "type": "bridge", "bridge": "cluster0", "isDefaultGateway": true, "ipMasq": true,
		"ipam": {"type": "host-local", "dataDir": "$DIR/ipam", "ranges": [[{"subnet": "10.244.0.0/16"}], [{"subnet": "fd00:244::/64"}]]}}`
	storageNetwork = `{"cniVersion": "1.1.0", "plugins": [
		{"type": "bridge", "bridge": "storage0", "macspoofchk": true, "sourceRouting": true,
			"ipam": {"type": "host-local", "dataDir": "$DIR/ipam", "subnet": "10.10.0.0/16"}},
		{"type": "third", "marks": "$DIR/marks"}]}`
	lanNetwork = `{"cniVersion": "1.1.0", "type": "macvlan", "master": "$NIC", "hostAccess": true,
		"ipam": {"type": "host-local", "dataDir": "$DIR/ipam", "subnet": "10.30.0.0/16"}}`
	wanNetwork = `{"cniVersion": "1.1.0", "type": "macvlan", "master": "$NIC",
		"ipam": {"type": "dhcp", "daemonSocketPath": "$DIR/dhcp.sock"}}`

	networks = "storage, lan, wan"
	// plainNetworks are those that no third-party plugin is of.
	plainNetworks = "lan, wan"
	addresses     = 5 // that a pod has
)

// A world is a node with a card on a LAN that has a DHCP server, the lease keeper, and what answers for the API server.
type world struct {
	testing.TB
	node *nettest.NS
	nic  *nettest.NIC
	dir  string
	bin  string // folder of third-party plugins

	leases      string // file of the DHCP server
	stopServer  func()
	stopKeeper  func()
	server      *os.Process // the DHCP server
	leaseKeeper *os.Process

	plugin        string // what the runtime calls: braid, or braid-shim where there is, or was, a worker
	workerProcess *os.Process

	witness  *pod  // lives from the begin to the end, and is to lose nothing
	baseline state // what there is beside the pods that come and go
	served   state // leases of the DHCP server
	ignored  state // has been complained of
	pods     int   // so far
}

// within makes a world, runs do on a thread of its node, and looks whether anything is left of it in the end.
func within(t testing.TB, do func(*world)) {
	w := &world{TB: t, node: nettest.NewNS(t), dir: t.TempDir(), bin: binaries(), plugin: "braid"}
	w.nic = nettest.Parent(t, w.node)
	w.plugIn()
	w.leases = filepath.Join(w.dir, "dnsmasq.leases")
	w.manifests()
	w.node.Do(t, func() {
		w.stopServer = w.dnsmasq()
		defer func() { w.stopServer() }()
		w.stopKeeper = w.keeper()
		defer func() { w.stopKeeper() }()
		defer w.daemon()()
		do(w)
	})
}

// plugIn gives both ends of the card's cable their addresses.
func (w *world) plugIn() {
	w.nic.LAN.Address(w, w.nic.Port, "10.99.0.1/16")
	w.node.Address(w, w.nic.Name, "10.30.0.1/16")
}

func (w *world) expand(s string) string {
	return strings.NewReplacer("$DIR", w.dir, "$NIC", w.nic.Name).Replace(s)
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// manifests writes the pod, which all containers are of but one, and its networks.
func (w *world) manifests() {
	w.Helper()
	dir := filepath.Join(w.dir, "manifests")
	w.must(errors.Join(os.MkdirAll(dir, 0o755), os.Mkdir(filepath.Join(w.dir, "marks"), 0o700)))
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
	for name, list := range map[string]string{"web": networks, "plain": plainNetworks} {
		write(name, map[string]any{
			"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{
				"namespace": "blue", "name": name, "annotations": map[string]any{"k8s.v1.cni.cncf.io/networks": list},
			},
		})
	}
}

// config is the entry configuration.
func (w *world) config(more string) []byte {
	return []byte(w.expand(`{"cniVersion": "1.1.0", "name": "pods", "type": "` + w.plugin + `", "cniDir": "$DIR/braid", "binDir": "` + w.bin + `",
		"kubeconfig": "$DIR/kubeconfig", "daemonSocket": "$DIR/braidd.sock", "delegates": [` + clusterNetwork + `],
		"deadlines": {"add": "10s", "del": "10s", "gc": "10s", "resolve": "4s", "plugin": "` + pluginTime.String() + `"}, "policy": [{"namespaces": ["blue"], "paths": ["$DIR"], "keys": ["hostAccess"]}]` + more + `}`))
}

// start starts a program that runs as long as the world does. Its output is shown if the test fails.
func (w *world) start(cmd *exec.Cmd) (stop func()) {
	w.Helper()
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	w.must(cmd.Start())
	return func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		dead := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		dead.Stop()
		if w.Failed() {
			b := output.Bytes()
			w.Logf("%s says:\n%s", filepath.Base(cmd.Path), b[max(0, len(b)-8192):])
		}
	}
}

func (w *world) dnsmasq() (stop func()) {
	cmd := exec.Command("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "--log-dhcp", "--port=0",
		"--user=root", "--no-ping", "--interface="+w.nic.Port, "--except-interface=lo", "--bind-interfaces", "--dhcp-authoritative",
		"--dhcp-leasefile="+w.leases, "--dhcp-lease-max=100000", "--pid-file="+filepath.Join(w.dir, "dnsmasq.pid"),
		"--dhcp-range=10.99.1.0,10.99.250.0,255.255.0.0,2h")
	w.nic.LAN.Do(w, func() { stop = w.start(cmd) })
	w.server = cmd.Process
	return stop
}

func (w *world) keeper() (stop func()) {
	socket := filepath.Join(w.dir, "dhcp.sock")
	cmd := exec.Command(filepath.Join(binaries(), "braidd"), w.keeperArgs()...)
	stop = w.start(cmd)
	w.leaseKeeper = cmd.Process
	w.eventually("the lease keeper listens", func() string {
		if _, err := os.Stat(socket); err != nil {
			return err.Error()
		}
		return ""
	})
	return stop
}

func (w *world) keeperArgs() []string {
	return []string{"dhcp", "--socket", filepath.Join(w.dir, "dhcp.sock"), "--cni-dir", filepath.Join(w.dir, "braid")}
}

// daemon answers on the socket of the daemon, from the manifests, and takes reports from the journal as the daemon does.
func (w *world) daemon() (stop func()) {
	s := server.New(server.Options{
		Socket:   filepath.Join(w.dir, "braidd.sock"),
		Resolver: &resolver{manifests.Resolver{Dir: filepath.Join(w.dir, "manifests")}},
		Log:      slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	w.eventually("the daemon serves", func() string {
		if s.State() != server.Serving {
			return s.State()
		}
		return ""
	})
	return func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	}
}

// A resolver queues reports. They stay in the journal.
type resolver struct{ manifests.Resolver }

func (r *resolver) Resolve(ctx context.Context, q *resolve.Query) (*resolve.Answer, error) {
	answer, err := r.Resolver.Resolve(ctx, q)
	if err == nil {
		answer.Queues = true
	}
	return answer, err
}

func (r *resolver) Report(context.Context, *resolve.Report) error { return nil }

// eventually waits until nothing is wrong any more.
func (w *world) eventually(what string, wrong func() string) {
	w.Helper()
	if complaint := wait(wrong); complaint != "" {
		w.Fatalf("%s does not come true: %s", what, complaint)
	}
}

// pluginTime is what a third-party plugin has for one call.
const pluginTime = 3 * time.Second

// patience is how long the kernel may take to end a namespace, and others to hear of it.
const patience = 10 * time.Second

func wait(wrong func() string) (complaint string) {
	for deadline, pause := time.Now().Add(patience), 2*time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		if complaint = wrong(); complaint == "" || time.Now().After(deadline) {
			return complaint
		}
		time.Sleep(pause)
	}
}

// A pod is a container that gets, had or is to lose its networks.
type pod struct {
	*world
	id     string
	name   string // of the pod in Kubernetes
	ns     *nettest.NS
	result json.RawMessage // of its ADD
	gone   bool            // its namespace has been removed

	neighbours []*pod // that came after it
}

func (p *pod) removeNS() {
	p.gone = true
	p.ns.Remove(p)
}

// kernelIPs returns the addresses that the interfaces of the pod have.
func (p *pod) kernelIPs() (list []string) {
	addrs, err := netdev.Dump(func() ([]netlink.Addr, error) { return p.ns.Handle().AddrList(nil, netlink.FAMILY_ALL) })
	p.must(err)
	for _, a := range addrs {
		if !a.IP.IsLoopback() && !a.IP.IsLinkLocalUnicast() {
			list = append(list, a.IPNet.String())
		}
	}
	return list
}

// inside lists what is in the namespace of the pod that was not there when it was made.
func (p *pod) inside() (things []string) {
	things = p.ns.Links(p)
	rules, err := netdev.Dump(func() ([]netlink.Rule, error) { return p.ns.Handle().RuleList(netlink.FAMILY_ALL) })
	p.must(err)
	for _, r := range rules {
		if r.Table != unix.RT_TABLE_LOCAL && r.Table != unix.RT_TABLE_MAIN && r.Table != unix.RT_TABLE_DEFAULT {
			things = append(things, "rule "+r.String())
		}
	}
	return things
}

func (w *world) pod() *pod {
	w.pods++
	return &pod{world: w, id: fmt.Sprint("c", w.pods), name: "web", ns: nettest.NewNS(w)}
}

// env is that of a call for the pod.
func (p *pod) env(command, netns string) []string {
	return []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + p.id, "CNI_NETNS=" + netns, "CNI_IFNAME=eth0", "CNI_PATH=" + p.bin,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=" + p.name, "PATH=" + os.Getenv("PATH"),
	}
}

// call runs the plugin, as a runtime does. Its error is the one that the plugin prints.
func (w *world) call(env []string, config []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(binaries(), w.plugin))
	cmd.Env, cmd.Stdin = env, bytes.NewReader(config)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	return out, answered(out, stderr.Bytes(), err)
}

// answered makes an error of what a plugin prints when it fails.
func answered(stdout, stderr []byte, err error) error {
	if err == nil {
		return nil
	}
	var printed struct {
		Code int
		Msg  string
	}
	if json.Unmarshal(stdout, &printed) == nil && printed.Msg != "" {
		return fmt.Errorf("%s (code %d)", printed.Msg, printed.Code)
	}
	return fmt.Errorf("%w: %q %q", err, stdout, stderr)
}

func (p *pod) add() error {
	out, err := p.call(p.env("ADD", p.ns.Path()), p.config(""))
	if err == nil {
		p.result = out
	}
	return err
}

// attachmentConfig is what runtimes hand over once there is a result.
func (p *pod) attachmentConfig() []byte {
	if p.result == nil {
		return p.config("")
	}
	return p.config(`, "prevResult": ` + string(p.result))
}

func (p *pod) del() error {
	_, err := p.call(p.env("DEL", p.ns.Path()), p.attachmentConfig())
	return err
}

func (p *pod) delWithoutNamespace() error {
	_, err := p.call(p.env("DEL", ""), p.attachmentConfig())
	return err
}

func (p *pod) check() error {
	_, err := p.call(p.env("CHECK", p.ns.Path()), p.attachmentConfig())
	return err
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

func (w *world) gcEnv() []string { return []string{"CNI_COMMAND=GC", "CNI_PATH=" + w.bin} }

func (w *world) gc(valid ...*pod) error {
	_, err := w.call(w.gcEnv(), w.gcConfig(valid...))
	return err
}

func (w *world) sweepArgs() []string {
	path := filepath.Join(w.dir, "pods.conf")
	if _, err := os.Stat(path); err != nil {
		w.must(os.WriteFile(path, w.config(""), 0o600))
	}
	return []string{"sweep", "--config", path, "--grace", "0s"}
}

func (w *world) sweep() error {
	out, err := exec.Command(filepath.Join(binaries(), "braidd"), w.sweepArgs()...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("braidd sweep: %w: %s", err, out)
	}
	return nil
}

// ips returns the addresses of the pod.
func (p *pod) ips() (list []string) {
	p.Helper()
	var res types100.Result
	p.must(json.Unmarshal(p.result, &res))
	for _, ip := range res.IPs {
		list = append(list, ip.Address.String())
	}
	return list
}

// awaitLock waits until nobody is at work on the pod who has begun before.
func (p *pod) awaitLock() {
	j, err := journal.Open(filepath.Join(p.dir, "braid", "attachments"))
	p.must(err)
	unlock, err := j.Lock(p.Context(), p.id)
	p.must(err)
	unlock()
}

// record returns that of the journal.
func (p *pod) record() *journal.Record {
	j, err := journal.Open(filepath.Join(p.dir, "braid", "attachments"))
	p.must(err)
	r, err := j.Get(p.id, "eth0")
	if errors.Is(err, journal.ErrNotFound) {
		return nil
	}
	p.must(err)
	return r
}

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/internal/nettest"
)

// Peers, by the names that the tables have.
const (
	floorPeer        = "floor"         // netlink requests only
	floorJournalPeer = "floor+journal" // and a record that survives
	standalonePeer   = "braid plugins" // Braid's bridge, macvlan and host-local by their names
	referencePeer    = "reference"     // the reference plugins, called directly
	braidPeer        = "braid"         // one-shot
	braidDaemonPeer  = "braid+daemon"
	thinPeer         = "multus thin"
	thickPeer        = "multus thick"
)

var allPeers = []string{
	thinPeer, thickPeer, referencePeer, braidPeer, braidDaemonPeer, standalonePeer, floorPeer, floorJournalPeer,
}

// A place is what a pod is attached to: the default network, a bridge that is the gateway, and n further networks.
type place struct {
	kind string // bridge or macvlan
	dual bool   // the further networks have IPv4 and IPv6
	// optimistic has IPv6 addresses used while duplicate address detection goes on, as Braid's own plugins can.
	optimistic bool
	n          int
}

func (p place) String() string {
	s := p.kind
	if p.dual {
		s += ", dual-stack"
	}
	if p.optimistic {
		s += ", optimistic"
	}
	return s
}

// A peer attaches pods.
type peer struct {
	name   string
	number int
	caller *caller
	daemon *daemon // nil if it has none
	meta   bool    // it asks the API server which networks a pod is to have
	steps  func(p place, slot int) []step
	pods   map[string]container // by name
}

// peers starts all that can be started, and says in the notes which can not.
func (b *bench) startPeers(names []string) {
	for i, name := range allPeers {
		if !contains(names, name) {
			continue
		}
		p := &peer{name: name, number: i, pods: make(map[string]container)}
		p.caller = &caller{cacheDir: filepath.Join("/run/cni", fmt.Sprint(i))}
		dir := filepath.Join(b.t.dir, "conf", fmt.Sprint(i))
		b.t.must(os.MkdirAll(dir, 0o755))
		bin := func(name string) string { return filepath.Join(b.bin, name) }
		switch name {
		case floorPeer, floorJournalPeer:
			p.caller.path = []string{bin("floor")}
			journal := ""
			if name == floorJournalPeer {
				journal = "/var/lib/cni/floor"
				b.t.must(os.MkdirAll(journal, 0o755))
			}
			p.steps = func(at place, slot int) []step { return b.floorSteps(p, at, slot, journal) }
		case standalonePeer, referencePeer:
			p.caller.path = []string{bin("braid")}
			if name == referencePeer {
				p.caller.path = []string{bin("reference")}
			}
			p.steps = func(at place, _ int) []step {
				s := []step{{conflist(b.t, "%s", b.listOf(p.defaultNetwork())), "eth0"}}
				for k := 1; k <= at.n; k++ {
					s = append(s, step{conflist(b.t, "%s", b.listOf(p.network(at, k))), fmt.Sprint("net", k)})
				}
				return s
			}
		case braidPeer, braidDaemonPeer:
			p.meta, p.caller.path = true, []string{bin("braid")}
			plugin, socket, cniDir := "braid", "/run/braid/none.sock", fmt.Sprint("/var/lib/cni/braid-", i)
			if name == braidDaemonPeer {
				plugin, socket = "braid-shim", "/run/braid/braidd.sock"
				if p.daemon = b.startBraidd(bin("braid"), cniDir); p.daemon == nil {
					continue
				}
			}
			primary := b.write(dir, "10-cluster.conf", p.defaultNetwork())
			list := conflist(b.t, `{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": %q, "kubeconfig": %q,
				"clusterNetwork": %q, "binDir": %q, "cniDir": %q, "daemonSocket": %q, "capabilities": {%q: true}}]}`,
				plugin, b.kubeconfig, primary, bin("braid"), cniDir, socket, podAnnotations) // which braidd install writes too
			p.steps = func(place, int) []step { return []step{{list, "eth0"}} }
		case thinPeer:
			p.meta, p.caller.path = true, []string{bin("multus")}
			primary := b.write(dir, "10-cluster.conf", p.defaultNetwork())
			list := conflist(b.t, `{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "multus", "kubeconfig": %q, "clusterNetwork": %q,
				"binDir": %q, "confDir": %q, "cniDir": "/var/lib/cni/multus-%d", "logLevel": "error"}]}`, b.kubeconfig, primary, bin("multus"), dir, i)
			p.steps = func(place, int) []step { return []step{{list, "eth0"}} }
		case thickPeer:
			p.meta, p.caller.path = true, []string{bin("multus")}
			b.startThick(p, dir, bin("multus"))
		}
		b.peers = append(b.peers, p)
		b.results.Peers = append(b.results.Peers, name)
	}
}

// startBraidd starts the node daemon, if this tree has one.
func (b *bench) startBraidd(bin, cniDir string) *daemon {
	program := filepath.Join(bin, "braidd")
	if out, err := exec.Command(program, "daemon", "--help").CombinedOutput(); err != nil {
		b.note("Left out: %s. `braidd daemon --help` says %s", braidDaemonPeer, short(string(out)))
		return nil
	}
	d := startDaemon(b.t, "braidd", []string{"NODE_NAME=" + nodeName}, program, "daemon", "--kubeconfig", b.kubeconfig,
		"--cni-dir", cniDir, "--log-level", "error")
	for _, socket := range []string{"/run/braid/braidd.sock", "/run/braid/braidd.worker.sock"} {
		d.until(b.t, "braidd serves "+socket, func() bool { return isSocket(socket) })
	}
	return d
}

// startThick starts Multus' daemon as its own manifest does. It finds the API server as in a pod, and writes the
// configuration of its shim after that of the default network.
func (b *bench) startThick(p *peer, dir, bin string) {
	const credentials = "/run/secrets/kubernetes.io/serviceaccount"
	b.t.must(os.MkdirAll(credentials, 0o755))
	b.write(credentials, "token", b.token)
	b.write(credentials, "ca.crt", b.ca)
	b.write(dir, "10-cluster.conf", p.defaultNetwork())
	config := b.write(b.t.dir, "thick.json", fmt.Sprintf(`{"chrootDir": "/", "cniVersion": "1.0.0", "logLevel": "error", "cniConfigDir": %q,
		"multusAutoconfigDir": %q, "multusConfigFile": "auto", "socketDir": "/run/multus/", "binDir": %q, "cniDir": "/var/lib/cni/multus-%d"}`, dir, dir, bin, p.number))
	host, port, _ := strings.Cut(strings.TrimPrefix(b.cluster.URL, "https://"), ":")
	p.daemon = startDaemon(b.t, "multus-daemon", []string{
		"KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port, "MULTUS_NODE_NAME=" + nodeName,
	}, filepath.Join(bin, "multus-daemon"), "-config", config)
	written := filepath.Join(dir, "00-multus.conf")
	p.daemon.until(b.t, "multus-daemon writes its configuration", func() bool {
		content, err := os.ReadFile(written)
		return err == nil && json.Valid(content)
	})
	content, err := os.ReadFile(written)
	b.t.must(err)
	list := conflist(b.t, "%s", b.listOf(string(content)))
	p.steps = func(place, int) []step { return []step{{list, "eth0"}} }
}

// defaultNetwork returns the configuration of the network that every pod has.
func (p *peer) defaultNetwork() string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "cluster%d", "type": "bridge", "bridge": %q, "isDefaultGateway": true,
		"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.%d.0.0/16"}]]}}`, p.number, p.bridge(0), 10+p.number)
}

// network returns the configuration of the kth further network.
func (p *peer) network(at place, k int) string {
	ranges := fmt.Sprintf(`[{"subnet": "10.%d.%d.0/22"}]`, 100+p.number, 4*k)
	if at.dual {
		ranges += fmt.Sprintf(`, [{"subnet": "fd00:%d:%d::/64"}]`, 100+p.number, k)
	}
	link := fmt.Sprintf(`"type": "bridge", "bridge": %q`, p.bridge(k))
	if at.kind == "macvlan" {
		link = `"type": "macvlan", "master": "nic0", "mode": "bridge"`
	}
	if at.optimistic {
		link += `, "enabledad": "optimistic"`
	}
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "%s", %s, "ipam": {"type": "host-local", "ranges": [%s]}}`, p.networkName(at, k), link, ranges)
}

func (p *peer) bridge(k int) string { return fmt.Sprintf("br%d-%d", p.number, k) }

func (p *peer) networkName(at place, k int) string {
	stack := "4"
	if at.dual {
		stack = "46"
	}
	if at.optimistic {
		stack += "o"
	}
	return fmt.Sprintf("p%d-%s%s-%d", p.number, at.kind, stack, k)
}

func (b *bench) listOf(config string) string {
	var c map[string]any
	b.t.must(json.Unmarshal([]byte(config), &c))
	if _, list := c["plugins"]; list {
		return config
	}
	top := map[string]any{"cniVersion": c["cniVersion"], "name": c["name"], "plugins": []any{c}}
	content, err := json.Marshal(top)
	b.t.must(err)
	return string(content)
}

// floorSteps tells the least program all that it needs to know: the addresses too.
func (b *bench) floorSteps(p *peer, at place, slot int, journal string) []step {
	host := slot + 2
	attachments := []map[string]any{{
		"ifName": "eth0", "parent": b.ensureBridge(p, 0), "ips": []string{fmt.Sprintf("10.%d.%d.%d/16", 10+p.number, host/250, host%250+2)},
		"gateway": fmt.Sprintf("10.%d.0.1", 10+p.number),
	}}
	for k := 1; k <= at.n; k++ {
		ips := []string{fmt.Sprintf("10.%d.%d.%d/22", 100+p.number, 4*k+host/250, host%250+2)}
		if at.dual {
			ips = append(ips, fmt.Sprintf("fd00:%d:%d::%x/64", 100+p.number, k, host+1))
		}
		a := map[string]any{"ifName": fmt.Sprint("net", k), "ips": ips, "macvlan": at.kind == "macvlan", "parent": "nic0"}
		if at.kind != "macvlan" {
			a["parent"] = b.ensureBridge(p, k)
		}
		attachments = append(attachments, a)
	}
	content, err := json.Marshal(map[string]any{"type": "floor", "attachments": attachments, "journal": journal})
	b.t.must(err)
	return []step{{conflist(b.t, `{"cniVersion": "1.0.0", "name": "pods", "plugins": [%s]}`, content), "eth0"}}
}

// ensureBridge makes a bridge of the least program, which takes it for granted.
func (b *bench) ensureBridge(p *peer, k int) string {
	name := p.bridge(k)
	if _, err := netlink.LinkByName(name); err == nil {
		return name
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
	bridge.Name = name
	b.t.must(netlink.LinkAdd(bridge))
	if k == 0 {
		addr, err := netlink.ParseAddr(fmt.Sprintf("10.%d.0.1/16", 10+p.number))
		b.t.must(err)
		b.t.must(netlink.AddrAdd(bridge, addr))
	}
	b.t.must(netlink.LinkSetUp(bridge))
	return name
}

// pod returns a pod that is to be attached to a place, with the networks and the pod made in the API server if they are
// not there yet. Slot tells pods of one place apart.
func (b *bench) pod(p *peer, at place, slot int) container {
	name := fmt.Sprintf("p%d-%s-%v%v-%d-%d", p.number, at.kind, at.dual, at.optimistic, at.n, slot)
	c, ok := p.pods[name]
	if !ok {
		c = container{pod: name, uid: fmt.Sprintf("00000000-0000-4000-8000-%012d", slot)}
		if p.meta {
			c.uid, c.annotations = b.createPod(p, name, at)
		}
		p.pods[name] = c
	}
	b.ids++
	c.id = fmt.Sprintf("%064x", b.ids)
	return c
}

func (b *bench) createPod(p *peer, name string, at place) (uid string, annotations map[string]string) {
	var networks []string
	for k := 1; k <= at.n; k++ {
		network := p.networkName(at, k)
		b.createNetwork(network, p.network(at, k))
		networks = append(networks, network)
	}
	return b.createPodOf(name, strings.Join(networks, ","))
}

func (b *bench) createNetwork(name, config string) {
	if b.networks[name] {
		return
	}
	b.networks[name] = true
	b.cluster.Create(map[string]any{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": map[string]any{"namespace": namespace, "name": name},
		"spec":     map[string]any{"config": config},
	})
}

func (b *bench) createPodOf(name, networks string) (uid string, annotations map[string]string) {
	annotations = make(map[string]string)
	if networks != "" {
		annotations["k8s.v1.cni.cncf.io/networks"] = networks
	}
	b.cluster.Create(map[string]any{
		"kind": "Pod", "metadata": map[string]any{"namespace": namespace, "name": name, "annotations": annotations},
		"spec": map[string]any{"nodeName": nodeName, "containers": []any{map[string]any{"name": "c", "image": "example.org/c"}}},
	})
	var pod struct{ Metadata struct{ UID string } }
	b.cluster.Do("GET", "/api/v1/namespaces/"+namespace+"/pods/"+name, nil, &pod)
	b.fresh = time.Now()
	return pod.Metadata.UID, annotations
}

// settle lets the daemons hear of what was created a moment ago.
func (b *bench) settle() {
	if wait := time.Until(b.fresh.Add(500 * time.Millisecond)); wait > 0 {
		time.Sleep(wait)
	}
}

// namespaces returns n network namespaces, which are used again and again: taking one away keeps the kernel busy for a
// while, at the expense of whoever comes next.
func (b *bench) namespaces(n int) []*nettest.NS {
	for len(b.ns) < n {
		b.ns = append(b.ns, nettest.NewNS(b.t))
	}
	return b.ns[:n]
}

func (b *bench) write(dir, name, content string) string {
	path := filepath.Join(dir, name)
	b.t.must(os.WriteFile(path, []byte(content), 0o600))
	return path
}

func (b *bench) note(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	b.t.Logf("%s", line)
	b.results.Notes = append(b.results.Notes, line)
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

func isSocket(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode()&os.ModeSocket != 0
}

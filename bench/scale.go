package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/nft"
)

// local are the peers that a runtime calls for one network, with no API server behind.
func (b *bench) local(names ...string) (peers []*peer) {
	for _, p := range b.peers {
		if contains(names, p.name) {
			peers = append(peers, p)
		}
	}
	return peers
}

// anyContainer returns a container that is no pod of the API server.
func (b *bench) anyContainer() container {
	b.ids++
	return container{id: fmt.Sprintf("%064x", b.ids), pod: "none"}
}

func (b *bench) turn(p *peer, config string) turn {
	return turn{p, []step{{conflist(b.t, "%s", b.listOf(config)), "eth0"}}, b.anyContainer}
}

// allocation: one address of a pool of which n are taken. Nothing is made but the reservation.
func (b *bench) allocation(counts []int, rounds int) {
	for _, n := range counts {
		b.t.Logf("allocation: %d reservations", n)
		var turns []turn
		for _, p := range b.local(standalonePeer, referencePeer) {
			name := fmt.Sprintf("pool%d-%d", p.number, n)
			b.reserve(filepath.Join("/var/lib/cni/networks", name), n)
			turns = append(turns, b.turn(p, fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "type": "host-local",
				"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/16"}]]}}`, name)))
		}
		b.rounds("allocation", "host-local", n, rounds, 0, turns)
		for _, p := range b.local(standalonePeer, referencePeer) {
			b.t.must(os.RemoveAll(filepath.Join("/var/lib/cni/networks", fmt.Sprintf("pool%d-%d", p.number, n))))
		}
	}
}

// reserve makes n reservations as host-local does, the first addresses of 10.0.0.0/16. The next address follows them.
func (b *bench) reserve(folder string, n int) {
	b.t.must(os.MkdirAll(folder, 0o755))
	a := netip.MustParseAddr("10.0.0.2")
	for i := range n {
		b.t.must(os.WriteFile(filepath.Join(folder, a.String()), fmt.Appendf(nil, "f%063d\r\neth0", i), 0o600))
		a = a.Next()
	}
	b.t.must(os.WriteFile(filepath.Join(folder, "last_reserved_ip.0"), []byte(a.Prev().String()), 0o600))
}

// ports: one port more at a bridge that has n.
func (b *bench) ports(counts []int, rounds int) {
	far := b.namespaces(2)[1]
	for _, n := range counts {
		b.t.Logf("ports: %d", n)
		var turns []turn
		var dummies []string
		for _, p := range b.local(standalonePeer, referencePeer) {
			bridge := fmt.Sprintf("pt%d-%d", p.number, n)
			turns = append(turns, b.turn(p, fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "type": "bridge", "bridge": %q, "isDefaultGateway": true,
				"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.%d.0.0/16"}]]}}`, bridge, bridge, 200+p.number)))
			dummies = append(dummies, bridge)
			br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
			br.Name = bridge
			b.t.must(netlink.LinkAdd(br))
			for i := range n {
				v := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: fmt.Sprintf("q%d-%d", p.number, i), PeerNamespace: netlink.NsFd(b.nsFD(far.Path()))}
				v.Name, v.MasterIndex, v.NumTxQueues, v.NumRxQueues = fmt.Sprintf("q%d-%d", p.number, i), br.Index, 1, 1
				v.Group = 7
				b.t.must(netlink.LinkAdd(v))
				b.t.must(netlink.LinkSetUp(v))
			}
		}
		b.rounds("ports", "bridge", n, rounds, 1, turns)
		b.deleteGroup(7)
		for _, name := range dummies {
			b.deleteLink(name)
		}
	}
}

// withoutMasquerade ends the name of a peer that is called without it.
const withoutMasquerade = ", no masquerade"

// masquerade: one pod more of those whose traffic to the world outside is masqueraded.
func (b *bench) masquerade(counts []int, rounds int) {
	node, err := netdev.Host()
	b.t.must(err)
	defer node.Close()
	for _, n := range counts {
		b.t.Logf("masquerade: %d pods", n)
		var turns []turn
		for _, p := range b.local(standalonePeer, referencePeer) {
			for _, masq := range []bool{false, true} {
				name := fmt.Sprintf("mq%d-%d-%v", p.number, n, masq)
				backend := ""
				if masq && p.name == referencePeer {
					backend = `"ipMasqBackend": "iptables",`
				}
				q := *p
				if !masq {
					q.name += withoutMasquerade
				}
				turns = append(turns, b.turn(&q, fmt.Sprintf(`{"cniVersion": "1.0.0", "name": %q, "type": "bridge", "bridge": "mq%d", "isDefaultGateway": true,
					"ipMasq": %v, %s "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.%d.0.0/16"}]]}}`, name, p.number, masq, backend, 220+p.number)))
				switch {
				case !masq:
				case p.name == referencePeer:
					b.iptablesOf(name, n)
				default:
					for i := range n {
						b.t.must(nft.In(node).AddMasquerade(context.Background(), nft.Owner{Network: name, ContainerID: fmt.Sprintf("%064d", i), IfName: "eth0"},
							[]*net.IPNet{{IP: net.IPv4(10, byte(220+p.number), byte(100+i/250), byte(i%250)), Mask: net.CIDRMask(16, 32)}}))
					}
				}
			}
		}
		b.rounds("masquerade", "bridge", n, rounds, 1, turns)
		for _, u := range turns {
			b.t.must(nft.In(node).GC(context.Background(), u.steps[0].list.Name, nil))
		}
		_ = b.run(nil, "iptables", "-t", "nat", "-F")
		_ = b.run(nil, "iptables", "-t", "nat", "-X")
		for _, p := range b.local(standalonePeer, referencePeer) {
			b.deleteLink(fmt.Sprintf("mq%d", p.number))
		}
	}
}

// iptablesOf makes the rules that the reference plugin has for n pods.
func (b *bench) iptablesOf(network string, n int) {
	var s strings.Builder
	s.WriteString("*nat\n")
	for i := range n {
		fmt.Fprintf(&s, ":CNI-%024x - [0:0]\n", i)
	}
	for i := range n {
		comment := fmt.Sprintf(`-m comment --comment "name: \"%s\" id: \"%064d\""`, network, i)
		fmt.Fprintf(&s, "-A CNI-%024x -d 10.230.0.0/16 %s -j ACCEPT\n", i, comment)
		fmt.Fprintf(&s, "-A CNI-%024x ! -d 224.0.0.0/4 %s -j MASQUERADE\n", i, comment)
		fmt.Fprintf(&s, "-A POSTROUTING -s 10.230.%d.%d/32 %s -j CNI-%024x\n", i/250, i%250, comment, i)
	}
	s.WriteString("COMMIT\n")
	b.t.must(b.run([]byte(s.String()), "iptables-restore", "--noflush"))
}

// definitions: ADD of one network while the API server has n NetworkAttachmentDefinitions, and what the daemons have in
// memory for them.
func (b *bench) definitions(counts []int, rounds int) {
	made := 0
	for _, n := range counts {
		var create errgroup.Group
		create.SetLimit(8)
		for ; made < n; made++ {
			i := made
			create.Go(func() error {
				return b.t.do(func() {
					b.cluster.Create(map[string]any{
						"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
						"metadata": map[string]any{"namespace": namespace, "name": fmt.Sprintf("many-%05d", i)},
						"spec": map[string]any{"config": fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "many-%d", "type": "macvlan", "master": "nic0", "mode": "bridge",
						"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.99.0.0/16"}]]}}`, i)},
					})
				})
			})
		}
		b.t.must(create.Wait())
		b.fresh = time.Now().Add(time.Second)
		b.settle()
		b.latency("definitions", place{kind: "macvlan", n: 1}, n, rounds, b.local(thinPeer, thickPeer, braidPeer, braidDaemonPeer))
		b.daemonMemory(fmt.Sprintf("%d NADs", n))
	}
}

// daemonMemory takes note of what the daemons have in memory.
func (b *bench) daemonMemory(when string) {
	for _, p := range b.peers {
		if p.daemon == nil {
			continue
		}
		now, peak := p.daemon.memory()
		b.results.Values[fmt.Sprintf("memory of the daemon of %s, %s, MiB", p.name, when)] = float64(now) / 1024
		b.results.Values[fmt.Sprintf("peak memory of the daemon of %s, %s, MiB", p.name, when)] = float64(peak) / 1024
		b.t.Logf("  daemon of %s, %s: %.1f MiB now, %.1f at most", p.name, when, float64(now)/1024, float64(peak)/1024)
	}
}

func (b *bench) run(stdin []byte, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(string(stdin))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %v: %w: %s", name, args, err, short(string(out)))
	}
	return nil
}

package main

import (
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// dhcp: a pod with n networks of one LAN, each of which has its address from a DHCP server there. The server is on the
// node itself, behind a network card of its own.
func (b *bench) dhcp(counts []int, rounds int) {
	server, err := exec.LookPath("dnsmasq")
	if err != nil {
		b.note("Left out: DHCP. dnsmasq is not installed.")
		return
	}
	far := b.namespaces(3)[2]
	nic := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "lan0", PeerNamespace: netlink.NsFd(b.nsFD(far.Path()))}
	nic.Name = "nic1"
	b.t.must(netlink.LinkAdd(nic))
	defer b.deleteLink("nic1")
	b.t.must(netlink.LinkSetUp(nic))
	b.t.must(far.Handle().LinkSetUp(far.Link(b.t, "lan0")))
	far.Address(b.t, "lan0", "192.0.2.1/24")
	far.Do(b.t, func() {
		startDaemon(b.t, "dnsmasq", nil, server, "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "--port=0", "--user=root",
			"--no-ping", "--interface=lan0", "--except-interface=lo", "--bind-interfaces", "--dhcp-authoritative",
			"--dhcp-leasefile="+filepath.Join(b.t.dir, "dnsmasq.leases"), "--pid-file="+filepath.Join(b.t.dir, "dnsmasq.pid"),
			"--dhcp-range=192.0.2.50,192.0.2.250,255.255.255.0,1h")
	})
	// Braid's keeper serves the socket that its configurations mean; it is a part of the daemon where there is one.
	if !contains(b.results.Peers, braidDaemonPeer) {
		keeper := startDaemon(b.t, "braidd-dhcp", nil, filepath.Join(b.bin, "braid", "braidd"), "dhcp")
		keeper.until(b.t, "braidd dhcp serves its socket", func() bool { return isSocket(lease.DefaultSocket) })
	}
	refSocket := "/run/cni/reference-dhcp.sock"
	reference := startDaemon(b.t, "reference-dhcp", nil, filepath.Join(b.bin, "reference", "dhcp"), "daemon", "-socketpath", refSocket)
	reference.until(b.t, "the reference dhcp daemon serves its socket", func() bool { return isSocket(refSocket) })
	for _, n := range counts {
		b.t.Logf("dhcp: %d networks", n)
		var turns []turn
		for _, p := range b.local(thinPeer, thickPeer, referencePeer, braidPeer, braidDaemonPeer, standalonePeer) {
			socket := ""
			if p.name == referencePeer || p.name == thinPeer || p.name == thickPeer {
				socket = fmt.Sprintf(`, "daemonSocketPath": %q`, refSocket)
			}
			config := func(k int) string {
				return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "dhcp%d-%d", "type": "macvlan", "master": "nic1", "mode": "bridge",
					"ipam": {"type": "dhcp"%s}}`, p.number, k, socket)
			}
			if p.meta {
				turns = append(turns, b.dhcpPod(p, n, config))
				continue
			}
			steps := []step{{conflist(b.t, "%s", b.listOf(p.defaultNetwork())), "eth0"}}
			for k := 1; k <= n; k++ {
				steps = append(steps, step{conflist(b.t, "%s", b.listOf(config(k))), fmt.Sprint("net", k)})
			}
			turns = append(turns, turn{p, steps, b.anyContainer})
		}
		b.settle()
		b.rounds("dhcp", "macvlan", n, rounds, n+1, turns)
	}
}

// dhcpPod is a pod of the API server with n networks.
func (b *bench) dhcpPod(p *peer, n int, config func(k int) string) turn {
	name, networks := fmt.Sprintf("p%d-dhcp-%d", p.number, n), ""
	for k := 1; k <= n; k++ {
		network := fmt.Sprintf("dhcp%d-%d", p.number, k)
		b.createNetwork(network, config(k))
		networks += "," + network
	}
	c := container{pod: name}
	c.uid, c.annotations = b.createPodOf(name, networks[1:])
	return turn{p, p.steps(place{}, 0), func() container {
		b.ids++
		c.id = fmt.Sprintf("%064x", b.ids)
		return c
	}}
}

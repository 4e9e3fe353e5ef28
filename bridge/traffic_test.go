package bridge_test

import (
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/internal/nettest"
)

// address returns the pod's address of a family.
func (p *pod) address(v4 bool) string {
	p.Helper()
	for _, ip := range p.res.IPs {
		if (ip.Address.IP.To4() != nil) == v4 {
			return ip.Address.IP.String()
		}
	}
	p.Fatal("no such address")
	return ""
}

func TestPodsReachEachOther(t *testing.T) {
	for keys, reached := range map[string]bool{"": true, `"portIsolation": true, `: false, `"macspoofchk": true, `: true} {
		t.Run(keys, func(t *testing.T) {
			w := newWorld(t)
			keys := keys + `"isGateway": true, ` + hostLocal(subnet4, subnet6)
			a, b := w.attached(keys), w.attached(keys)
			for _, v4 := range []bool{true, false} {
				if reached {
					nettest.Reach(t, a.ns, b.ns, b.address(v4))
				} else {
					nettest.NoReach(t, a.ns, b.ns, b.address(v4))
				}
			}
			// The node itself is not another port.
			nettest.Reach(t, a.ns, w.node, "10.88.0.1")
			nettest.Reach(t, a.ns, w.node, "2001:db8:88::1")
		})
	}
}

// Nobody outside has a route to the pods.
func TestMasquerade(t *testing.T) {
	for _, backend := range []string{"", `"ipMasqBackend": "iptables", `, `"ipMasqBackend": "nftables", `} {
		t.Run(backend, func(t *testing.T) {
			w := newWorld(t)
			nic := nettest.Parent(t, w.node)
			w.node.Address(t, nic.Name, "192.0.2.1/24", "2001:db8:2::1/64")
			nic.LAN.Address(t, nic.Port, "192.0.2.9/24", "2001:db8:2::9/64")

			ipam := hostLocal(subnet4, subnet6)
			plain := w.attached(`"isDefaultGateway": true, ` + ipam)
			masqueraded := w.attached(backend + dual + ipam)
			for _, to := range []string{"192.0.2.9", "2001:db8:2::9"} {
				nettest.Reach(t, masqueraded.ns, nic.LAN, to)
				nettest.NoReach(t, plain.ns, nic.LAN, to)
			}
			// Within the subnet pods see each other as they are.
			if from := seen(t, masqueraded, plain); from != masqueraded.address(true) {
				t.Errorf("a pod of the same subnet sees %s, not %s", from, masqueraded.address(true))
			}
			must(t, masqueraded.check())
			must(t, masqueraded.del())
			w.noRules()
		})
	}
}

// seen returns the address that a pod's packets have when they arrive at another one.
func seen(t *testing.T, from, to *pod) string {
	t.Helper()
	var server net.PacketConn
	var err error
	to.ns.Do(t, func() { server, err = net.ListenPacket("udp", net.JoinHostPort(to.address(true), "0")) })
	must(t, err)
	defer server.Close()
	var client net.Conn
	from.ns.Do(t, func() { client, err = net.Dial("udp", server.LocalAddr().String()) })
	must(t, err)
	defer client.Close()
	for range 50 { // a datagram may be lost
		_, err = client.Write([]byte("hello"))
		must(t, err)
		must(t, server.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		_, peer, err := server.ReadFrom(make([]byte, 16))
		if err == nil {
			return peer.(*net.UDPAddr).IP.String()
		}
	}
	t.Fatalf("nothing arrives at %s", server.LocalAddr())
	return ""
}

func TestSpoofedMACIsDropped(t *testing.T) {
	w := newWorld(t)
	ipam := hostLocal(subnet4)
	a, b := w.attached(`"macspoofchk": true, `+ipam), w.attached(ipam)
	nettest.Reach(t, a.ns, b.ns, b.address(true))
	link := a.ns.Link(t, "net1")
	own := link.Attrs().HardwareAddr
	must(t, a.ns.Handle().LinkSetHardwareAddr(link, net.HardwareAddr{2, 0, 0, 0, 0, 9}))
	nettest.NoReach(t, a.ns, b.ns, b.address(true))
	must(t, a.ns.Handle().LinkSetHardwareAddr(link, own))
	nettest.Reach(t, a.ns, b.ns, b.address(true))
	must(t, a.del())
	w.noRules()
}

// A pod reaches itself by what the node does to an address of its own, which is what hairpin mode is for.
func TestHairpin(t *testing.T) {
	for keys, want := range map[string]bool{`"hairpinMode": true, `: true, "": false} {
		w := newWorld(t)
		p := w.attached(keys + hostLocal(subnet4))
		info, err := w.node.Handle().LinkGetProtinfo(p.port())
		must(t, err)
		if info.Hairpin != want {
			t.Errorf("hairpin mode is %t, want %t", info.Hairpin, want)
		}
	}
}

func TestPromiscuous(t *testing.T) {
	w := newWorld(t)
	w.attached(`"promiscMode": true`)
	if w.br().Promisc == 0 {
		t.Error("the bridge is not promiscuous")
	}
}

// Pods must not tell the node by router advertisements what its routes are.
func TestBridgeIgnoresRouterAdvertisements(t *testing.T) {
	w := newWorld(t)
	w.attached("")
	value, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + w.bridge + "/accept_ra")
	if err != nil || strings.TrimSpace(string(value)) != "0" {
		t.Errorf("accept_ra is %q, %v; want 0", value, err)
	}
}

func TestTwentyPodsAtOnceOnANewBridge(t *testing.T) {
	w := newWorld(t)
	pods := make([]*pod, 20)
	for i := range pods {
		keys := dual + `"macspoofchk": true, ` + hostLocal(subnet4)
		if i%2 == 1 {
			keys = `"isGateway": true, ` + strings.Replace(hostLocal(subnet4), `"ranges"`, `"routes": [{"dst": "198.51.100.0/24", "gw": "203.0.113.9"}], "ranges"`, 1)
		}
		pods[i] = w.pod(keys)
	}
	errs := make([]error, len(pods))
	var wg sync.WaitGroup
	for i, p := range pods {
		wg.Go(func() { errs[i] = p.add() })
	}
	wg.Wait()
	for i, p := range pods {
		if i%2 == 1 {
			if errs[i] == nil {
				t.Errorf("pod %d has got a route to nowhere", i)
			}
			p.res = nil
			continue
		}
		must(t, errs[i])
		must(t, p.check())
	}
	nettest.Reach(t, pods[0].ns, pods[18].ns, pods[18].address(true))
	if have := w.addresses(w.node, w.bridge); len(have) != 1 {
		t.Errorf("addresses of the bridge: %v", have)
	}
	for i := 0; i < len(pods); i += 2 {
		must(t, pods[i].del())
	}
	if left := w.reservations(); len(left) != 0 {
		t.Errorf("reserved: %v", left)
	}
}

// If none succeeds, the bridge that one of them has created goes too.
func TestAllOfManyFail(t *testing.T) {
	w := newWorld(t)
	w.withIPAM(failing{verbs: "ADD"})
	var wg sync.WaitGroup
	for range 10 {
		p := w.pod(anyIPAM)
		wg.Go(func() {
			if p.add() == nil {
				t.Error("ADD passes")
			}
		})
	}
	wg.Wait()
	w.noBridge()
}

func TestNamesOfPortsAreTaken(t *testing.T) {
	w := newWorld(t)
	p := w.attached("")
	name := p.port().Attrs().Name
	must(t, p.del())
	other := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: nettest.Name("peer")}
	other.Name = name
	must(t, w.node.Handle().LinkAdd(other))
	must(t, w.node.Handle().LinkSetAlias(other, "somebody else's"))
	p.res = nil
	must(t, p.add())
	must(t, p.check())
	if now := w.node.Link(t, name).Attrs(); now.Alias != "somebody else's" || now.MasterIndex != 0 || now.Flags&net.FlagUp != 0 {
		t.Errorf("somebody else's interface has become %+v", now)
	}
	must(t, p.del())
	must(t, w.node.Handle().LinkDel(other))
}

package dhcp_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/ipam/dhcp"
	"github.com/braid-cni/braid/ipam/dhcp/keeper"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

var router = dhcpv4.OptRouter(net.ParseIP(lanAddress))

func testAddRenewRelease(t *testing.T) {
	w := newWorld(t)
	k, _ := w.keeper()
	s := w.server(append(times(time.Second, time.Minute, time.Hour), router)...)
	p := w.pod("").add()

	if got := p.addresses(); !slices.Equal(got, []string{"192.0.2.100/24"}) {
		t.Errorf("the pod has addresses %v", got)
	}
	if got := p.routes(); !slices.Equal(got, []string{"default via 192.0.2.1"}) {
		t.Errorf("the pod has routes %v", got)
	}
	w.eventually("the lease is renewed", func() bool { return len(s.received(dhcpv4.MessageTypeRequest)) >= 3 })
	renew := s.received(dhcpv4.MessageTypeRequest)[1]
	if renew.from.Addr() != p.address(32) || !renew.ClientIPAddr.Equal(p.address(32).AsSlice()) ||
		renew.ServerIdentifier() != nil || renew.RequestedIPAddress() != nil {
		t.Errorf("a renewal comes from %s:\n%s", renew.from, renew.Summary())
	}
	if err := p.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}

	p.del()
	w.eventually("the server has got the address back", func() bool { return s.clients() == 0 })
	release := s.received(dhcpv4.MessageTypeRelease)
	if len(release) != 1 || release[0].from.Addr() != p.address(32) {
		t.Errorf("released %d times, from %v", len(release), release[0].from)
	}
	if k.Len() != 0 {
		t.Errorf("the keeper still has %d leases", k.Len())
	}
	p.del() // again
}

// The link is up and has its MAC before the first message, and the identifier is that of the reference.
func TestDiscover(t *testing.T) {
	w := newWorld(t)
	w.keeper()
	s := w.server()
	p := w.pod(`"provide": [{"option": "host-name", "fromArg": "K8S_POD_NAME"}, {"option": "60", "value": "braid"}],
		"request": [{"option": "42", "skipDefault": true}]`)
	p.req.Args = "K8S_POD_NAME=blue;IgnoreUnknown=1"
	p.add()
	first := s.received(dhcpv4.MessageTypeDiscover)[0]
	want := "\x00" + p.req.ContainerID + "/lan/net1"
	if got := string(first.Options.Get(dhcpv4.OptionClientIdentifier)); got != want {
		t.Errorf("the client identifier is %q, want %q", got, want)
	}
	if mac := p.ns.Link(t, "net1").Attrs().HardwareAddr; first.ClientHWAddr.String() != mac.String() {
		t.Errorf("the hardware address is %s, that of the interface %s", first.ClientHWAddr, mac)
	}
	if first.HostName() != "blue" || first.ClassIdentifier() != "braid" {
		t.Errorf("host name %q and vendor class %q are sent", first.HostName(), first.ClassIdentifier())
	}
	if got := first.ParameterRequestList().String(); got != "NTP Servers" {
		t.Errorf("the server is asked for %s", got)
	}
	p.del()
	w.eventually("the lease is released", func() bool { return s.clients() == 0 })
	if release := s.received(dhcpv4.MessageTypeRelease)[0]; release.HostName() != "blue" {
		t.Errorf("the release does not have what the configuration provides:\n%s", release.Summary())
	}
}

func testChangedLease(t *testing.T) {
	w := newWorld(t)
	var mu sync.Mutex
	var changes []keeper.Change
	w.keeper(func(o *keeper.Options) {
		o.Changed = func(c keeper.Change) {
			mu.Lock()
			defer mu.Unlock()
			changes = append(changes, c)
		}
	})
	s := w.server(append(times(time.Second, time.Minute, time.Hour), router)...)
	p := w.pod("").add()
	other := w.pod("").add()
	// A pod that has its default route elsewhere.
	if err := other.ns.Handle().RouteDel(&netlink.Route{Dst: cidr(t, "0.0.0.0/0"), Gw: net.ParseIP(lanAddress)}); err != nil {
		t.Fatal(err)
	}

	s.set(func(s *fakeServer) {
		s.options = append(s.options, dhcpv4.OptRouter(net.ParseIP("192.0.2.2")))
	})
	w.eventually("the default route follows", func() bool {
		return slices.Equal(p.routes(), []string{"default via 192.0.2.2"})
	})
	if err := p.check(); err == nil {
		t.Error("CHECK passes although the lease has another gateway than prevResult")
	}
	w.eventually("all pods have been told", func() bool { mu.Lock(); defer mu.Unlock(); return len(changes) == 2 })
	if got := changes[0].Held.IPv4.Gateway; got != netip.MustParseAddr("192.0.2.2") {
		t.Errorf("the change that is reported has the gateway %s", got)
	}
	if got := other.routes(); len(got) != 0 {
		t.Errorf("a default route that was removed has come back: %v", got)
	}

	// Another address. A server must not, but can.
	s.set(func(s *fakeServer) { s.given, s.next = map[string]netip.Addr{}, netip.MustParseAddr("192.0.2.200") })
	w.eventually("the addresses follow", func() bool {
		all := slices.Concat(p.addresses(), other.addresses())
		slices.Sort(all)
		return slices.Equal(all, []string{"192.0.2.200/24", "192.0.2.201/24"})
	})
	w.eventually("the default route is there again", func() bool {
		return slices.Equal(p.routes(), []string{"default via 192.0.2.2"})
	})
	if got := other.routes(); len(got) != 0 {
		t.Errorf("a default route that was removed has come back: %v", got)
	}
}

func testNAK(t *testing.T) {
	w := newWorld(t)
	w.keeper()
	s := w.server(append(times(time.Second, time.Minute, time.Hour), router)...)
	p := w.pod("").add()
	s.set(func(s *fakeServer) {
		s.given, s.next = map[string]netip.Addr{}, netip.MustParseAddr("192.0.2.200")
		s.answer = func(question, answer *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
			if !question.ClientIPAddr.IsUnspecified() {
				answer.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeNak))
				answer.YourIPAddr = net.IPv4zero
			}
			return []*dhcpv4.DHCPv4{answer}
		}
	})
	w.eventually("there is another address and its route", func() bool {
		return slices.Equal(p.addresses(), []string{"192.0.2.200/24"}) &&
			slices.Equal(p.routes(), []string{"default via 192.0.2.1"})
	})
}

// testRefusedChange: the kernel does not take a route of another lease at the moment, and takes the rest.
func testRefusedChange(t *testing.T) {
	w := newWorld(t)
	w.keeper()
	s := w.server(times(time.Second, time.Minute, time.Hour)...)
	p := w.pod("").add()
	_, beyond, _ := net.ParseCIDR("203.0.113.0/24")
	_, gateways, _ := net.ParseCIDR("198.51.100.0/24")
	s.set(func(s *fakeServer) {
		// Later nothing is asked for that could be another reason to change the interface.
		s.options = append(times(time.Minute, 2*time.Minute, time.Hour),
			dhcpv4.OptClasslessStaticRoute(&dhcpv4.Route{Dest: beyond, Router: net.IPv4(198, 51, 100, 1)}))
		s.given, s.next = map[string]netip.Addr{}, netip.MustParseAddr("192.0.2.200")
	})
	w.eventually("there is another address", func() bool { return slices.Equal(p.addresses(), []string{"192.0.2.200/24"}) })
	onLink := &netlink.Route{LinkIndex: p.ns.Link(t, "net1").Attrs().Index, Dst: gateways, Scope: netlink.SCOPE_LINK}
	if err := p.ns.Handle().RouteAdd(onLink); err != nil {
		t.Fatal(err)
	}
	w.eventually("the route is there too", func() bool {
		return slices.Contains(p.routes(), "203.0.113.0/24 via 198.51.100.1")
	})
}

func testRebind(t *testing.T) {
	w := newWorld(t)
	w.keeper()
	s := w.server(times(time.Second, 2*time.Second, time.Hour)...)
	p := w.pod("").add()
	s.set(func(s *fakeServer) {
		s.id = netip.MustParseAddr("192.0.2.2") // the first one is gone
		s.answer = func(question, answer *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
			if len(s.seen) < 4 {
				return nil // asked alone it does not answer
			}
			return []*dhcpv4.DHCPv4{answer}
		}
	})
	w.lan.Address(t, w.nic.Port, "192.0.2.2/24")
	w.eventually("the new server is asked", func() bool {
		// DISCOVER, REQUEST, RENEW, REBIND, RENEW
		return len(s.received(dhcpv4.MessageTypeRequest)) >= 4
	})
	if err := p.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
}

// The server is behind a router, and the pod has its default route elsewhere.
func testServerBehindRouter(t *testing.T) {
	w := newWorld(t)
	w.keeper()
	w.lan.Address(t, w.nic.Port, "198.51.100.1/32")
	s := w.server(append(times(time.Second, time.Minute, time.Hour), router)...)
	s.set(func(s *fakeServer) { s.id = netip.MustParseAddr("198.51.100.1") })
	p := w.pod("").add()
	if err := p.ns.Handle().RouteDel(&netlink.Route{Dst: cidr(t, "0.0.0.0/0"), Gw: net.ParseIP(lanAddress)}); err != nil {
		t.Fatal(err)
	}
	w.eventually("the lease is renewed", func() bool { return len(s.received(dhcpv4.MessageTypeRequest)) >= 3 })
	if from := s.received(dhcpv4.MessageTypeRequest)[2].from.Addr(); from != p.address(32) {
		t.Errorf("a renewal comes from %s", from)
	}
	p.del()
	w.eventually("the lease is released", func() bool { return s.clients() == 0 })
}

// The keeper leaves an interface alone that somebody has set down, and waits.
func testLinkDown(t *testing.T) {
	w := newWorld(t)
	w.keeper()
	s := w.server(times(time.Second, time.Minute, time.Hour)...)
	p, other := w.pod("").add(), w.pod("").add()
	for _, p := range []*pod{p, other} {
		if err := p.ns.Handle().LinkSetDown(p.ns.Link(t, "net1")); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(1500 * time.Millisecond) // past T1
	if p.ns.Link(t, "net1").Attrs().Flags&net.FlagUp != 0 {
		t.Error("the interface has been set up")
	}
	start := time.Now()
	other.del()
	if d := time.Since(start); d > 4*time.Second {
		t.Errorf("DEL takes %s", d)
	}
	before := len(s.received(dhcpv4.MessageTypeRequest))
	if err := p.ns.Handle().LinkSetUp(p.ns.Link(t, "net1")); err != nil {
		t.Fatal(err)
	}
	w.eventually("the lease is renewed", func() bool { return len(s.received(dhcpv4.MessageTypeRequest)) > before })
}

// A later plugin of the chain gives the interface another MAC.
func testOtherMAC(t *testing.T) {
	w := newWorld(t)
	w.keeper()
	s := w.server(times(time.Second, time.Minute, time.Hour)...)
	p := w.pod("").add()
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 7}
	if err := p.ns.Handle().LinkSetHardwareAddr(p.ns.Link(t, "net1"), mac); err != nil {
		t.Fatal(err)
	}
	w.eventually("the lease is renewed", func() bool { return len(s.received(dhcpv4.MessageTypeRequest)) >= 3 })
	if got := s.received(dhcpv4.MessageTypeRequest)[2].ClientHWAddr; got.String() != mac.String() {
		t.Errorf("the renewal has the hardware address %s", got)
	}
}

func testProbe(t *testing.T) {
	w := newWorld(t)
	w.keeper()
	s := w.server()
	w.lan.Address(t, w.nic.Port, "192.0.2.100/24") // and nobody has told the server
	p := w.pod(`"probe": true`).add()
	if got := p.addresses(); !slices.Equal(got, []string{"192.0.2.101/24"}) {
		t.Errorf("the pod has %v", got)
	}
	declined := s.received(dhcpv4.MessageTypeDecline)
	if len(declined) != 1 || !declined[0].RequestedIPAddress().Equal(net.IPv4(192, 0, 2, 100)) {
		t.Errorf("declined: %v", declined)
	}
}

// What a CNI result has no place for.
func TestLeases(t *testing.T) {
	w := newWorld(t)
	w.keeper()
	w.server(dhcpv4.OptNTPServers(net.IPv4(192, 0, 2, 5)), dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x05, 0x14}))
	p := w.pod("").add()
	held, err := dhcp.Plugin{}.Leases(context.Background(), p.req)
	if err != nil {
		t.Fatal(err)
	}
	l := held.IPv4
	if l.MTU != 1300 || len(l.NTP) != 1 || l.NTP[0].String() != "192.0.2.5" || !l.Valid(time.Now()) || held.IPv6 != nil {
		t.Errorf("the lease is %+v", l)
	}
	// The configuration has another opinion.
	q := w.pod("")
	q.req.Config = with(t, q.req.Config, "mtu", 1450)
	q.add()
	for p, want := range map[*pod]int{p: 1300, q: 1450} {
		if mtu := p.ns.Link(t, "net1").Attrs().MTU; mtu != want {
			t.Errorf("the MTU is %d, want %d", mtu, want)
		}
	}
}

func testExpire(t *testing.T) {
	w := newWorld(t)
	w.keeper()
	s := w.server(append(times(time.Second, 2*time.Second, 3*time.Second), router)...)
	p := w.pod("").add()
	s.set(func(s *fakeServer) { s.answer = silent })
	w.eventually("the address is removed", func() bool { return len(p.addresses()) == 0 })
	if got := p.routes(); len(got) != 0 {
		t.Errorf("without a lease the pod has the routes %v", got)
	}
	if p.ns.Link(t, "net1").Attrs().Flags&net.FlagUp == 0 {
		t.Error("the interface is down")
	}
	if err := p.check(); err == nil || !strings.Contains(err.Error(), "lost") {
		t.Errorf("CHECK says %v", err)
	}
	s.set(func(s *fakeServer) { s.answer, s.options = nil, s.options[:1]; s.options = append(s.options, router) })
	w.eventually("the lease is there again", func() bool {
		return slices.Equal(p.addresses(), []string{p.address(32).String() + "/24"}) &&
			slices.Equal(p.routes(), []string{"default via 192.0.2.1"})
	})
	w.eventually("CHECK passes again", func() bool { return p.check() == nil })
}

// The keeper is killed, the lease is still there for the next one, which asks the server whether it is good.
func testKilledKeeper(t *testing.T) {
	w := newWorld(t)
	s := w.server(router)
	kill := w.killableKeeper()
	p := w.pod("").add()
	kill()
	w.killableKeeper()
	w.eventually("the server is asked about the lease", func() bool { return len(s.received(dhcpv4.MessageTypeRequest)) == 2 })
	reboot := s.received(dhcpv4.MessageTypeRequest)[1]
	if !reboot.RequestedIPAddress().Equal(p.address(32).AsSlice()) || !reboot.ClientIPAddr.IsUnspecified() ||
		reboot.ServerIdentifier() != nil {
		t.Errorf("this is no INIT-REBOOT:\n%s", reboot.Summary())
	}
	if err := p.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if n := len(s.received(dhcpv4.MessageTypeDiscover)); n != 1 {
		t.Errorf("%d DISCOVER, want that of the ADD", n)
	}
	p.del()
	w.eventually("the lease is released", func() bool { return s.clients() == 0 })
}

// killableKeeper starts a keeper as a process of its own. Kill returns when it is dead.
func (w *world) killableKeeper() (kill func()) {
	w.Helper()
	_, kill = w.keeperProcess()
	return kill
}

func (w *world) keeperProcess() (pid int, kill func()) {
	w.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), keeperEnv+"="+w.socket)
	cmd.Stderr = w.Output()
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	w.Cleanup(kill)
	w.eventually("the keeper runs", func() bool { return dhcp.Plugin{}.Status(context.Background(), w.pod("").req) == nil })
	return cmd.Process.Pid, kill
}

func testRefusedAfterRestart(t *testing.T) {
	w := newWorld(t)
	s := w.server()
	_, stop := w.keeper()
	p := w.pod("").add()
	stop()
	s.set(func(s *fakeServer) {
		s.given, s.next = map[string]netip.Addr{}, netip.MustParseAddr("192.0.2.200")
		s.answer = func(question, answer *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
			want := question.RequestedIPAddress()
			if question.MessageType() == dhcpv4.MessageTypeRequest && !want.Equal(answer.YourIPAddr) {
				answer.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeNak))
			}
			return []*dhcpv4.DHCPv4{answer}
		}
	})
	w.keeper()
	w.eventually("the pod has another address", func() bool { return slices.Equal(p.addresses(), []string{"192.0.2.200/24"}) })
}

// Records of an earlier boot, of a namespace that had the same path, or torn ones, are about nothing.
func TestStaleRecords(t *testing.T) {
	for name, change := range map[string]func(string) string{
		"another boot":      func(s string) string { return strings.Replace(s, `"bootID": "`, `"bootID": "x`, 1) },
		"another namespace": func(s string) string { return strings.Replace(s, `"inode": `, `"inode": 1`, 1) },
		"another interface": func(s string) string { return strings.Replace(s, `"index": `, `"index": 1`, 1) },
		"torn":              func(s string) string { return s[:len(s)/2] },
		"empty":             func(string) string { return "" },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := w.server()
			_, stop := w.keeper()
			p := w.pod("").add()
			stop()
			files, err := filepath.Glob(filepath.Join(lease.Dir(w.socket), "*.json"))
			if err != nil || len(files) != 1 {
				t.Fatalf("records: %v, %v", files, err)
			}
			record, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(files[0], []byte(change(string(record))), 0o600); err != nil {
				t.Fatal(err)
			}
			k, _ := w.keeper()
			w.eventually("the keeper has no lease", func() bool { return k.Len() == 0 })
			if n := len(s.received(dhcpv4.MessageTypeRequest)); n != 1 {
				t.Errorf("%d REQUEST, want that of the ADD", n)
			}
			if _, err := os.Stat(files[0]); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the record is still there: %v", err)
			}
			p.del()
		})
	}
}

func testNamespaceGone(t *testing.T) {
	w := newWorld(t)
	k, _ := w.keeper()
	w.server(times(time.Second, time.Minute, time.Hour)...)
	p := w.pod("").add()
	p.ns.Remove(t)
	w.eventually("the keeper has forgotten the lease", func() bool { return k.Len() == 0 })
	p.del()
}

// The keeper holds nothing open that would keep the namespace of a dead pod alive.
func TestNamespaceIsNotHeld(t *testing.T) {
	w := newWorld(t)
	w.keeper()
	w.server()
	p := w.pod("").add()
	ns, err := os.Open(p.ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	node := nettest.Node(t)
	canary := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "canary", PeerNamespace: netlink.NsFd(ns.Fd())}
	canary.Name = nettest.Name("canary")
	if err := errors.Join(node.Handle().LinkAdd(canary), ns.Close()); err != nil {
		t.Fatal(err)
	}
	p.ns.Remove(t)
	w.eventually("the namespace is gone, and its veth", func() bool { return !slices.Contains(node.Links(t), canary.Name) })
}

func cidr(t *testing.T, s string) *net.IPNet {
	t.Helper()
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func code(err error) uint {
	var e *types.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

package netdev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
)

func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }

// pod is a namespace with an interface net1 whose other end is in the LAN.
type pod struct {
	*Namespace
	test *nettest.NS
	lan  *nettest.NS
	port string
}

func newPod(t *testing.T) *pod {
	t.Helper()
	nettest.LeakCheck(t)
	p := &pod{test: nettest.NewNS(t)}
	nic := nettest.Parent(t, p.test)
	p.lan, p.port = nic.LAN, nic.Port
	link := p.test.Link(t, nic.Name)
	must(t, p.test.Handle().LinkSetDown(link))
	must(t, p.test.Handle().LinkSetName(link, "net1"))
	must(t, p.test.Handle().LinkSetUp(link))
	p.Namespace = open(t, p.test.Path())
	return p
}

func open(t *testing.T, path string) *Namespace {
	t.Helper()
	ns, err := Open(path)
	must(t, err)
	t.Cleanup(func() { ns.Close() })
	return ns
}

// link looks an interface up anew.
func (p *pod) link(t *testing.T, name string) netlink.Link {
	t.Helper()
	link, err := p.Link(name)
	must(t, err)
	return link
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// result is that of net1: addresses as "192.0.2.2/24" or, with a gateway, "192.0.2.2/24 192.0.2.1".
func result(t *testing.T, ips []string, routes ...*types.Route) *types100.Result {
	t.Helper()
	res := &types100.Result{Interfaces: []*types100.Interface{{Name: "net1", Sandbox: "/run/netns/pod"}}, Routes: routes}
	for _, s := range ips {
		cidr, gw, _ := strings.Cut(s, " ")
		res.IPs = append(res.IPs, &types100.IPConfig{Interface: types100.Int(0), Address: *cidrOf(t, cidr), Gateway: net.ParseIP(gw)})
	}
	return res
}

func cidrOf(t *testing.T, s string) *net.IPNet {
	t.Helper()
	ip, n, err := net.ParseCIDR(s)
	must(t, err)
	n.IP = ip
	return n
}

func route(t *testing.T, dst, gw string) *types.Route {
	t.Helper()
	return &types.Route{Dst: *cidrOf(t, dst), GW: net.ParseIP(gw)}
}

// show prints the routes of a namespace like ip route does, without those that the kernel makes itself.
func (p *pod) show(t *testing.T) (lines []string) {
	t.Helper()
	routes, err := p.routes(netlink.FAMILY_ALL)
	must(t, err)
	for _, r := range routes {
		if r.Protocol == unix.RTPROT_KERNEL {
			continue
		}
		line := routeString(&r)
		for _, metric := range []struct {
			name  string
			value int
		}{{"metric", r.Priority}, {"mtu", r.MTU}, {"advmss", r.AdvMSS}, {"scope", int(r.Scope)}} {
			if metric.value != 0 {
				line += fmt.Sprintf(" %s %d", metric.name, metric.value)
			}
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

func (p *pod) wantRoutes(t *testing.T, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := p.show(t); !slices.Equal(got, want) {
		t.Errorf("routes are\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestOpenTellsGoneFromWrong(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "what is left of an unmounted namespace")
	must(t, os.WriteFile(file, nil, 0o600))
	for path, gone := range map[string]bool{
		"":                                  true,
		filepath.Join(dir, "absent"):        true,
		filepath.Join(file, "not a folder"): true,
		file:                                true,
		dir:                                 true,
		"/proc/self/ns/mnt":                 false,
	} {
		ns, err := Open(path)
		if err == nil {
			ns.Close()
			t.Errorf("%q opens", path)
		} else if errors.Is(err, ErrGone) != gone {
			t.Errorf("%q: %v; is gone: %v, want %v", path, err, !gone, gone)
		} else if !gone && !strings.Contains(err.Error(), "a namespace, but not a network namespace") {
			t.Errorf("%q: %v, which does not say what it is", path, err)
		}
	}
}

func TestOpenShares(t *testing.T) {
	p := newPod(t)
	again, err := Open(p.Path())
	must(t, err)
	if again != p.Namespace {
		t.Error("a namespace that is open is opened once more")
	}
	must(t, again.Close())
	if _, err := p.Link("net1"); err != nil {
		t.Errorf("closed by one of two, it is of no use to the other: %v", err)
	}
	alone, err := Open(nettest.NewNS(t).Path())
	must(t, err)
	must(t, alone.Close())
	if err := alone.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
	again = open(t, p.Path())

	// The path leads elsewhere from now on.
	other := nettest.NewNS(t)
	must(t, unix.Unmount(p.Path(), unix.MNT_DETACH))
	must(t, unix.Mount(other.Path(), p.Path(), "", unix.MS_BIND, ""))
	moved := open(t, p.Path())
	if _, err := moved.Link("net1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the namespace that was there before is opened: %v", err)
	}
	if _, err := again.Link("net1"); err != nil {
		t.Errorf("who has the one before open has lost it: %v", err)
	}
	must(t, errors.Join(again.Close(), p.Close()))
	if open(t, p.Path()) != moved {
		t.Error("a namespace that is open is opened once more, since the one that was there before is closed")
	}
}

func TestCookie(t *testing.T) {
	a, b := nettest.NewNS(t), nettest.NewNS(t)
	first := open(t, a.Path())
	cookie := first.Cookie()
	must(t, unix.Mount(a.Path(), b.Path(), "", unix.MS_BIND, ""))
	if same := open(t, b.Path()); same == first || same.Cookie() != cookie {
		t.Errorf("by another path it has the cookie %d, not %d", same.Cookie(), cookie)
	}
	must(t, unix.Unmount(b.Path(), unix.MNT_DETACH))
	if other := open(t, b.Path()); cookie == 0 || other.Cookie() == cookie {
		t.Errorf("two namespaces have the cookies %d and %d", cookie, other.Cookie())
	}
}

func TestDoComesBack(t *testing.T) {
	p := newPod(t)
	before, err := os.Readlink("/proc/thread-self/ns/net")
	must(t, err)
	var inside string
	must(t, p.Do(func() (err error) { inside, err = os.Readlink("/proc/thread-self/ns/net"); return err }))
	if inside == before {
		t.Error("Do ran outside")
	}
	oops := errors.New("oops")
	if err := p.Do(func() error { return oops }); !errors.Is(err, oops) {
		t.Errorf("Do returned %v, want the error of the function", err)
	}
	for range 20 {
		must(t, outside(before))
	}
}

// outside returns an error if new goroutines do not run where they should.
func outside(want string) error {
	done := make(chan error)
	go func() {
		if now, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || now != want {
			done <- fmt.Errorf("a goroutine runs in %s (%v), want %s", now, err, want)
		}
		close(done)
	}()
	return <-done
}

func TestLinkFreeDelete(t *testing.T) {
	p := newPod(t)
	if _, err := p.Link("net2"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a missing interface: %v", err)
	}
	must(t, p.Free("net2"))
	if err := p.Free("net1"); err == nil {
		t.Error("net1 counts as free")
	}
	found, err := p.Find("net2", "lo", strings.Repeat("n", 40), "net1")
	must(t, err)
	if found[0] != nil || found[2] != nil || found[1] == nil || found[1].Attrs().Name != "lo" || found[3] == nil || found[3].Attrs().Name != "net1" {
		t.Errorf("found %v, want lo and net1", found)
	}
	must(t, p.DeleteLink("net2"))
	must(t, p.DeleteLinkIf("net1", func(l netlink.Link) bool { return l.Type() != found[3].Type() }))
	if err := p.Free("net1"); err == nil {
		t.Error("net1 was deleted, which was not ours")
	}
	must(t, p.DeleteLink("net1"))
	must(t, p.Free("net1"))
}

func TestDeleteLinks(t *testing.T) {
	p := newPod(t)
	for _, name := range []string{"net2", "net3", "other"} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		must(t, p.Handle().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far-" + name}))
	}
	finish, err := p.DeleteLinks(func(l netlink.Link) bool { return strings.HasPrefix(l.Attrs().Name, "net") })
	must(t, err)
	names, err := p.Names() // before the kernel is done with them
	must(t, errors.Join(err, finish()))
	slices.Sort(names)
	if want := []string{"far-other", "lo", "other"}; !slices.Equal(names, want) {
		t.Errorf("left: %q, want %q", names, want)
	}
	finish, err = p.DeleteLinks(func(l netlink.Link) bool { return false }) // no link is in the group: not those of the default one
	must(t, errors.Join(err, finish()))
	if names, err = p.Names(); err != nil || len(names) != 3 {
		t.Errorf("left: %q, %v", names, err)
	}
}

func TestConfigureAppliesEverythingTheResultSays(t *testing.T) {
	p := newPod(t)
	p.lan.Address(t, p.port, "192.0.2.1/24", "2001:db8::1/64")
	table, link := 100, int(netlink.SCOPE_LINK)
	full := route(t, "198.51.100.0/24", "192.0.2.9")
	full.MTU, full.AdvMSS, full.Priority, full.Table = 1400, 1360, 50, &table
	onLink := route(t, "203.0.113.0/24", "")
	onLink.Scope = &link
	res := result(t, []string{"192.0.2.2/24 192.0.2.1", "2001:db8::2/64 2001:db8::1"},
		route(t, "0.0.0.0/0", ""), route(t, "::/0", ""), route(t, "2001:db8:5::/48", "2001:db8::9"), full, onLink,
		route(t, "192.88.99.7/32", "0.0.0.0"), route(t, "10.0.0.0/8", "192.88.99.7"))

	must(t, p.Configure(t.Context(), p.link(t, "net1"), res, Options{}))
	p.wantRoutes(t,
		"0.0.0.0/0 via 192.0.2.1 table 254",
		"::/0 via 2001:db8::1 table 254 metric 1024",
		"2001:db8:5::/48 via 2001:db8::9 table 254 metric 1024",
		"198.51.100.0/24 via 192.0.2.9 table 100 metric 50 mtu 1400 advmss 1360",
		"203.0.113.0/24 table 254 scope 253",
		"192.88.99.7/32 table 254 scope 253", "10.0.0.0/8 via 192.88.99.7 table 254")
	nettest.Reach(t, p.test, p.lan, "192.0.2.1")
	nettest.Reach(t, p.test, p.lan, "2001:db8::1")
	must(t, p.Check("net1", res, Options{}))
	must(t, p.Configure(t.Context(), p.link(t, "net1"), res, Options{})) // what is there already is no error
}

func TestConfigureTakesOnlyItsOwnAddresses(t *testing.T) {
	p := newPod(t)
	res := result(t, []string{"192.0.2.2/24", "192.0.2.3/24", "192.0.2.4/24", "192.0.2.5/24"})
	res.Interfaces = append(res.Interfaces,
		&types100.Interface{Name: "net2", Sandbox: "/run/netns/pod"}, &types100.Interface{Name: "net1"})
	res.IPs[1].Interface = types100.Int(1) // another interface of the pod
	res.IPs[2].Interface = types100.Int(2) // an interface of the host with the same name
	res.IPs[3].Interface = nil
	must(t, p.Configure(t.Context(), p.link(t, "net1"), res, Options{}))
	link, err := p.Link("net1")
	must(t, err)
	addrs, err := p.Handle().AddrList(link, netlink.FAMILY_V4)
	must(t, err)
	if len(addrs) != 1 || addrs[0].IPNet.String() != "192.0.2.2/24" {
		t.Errorf("net1 has %v, want 192.0.2.2/24 alone", addrs)
	}
	res.IPs[0].Interface = types100.Int(7)
	if err := p.Configure(t.Context(), p.link(t, "net1"), res, Options{}); err == nil || !strings.Contains(err.Error(), "ips[0]") {
		t.Errorf("an interface index out of range: %v", err)
	}
}

func TestConfigureEnablesIPv6WhereItIsOff(t *testing.T) {
	p := newPod(t)
	must(t, p.SetSysctls(Sysctl{"ipv6/conf/all/disable_ipv6", "1"}, Sysctl{"ipv6/conf/net1/disable_ipv6", "1"}))
	res := result(t, []string{"2001:db8::2/64"})
	must(t, p.Configure(t.Context(), p.link(t, "net1"), res, Options{Detection: Skipped}))
	link, err := p.Link("net1")
	must(t, err)
	must(t, p.Handle().LinkSetDown(link))
	must(t, p.Handle().LinkSetUp(link))
	must(t, p.Check("net1", res, Options{})) // the address is kept
}

func TestDuplicateAddressDetection(t *testing.T) {
	p := newPod(t)
	p.lan.Address(t, p.port, "2001:db8::2/64")
	taken, free := result(t, []string{"2001:db8::2/64"}), result(t, []string{"2001:db8::3/64"})

	err := p.Configure(t.Context(), p.link(t, "net1"), taken, Options{})
	if err == nil || !strings.Contains(err.Error(), "2001:db8::2/64 is in use") {
		t.Errorf("an address that another host has: %v", err)
	}
	if err := p.Check("net1", taken, Options{}); err == nil {
		t.Error("CHECK finds nothing wrong with it")
	}
	must(t, p.Configure(t.Context(), p.link(t, "net1"), free, Options{}))
	link, err := p.Link("net1")
	must(t, err)
	addrs, err := p.Handle().AddrList(link, netlink.FAMILY_V6)
	must(t, err)
	for _, a := range addrs {
		if a.IP.String() == "2001:db8::3" && a.Flags&unix.IFA_F_TENTATIVE != 0 {
			t.Error("Configure returned before the address could be used")
		}
	}
	if got, err := p.sysctl("ipv6/neigh/net1/retrans_time_ms"); got != "1000" || err != nil {
		t.Errorf("neighbours have %s ms to answer from now on, %v", got, err)
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("the runtime gave up")
	cancel(stop)
	if err := p.Configure(ctx, p.link(t, "net1"), result(t, []string{"2001:db8::4/64"}), Options{}); !errors.Is(err, stop) {
		t.Errorf("with an ended context: %v, want its cause", err)
	}
}

func TestDADIsSkippedForUniqueAddresses(t *testing.T) {
	p := newPod(t)
	p.lan.Address(t, p.port, "2001:db8::2/64")
	must(t, p.Configure(t.Context(), p.link(t, "net1"), result(t, []string{"2001:db8::2/64"}), Options{Detection: Skipped}))
}

func TestNoCarrierNoWait(t *testing.T) {
	p := newPod(t)
	must(t, p.lan.Handle().LinkSetDown(p.lan.Link(t, p.port)))
	must(t, p.Configure(t.Context(), p.link(t, "net1"), result(t, []string{"2001:db8::2/64"}), Options{}))

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := p.WaitCarrier(ctx, "net1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("waiting for a carrier that does not come: %v", err)
	}
	done := make(chan error)
	go func() { done <- p.WaitCarrier(t.Context(), "net1") }()
	must(t, p.lan.Handle().LinkSetUp(p.lan.Link(t, p.port)))
	must(t, <-done)
}

func TestCheckFindsEveryDifference(t *testing.T) {
	for name, change := range map[string]struct {
		do   func(h *netlink.Handle, link netlink.Link) error
		want string
	}{
		"down": {func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetDown(l) }, "is down"},
		"address": {func(h *netlink.Handle, l netlink.Link) error {
			return h.AddrDel(l, &netlink.Addr{IPNet: &net.IPNet{IP: net.IP{192, 0, 2, 2}, Mask: net.CIDRMask(24, 32)}})
		}, "lacks address 192.0.2.2/24"},
		"mtu": {func(h *netlink.Handle, l netlink.Link) error { return h.LinkSetMTU(l, 1300) }, "MTU 1300, want 1500"},
		"mac": {func(h *netlink.Handle, l netlink.Link) error {
			return h.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 0, 9})
		}, "MAC 02:00:00:00:00:09, want"},
		"gateway": {func(h *netlink.Handle, l netlink.Link) error {
			r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: everywhere(netlink.FAMILY_V4), Gw: net.IP{192, 0, 2, 77}}
			return h.RouteReplace(r)
		}, "route 0.0.0.0/0 via 192.0.2.1 is missing"},
		"metric": {func(h *netlink.Handle, l netlink.Link) error {
			r := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: &net.IPNet{IP: net.IP{198, 51, 100, 0}, Mask: net.CIDRMask(24, 32)},
				Gw: net.IP{192, 0, 2, 1}, Priority: 50, Table: 100}
			del := *r
			r.Priority = 51
			return errors.Join(h.RouteDel(&del), h.RouteAdd(r))
		}, "route 198.51.100.0/24 via 192.0.2.1 table 100 is missing"},
		"gone": {func(h *netlink.Handle, l netlink.Link) error { return h.LinkDel(l) }, "no such interface"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPod(t)
			table := 100
			metric := route(t, "198.51.100.0/24", "")
			metric.Priority, metric.Table = 50, &table
			res := result(t, []string{"192.0.2.2/24 192.0.2.1"}, route(t, "0.0.0.0/0", ""), metric)
			link := p.link(t, "net1")
			res.Interfaces[0] = p.Interface(link)
			must(t, p.Configure(t.Context(), link, res, Options{}))
			must(t, p.Check("net1", res, Options{}))
			must(t, change.do(p.Handle(), link))
			if err := p.Check("net1", res, Options{}); err == nil || !strings.Contains(err.Error(), change.want) {
				t.Errorf("CHECK says %v, want %q", err, change.want)
			}
		})
	}
}

// "The plugin must allow for a later chained plugin to have modified networking resources, e.g. routes, on `ADD`."
func TestCheckAllowsAnotherTable(t *testing.T) {
	p := newPod(t)
	res := result(t, []string{"192.0.2.2/24 192.0.2.1"}, route(t, "198.51.100.0/24", ""))
	must(t, p.Configure(t.Context(), p.link(t, "net1"), res, Options{}))
	link, err := p.Link("net1")
	must(t, err)
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: cidrOf(t, "198.51.100.0/24"), Gw: net.IP{192, 0, 2, 1}}
	must(t, p.Handle().RouteDel(r))
	r.Table = 100
	must(t, p.Handle().RouteAdd(r))
	must(t, p.Check("net1", res, Options{}))
}

func TestDefaultRoutes(t *testing.T) {
	p := newPod(t)
	second := nettest.Parent(t, p.test)
	must(t, p.Configure(t.Context(), p.link(t, "net1"), result(t, []string{"192.0.2.2/24 192.0.2.1", "2001:db8::2/64 2001:db8::1"},
		route(t, "0.0.0.0/0", ""), route(t, "::/0", ""), route(t, "0.0.0.0/1", "")), Options{Detection: Skipped}))
	res := result(t, []string{"198.51.100.2/24 198.51.100.1", "2001:db8:1::2/64 2001:db8:1::1"},
		route(t, "0.0.0.0/0", ""), route(t, "::/0", ""))
	res.Interfaces[0].Name = second.Name
	must(t, p.Configure(t.Context(), p.link(t, second.Name), res, Options{Detection: Skipped}))
	for fam, want := range map[int]int{netlink.FAMILY_V4: 2, netlink.FAMILY_V6: 2, netlink.FAMILY_ALL: 4} {
		routes, err := p.DefaultRoutes(fam)
		must(t, err)
		if len(routes) != want {
			t.Errorf("family %d has default routes %v, want %d", fam, routes, want)
		}
	}
	must(t, p.DeleteDefaultRoutes("net1", netlink.FAMILY_V6))
	p.wantRoutes(t, "0.0.0.0/0 via 192.0.2.1 table 254", "0.0.0.0/0 via 198.51.100.1 table 254",
		"0.0.0.0/1 via 192.0.2.1 table 254", "::/0 via 2001:db8:1::1 table 254 metric 1024")

	must(t, p.SetDefaultRoutes("net1", net.ParseIP("192.0.2.7"), net.ParseIP("2001:db8::7")))
	p.wantRoutes(t, "0.0.0.0/0 via 192.0.2.7 table 254", "0.0.0.0/1 via 192.0.2.1 table 254",
		"::/0 via 2001:db8::7 table 254 metric 1024")
	must(t, p.SetDefaultRoutes(second.Name, net.ParseIP("198.51.100.1")))
	p.wantRoutes(t, "0.0.0.0/0 via 198.51.100.1 table 254", "0.0.0.0/1 via 192.0.2.1 table 254",
		"::/0 via 2001:db8::7 table 254 metric 1024")
	must(t, p.DeleteDefaultRoutes("", netlink.FAMILY_ALL))
	p.wantRoutes(t, "0.0.0.0/1 via 192.0.2.1 table 254")
}

// A pod on two networks, asked on both from hosts behind their routers, answers each through the network that it was
// asked on, though it has one default route.
func TestSourceRouting(t *testing.T) {
	p := newPod(t)
	second := nettest.Parent(t, p.test)
	p.lan.Address(t, p.port, "192.0.2.1/24", "2001:db8::1/64")
	p.lan.Address(t, "lo", "203.0.113.1/32", "2001:db8:ff::1/128")
	second.LAN.Address(t, second.Port, "198.51.100.1/24", "2001:db8:1::1/64")
	second.LAN.Address(t, "lo", "203.0.113.2/32", "2001:db8:ff::2/128")
	resOf := func(name string, ips ...string) *types100.Result {
		res := result(t, ips)
		res.Interfaces[0].Name = name
		return res
	}
	first := resOf("net1", "192.0.2.2/24 192.0.2.1", "2001:db8::2/64 2001:db8::1")
	first.Routes = []*types.Route{route(t, "0.0.0.0/0", ""), route(t, "::/0", "")}
	other := resOf(second.Name, "198.51.100.2/24 198.51.100.1", "2001:db8:1::2/64 2001:db8:1::1")
	must(t, p.Configure(t.Context(), p.link(t, "net1"), first, Options{Detection: Skipped}))
	must(t, p.Configure(t.Context(), p.link(t, second.Name), other, Options{Detection: Skipped, SourceRouting: true}))
	must(t, p.Configure(t.Context(), p.link(t, second.Name), other, Options{Detection: Skipped, SourceRouting: true}))
	must(t, p.Check(second.Name, other, Options{SourceRouting: true}))

	// The far host's own way to the pod, and its address behind the router.
	far := func(lan *nettest.NS, port, from, to string) {
		t.Helper()
		must(t, lan.Handle().RouteReplace(&netlink.Route{
			LinkIndex: lan.Link(t, port).Attrs().Index, Dst: host(net.ParseIP(to)), Src: net.ParseIP(from), Scope: netlink.SCOPE_LINK,
		}))
		nettest.Reach(t, lan, p.test, to)
	}
	far(p.lan, p.port, "203.0.113.1", "192.0.2.2")
	far(second.LAN, second.Port, "203.0.113.2", "198.51.100.2")
	far(second.LAN, second.Port, "2001:db8:ff::2", "2001:db8:1::2")

	rules, err := p.sourceRulesOf()
	must(t, err)
	if len(rules) != 1 {
		t.Errorf("rules for %d tables, want 1: %v", len(rules), rules)
	}
	// A wish of the pod for default routes changes the main table and the result, and nothing here.
	wished := *other
	wished.Routes = []*types.Route{route(t, "0.0.0.0/0", "198.51.100.7")}
	must(t, p.SetDefaultRoutes(second.Name, net.ParseIP("198.51.100.7")))
	must(t, p.Check(second.Name, &wished, Options{SourceRouting: true}))

	link, err := p.Link(second.Name)
	must(t, err)
	must(t, p.Handle().RouteDel(sourceRoutes(link, other.IPs, nil)[0]))
	if err := p.Check(second.Name, other, Options{SourceRouting: true}); err == nil {
		t.Error("CHECK does not see a missing route of the table")
	}
	must(t, p.Handle().RuleDel(sourceRules(link, other.IPs)[0]))
	if err := p.Check(second.Name, other, Options{SourceRouting: true}); err == nil || !strings.Contains(err.Error(), "rule from 198.51.100.2/32") {
		t.Errorf("CHECK does not see a missing rule: %v", err)
	}
	must(t, p.DeleteLink(second.Name))
	if rules, err := p.sourceRulesOf(); err != nil || len(rules) != 0 {
		t.Errorf("after the interface is gone there are rules %v (%v)", rules, err)
	}
}

func TestAnnounce(t *testing.T) {
	p := newPod(t)
	p.lan.Address(t, p.port, "192.0.2.1/24", "2001:db8::1/64")
	port := p.lan.Link(t, p.port)
	addresses := []string{"192.0.2.2", "2001:db8::2"}
	for _, ip := range addresses { // the neighbour knows a pod that had the addresses before
		must(t, p.lan.Handle().NeighSet(&netlink.Neigh{LinkIndex: port.Attrs().Index, IP: net.ParseIP(ip),
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}, State: netlink.NUD_STALE}))
	}
	res := result(t, []string{"192.0.2.2/24", "2001:db8::2/64"})
	must(t, p.Configure(t.Context(), p.link(t, "net1"), res, Options{Detection: Skipped}))

	link, err := p.Link("net1")
	must(t, err)
	lan := open(t, p.lan.Path())
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for _, ip := range addresses {
		err := lan.waitFor(ctx, func() (bool, error) {
			neighbours, err := lan.Handle().NeighList(port.Attrs().Index, family(net.ParseIP(ip)))
			return slices.ContainsFunc(neighbours, func(n netlink.Neigh) bool {
				return n.IP.Equal(net.ParseIP(ip)) && n.HardwareAddr.String() == link.Attrs().HardwareAddr.String()
			}), err
		}, unix.RTNLGRP_NEIGH)
		if err != nil {
			t.Errorf("the neighbour has not learnt where %s is now: %v", ip, err)
		}
	}
}

func TestDumpTriesAgain(t *testing.T) {
	calls := 0
	got, err := Dump(func() ([]int, error) {
		if calls++; calls < 3 {
			return []int{1}, netlink.ErrDumpInterrupted
		}
		return []int{1, 2}, nil
	})
	if err != nil || len(got) != 2 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := Dump(func() ([]int, error) { return nil, netlink.ErrDumpInterrupted }); err == nil {
		t.Error("an answer that never is complete counts as one")
	}
}

func TestRequestedMAC(t *testing.T) {
	for _, c := range []struct{ args, config, want, err string }{
		{"", `{}`, "", ""},
		{"", `{"mac": "02:00:00:00:00:01"}`, "02:00:00:00:00:01", ""},
		{"MAC=02:00:00:00:00:02", `{"mac": "02:00:00:00:00:01"}`, "02:00:00:00:00:02", ""},
		{"MAC=02:00:00:00:00:02", `{"args": {"cni": {"mac": "02-00-00-00-00-03"}}}`, "02:00:00:00:00:03", ""},
		{"MAC=02:00:00:00:00:02", `{"args": {"cni": {"mac": "02:00:00:00:00:03"}}, "runtimeConfig": {"mac": "C2:B0:57:49:47:F1"}}`,
			"c2:b0:57:49:47:f1", ""},
		{"", `{"runtimeConfig": {"mac": "03:00:00:00:00:01"}}`, "", `runtimeConfig.mac: "03:00:00:00:00:01" is a multicast address`},
		{"MAC=nonsense", `{}`, "", `MAC of CNI_ARGS: "nonsense" is no MAC address`},
		{"", `{"mac": "02:00:00:00:00:00:00:01"}`, "", `mac: "02:00:00:00:00:00:00:01" is no MAC address`},
		{"", `{"args": {"cni": {"mac": "00:00:00:00:00:00"}}}`, "", `args.cni.mac: "00:00:00:00:00:00" is not an address`},
		{"", `{"mac": 1}`, "", "mac: found number, want string"},
		{"", `{"runtimeConfig": {"mac": {}}}`, "", "runtimeConfig.mac: found object, want string"},
		{"", `{`, "", "decode configuration"},
	} {
		mac, err := RequestedMAC(&cni.Request{Attachment: cni.Attachment{Args: c.args}, Config: []byte(c.config)})
		if mac.String() != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s with %q: %v, %v; want %q, %q", c.config, c.args, mac, err, c.want, c.err)
		}
		if ce := (*types.Error)(nil); err != nil && !errors.As(err, &ce) {
			t.Errorf("%s: the error has no code: %v", c.config, err)
		}
	}
}

// An optimistic address can be used at once, and is taken back if it turns out to be another host's.
func TestOptimisticDetection(t *testing.T) {
	p := newPod(t)
	p.lan.Address(t, p.port, "2001:db8::2/64")
	opts := Options{Detection: Optimistic}
	free, taken := result(t, []string{"2001:db8::3/64"}), result(t, []string{"2001:db8::2/64"})
	if _, err := os.Stat("/proc/sys/net/ipv6/conf/all/optimistic_dad"); err != nil {
		// A kernel without them: detection is awaited.
		if err := p.Configure(t.Context(), p.link(t, "net1"), taken, opts); err == nil || !strings.Contains(err.Error(), "is in use") {
			t.Errorf("an address that another host has: %v", err)
		}
		must(t, p.Configure(t.Context(), p.link(t, "net1"), free, opts))
		return
	}

	must(t, p.Configure(t.Context(), p.link(t, "net1"), free, opts))
	addrs, err := p.Addresses(p.link(t, "net1"))
	must(t, err)
	a := find(addrs, &netlink.Addr{IPNet: cidrOf(t, "2001:db8::3/64")})
	if a == nil || a.Flags&unix.IFA_F_OPTIMISTIC == 0 {
		t.Fatalf("found %v, want an optimistic address", addrs)
	}
	must(t, p.Check("net1", free, opts))
	must(t, p.Do(func() error {
		from := &net.UDPAddr{IP: net.ParseIP("2001:db8::3")}
		conn, err := net.DialUDP("udp", from, &net.UDPAddr{IP: net.ParseIP("2001:db8::2"), Port: 9})
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("x")); err != nil {
			return err
		}
		// Nobody listens. That the other host says so shows that packets went both ways.
		must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("found %v, want %v", err, unix.ECONNREFUSED)
		}
		return nil
	}))

	must(t, p.Configure(t.Context(), p.link(t, "net1"), taken, opts))
	for end := time.Now().Add(10 * time.Second); p.Check("net1", taken, opts) == nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("CHECK finds nothing wrong with an address that another host has")
		}
	}
}

func TestDetectionKey(t *testing.T) {
	for doc, want := range map[string]Detection{`true`: Awaited, `false`: Skipped, `"optimistic"`: Optimistic, `null`: Skipped} {
		got := Skipped
		if err := got.UnmarshalJSON([]byte(doc)); err != nil || got != want {
			t.Errorf("%s: found %v and %v, want %v", doc, got, err, want)
		}
	}
	for _, doc := range []string{`"true"`, `1`, `{}`, `[]`, `"` + strings.Repeat("x", 1000) + `"`} {
		err := new(Detection).UnmarshalJSON([]byte(doc))
		if err == nil || !strings.HasPrefix(err.Error(), "enabledad: found ") || len(err.Error()) > 200 {
			t.Errorf("%s: found %v, want an error that names the key", doc, err)
		}
	}
}

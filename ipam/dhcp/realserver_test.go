package dhcp_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/ipam/dhcp/keeper"
)

// Servers that people run. They come from the Debian packages dnsmasq-base, kea-dhcp4-server, kea-dhcp6-server and
// radvd.

// run starts a program on the LAN. Its output is shown if the test fails.
func (w *world) run(name string, args ...string) (output *log, stop func()) {
	w.Helper()
	path := program(w, name)
	output = new(log)
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = output, output
	dir := w.TempDir()
	cmd.Env = append(os.Environ(), "KEA_PIDFILE_DIR="+dir, "KEA_LOCKFILE_DIR="+dir, "KEA_LOGGER_DESTINATION=stdout")
	var err error
	w.lan.Do(w, func() { err = cmd.Start() })
	if err != nil {
		w.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		dead := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer dead.Stop()
		_ = cmd.Wait()
	})
	w.Cleanup(func() {
		stop()
		if w.Failed() {
			w.Logf("%s says:\n%s", name, output)
		}
	})
	return output, stop
}

// program skips the test if a program is not installed, and fails it where the whole suite is asked for.
func program(w *world, name string) string {
	w.Helper()
	for _, dir := range []string{"/usr/sbin", "/usr/bin"} {
		if path := filepath.Join(dir, name); unix.Access(path, unix.X_OK) == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" || os.Getenv("BRAID_TEST_FULL") == "1" {
		w.Fatalf("this test needs %s, which is not installed", name)
	}
	w.Skipf("%s is not installed", name)
	return ""
}

func (w *world) dnsmasq(options ...string) *log {
	w.Helper()
	dir := w.TempDir()
	output, _ := w.run("dnsmasq", append([]string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-", "--log-dhcp", "--port=0", "--user=root", "--no-ping",
		"--interface=" + w.nic.Port, "--except-interface=lo", "--bind-interfaces", "--dhcp-authoritative",
		"--dhcp-leasefile=" + filepath.Join(dir, "leases"), "--pid-file=" + filepath.Join(dir, "pid"),
	}, options...)...)
	return output
}

// kea starts the server of an IP version. The file of its leases survives it.
func (w *world) kea(version, config string) (output *log, stop func()) {
	w.Helper()
	file := filepath.Join(w.TempDir(), "kea.json")
	config = strings.NewReplacer("PORT", w.nic.Port).Replace(config)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		w.Fatal(err)
	}
	output, stop = w.run("kea-dhcp"+version, "-c", file)
	w.eventually("kea is ready", func() bool { return output.count("STARTED") > 0 })
	return output, stop
}

// Everything that dnsmasq can say of a network with IPv4.
func testDnsmasq(t *testing.T) {
	w := newWorld(t)
	w.keeper()
	output := w.dnsmasq("--dhcp-range=192.0.2.50,192.0.2.50,255.255.255.0,2m",
		"--dhcp-option=option:router,192.0.2.1,192.0.2.2", "--dhcp-option=option:dns-server,192.0.2.3,192.0.2.4",
		"--domain=example.org", "--dhcp-option=option:domain-search,example.org,example.com",
		"--dhcp-option=option:mtu,1400", "--dhcp-option=option:ntp-server,192.0.2.5",
		"--dhcp-option=option:classless-static-route,198.51.100.0/24,192.0.2.9,0.0.0.0/0,192.0.2.1,203.0.113.7/32,0.0.0.0")
	p := w.pod(`"priority": 50`).add()
	want := `{"cniVersion":"1.1.0",` +
		`"interfaces":[{"name":"net1","mac":"` + p.ns.Link(t, "net1").Attrs().HardwareAddr.String() + `","mtu":1400,"sandbox":"` + p.ns.Path() + `"}],` +
		`"ips":[{"interface":0,"address":"192.0.2.50/24","gateway":"192.0.2.1"}],` +
		`"routes":[{"dst":"198.51.100.0/24","gw":"192.0.2.9","priority":50},{"dst":"0.0.0.0/0","gw":"192.0.2.1","priority":50},` +
		`{"dst":"203.0.113.7/32","gw":"0.0.0.0","priority":50,"scope":253}],` +
		`"dns":{"nameservers":["192.0.2.3","192.0.2.4"],"domain":"example.org","search":["example.org","example.com"]}}`
	if diff := cmp.Diff(decoded(t, want), decoded(t, text(t, p.res))); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if mtu := p.ns.Link(t, "net1").Attrs().MTU; mtu != 1400 {
		t.Errorf("the MTU is %d", mtu)
	}
	if err := p.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	p.del()
	w.eventually("dnsmasq has heard of the release", func() bool { return output.count("DHCPRELEASE") == 1 })
	w.pod("").add() // there is one address
}

func decoded(t *testing.T, doc string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(doc), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// Kea renews, and is asked again by a keeper that starts anew, and by one whose server has another opinion.
func testKea(t *testing.T) {
	w := newWorld(t)
	_, stop := w.keeper()
	leases := filepath.Join(t.TempDir(), "leases.csv")
	config := func(pool, router string) string {
		return `{"Dhcp4": {
			"interfaces-config": {"interfaces": ["PORT"], "dhcp-socket-type": "raw"}, "authoritative": true,
			"lease-database": {"type": "memfile", "name": "` + leases + `", "lfc-interval": 0},
			"valid-lifetime": 60, "renew-timer": 2, "rebind-timer": 30,
			"subnet4": [{"subnet": "192.0.2.0/24", "pools": [{"pool": "` + pool + `"}],
				"option-data": [{"name": "routers", "data": "` + router + `"}]}],
			"loggers": [{"name": "kea-dhcp4", "severity": "DEBUG", "debuglevel": 50, "output_options": [{"output": "stdout"}]}]}}`
	}
	output, stopKea := w.kea("4", config("192.0.2.50-192.0.2.59", "192.0.2.1"))
	p := w.pod("").add()
	w.eventually("the lease is renewed", func() bool { return output.count("DHCP4_LEASE_ALLOC") >= 3 })
	if err := p.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}

	stop()
	before := output.count("DHCPREQUEST")
	_, stop = w.keeper()
	w.eventually("the new keeper asks", func() bool { return output.count("DHCPREQUEST") > before })

	stopKea()
	output, stopKea = w.kea("4", config("192.0.2.50-192.0.2.59", "192.0.2.2"))
	w.eventually("the new router is used", func() bool { return slices.Equal(p.routes(), []string{"default via 192.0.2.2"}) })

	stopKea()
	stop()
	if err := os.Remove(leases); err != nil {
		t.Fatal(err)
	}
	output, _ = w.kea("4", config("192.0.2.60-192.0.2.69", "192.0.2.1"))
	w.keeper()
	w.eventually("the old address is refused and there is a new one", func() bool {
		return slices.Equal(p.addresses(), []string{"192.0.2.60/24"}) && slices.Equal(p.routes(), []string{"default via 192.0.2.1"})
	})
	p.del()
	w.eventually("Kea has the lease back", func() bool { return output.count("DHCP4_RELEASE ") > 0 })
}

// One more DHCPv6 server: that of dnsmasq is in TestStatefulAndRouter.
func testKea6(t *testing.T) {
	w := newWorld6(t)
	var lost sync.WaitGroup
	lost.Add(1)
	once := sync.OnceFunc(lost.Done)
	_, stop := w.keeper(func(o *keeper.Options) {
		o.Changed = func(c keeper.Change) {
			if c.Held.IPv6 == nil {
				once()
			}
		}
	})
	leases := filepath.Join(t.TempDir(), "leases.csv")
	config := `{"Dhcp6": {
		"interfaces-config": {"interfaces": ["PORT"]},
		"lease-database": {"type": "memfile", "name": "` + leases + `", "lfc-interval": 0},
		"server-id": {"type": "EN", "enterprise-id": 32473, "identifier": "0102", "persist": false},
		"preferred-lifetime": 4, "valid-lifetime": 5, "renew-timer": 1, "rebind-timer": 2,
		"subnet6": [{"subnet": "2001:db8::/64", "interface": "PORT", "pools": [{"pool": "2001:db8::50-2001:db8::50"}],
			"option-data": [{"name": "dns-servers", "data": "2001:db8::3"}, {"name": "domain-search", "data": "example.org"}]}],
		"loggers": [{"name": "kea-dhcp6", "severity": "DEBUG", "debuglevel": 50, "output_options": [{"output": "stdout"}]}]}}`
	output, stopKea := w.kea("6", config)
	p := w.pod(`"ipv4": false, "ipv6": "stateful"`).add()
	if got := p.address(128); got != netip.MustParseAddr("2001:db8::50") {
		t.Errorf("the address is %s", got)
	}
	if want := `{"nameservers":["2001:db8::3"],"search":["example.org"]}`; text(t, p.res.DNS) != want {
		t.Errorf("DNS is %s, want %s", text(t, p.res.DNS), want)
	}
	w.eventually("the lease is renewed", func() bool { return output.count("RENEW") > 0 })
	if err := p.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}

	stop()
	before := output.count("REBIND")
	_, stop = w.keeper(func(o *keeper.Options) {
		o.Changed = func(c keeper.Change) {
			if c.Held.IPv6 == nil {
				once()
			}
		}
	})
	w.eventually("the new keeper asks", func() bool { return output.count("REBIND") > before })

	stopKea()
	lost.Wait()
	if got := p.addresses(); len(got) != 0 {
		t.Errorf("without a lease the pod has %v", got)
	}
	output, _ = w.kea("6", config)
	w.eventually("the lease is there again", func() bool { return slices.Equal(p.addresses(), []string{"2001:db8::50/128"}) })
	p.del()
	w.eventually("Kea has the lease back", func() bool { return output.count("RELEASE") > 0 })
	stop()
}

// Address from DHCPv6, gateway from the router, and IPv4 as well.
func TestStatefulAndRouter(t *testing.T) {
	w := newWorld6(t)
	w.keeper()
	output := w.dnsmasq("--dhcp-range=192.0.2.50,192.0.2.59,255.255.255.0,2m", "--dhcp-range=2001:db8::50,2001:db8::50,64,2m",
		"--enable-ra", "--dhcp-option=option6:dns-server,[2001:db8::3]")
	start := time.Now()
	p := w.pod(`"ipv6": "stateful"`).add()
	t.Logf("ADD takes %s", time.Since(start))
	w.checkRouted(p, "2001:db8::50/128")
	if got := p.res.DNS.Nameservers; !slices.Contains(got, "2001:db8::3") {
		t.Errorf("the DNS servers are %v", got)
	}
	if err := p.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	p.del()
	w.eventually("both leases are released", func() bool {
		return output.count("DHCPRELEASE(lan0)") == 2
	})
}

// checkRouted fails the test unless a pod has an IPv6 address and the LAN's router, in the result and for real.
func (w *world) checkRouted(p *pod, address string) {
	w.Helper()
	router, _ := w.linkLocal()
	var gateway string
	for _, ip := range p.res.IPs {
		if ip.Address.IP.To4() == nil {
			gateway = ip.Gateway.String()
			if got := ip.Address.String(); got != address {
				w.Errorf("the address is %s, want %s", got, address)
			}
		}
	}
	if gateway != router {
		w.Errorf("the gateway is %s, want %s", gateway, router)
	}
	want := `{"dst":"::/0","gw":"` + router + `"}`
	if got := text(w, p.res.Routes); !strings.Contains(got, want) {
		w.Errorf("the routes are %s, want %s among them", got, want)
	}
	w.eventually("the router can be reached", func() bool {
		var err error
		p.ns.Do(w, func() { err = exec.Command("ping", "-c1", "-W1", lanAddress6).Run() })
		return err == nil
	})
}

// linkLocal returns the link-local address of the LAN's router, and whether it can be used yet.
func (w *world) linkLocal() (address string, usable bool) {
	w.Helper()
	list, err := w.lan.Handle().AddrList(w.lan.Link(w, w.nic.Port), unix.AF_INET6)
	if err != nil {
		w.Fatal(err)
	}
	for _, a := range list {
		if a.IP.IsLinkLocalUnicast() {
			return a.IP.String(), a.Flags&unix.IFA_F_TENTATIVE == 0
		}
	}
	return "", false
}

// newWorld6 returns a world whose routers and servers can speak IPv6.
func newWorld6(t testing.TB) *world {
	t.Helper()
	w := newWorld(t)
	w.eventually("the router has a link-local address", func() bool { _, ok := w.linkLocal(); return ok })
	return w
}

// No server, no keeper: routers say all.
func TestSLAAC(t *testing.T) {
	for name, start := range map[string]func(w *world){
		"radvd": func(w *world) {
			file := filepath.Join(w.TempDir(), "radvd.conf")
			conf := "interface " + w.nic.Port + ` { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;
				prefix 2001:db8::/64 {}; RDNSS 2001:db8::3 {}; DNSSL example.org {}; };`
			if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
				w.Fatal(err)
			}
			w.lan.Do(w, func() { _ = os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0) })
			w.run("radvd", "--nodaemon", "--config", file, "--logmethod", "stderr", "--pidfile", filepath.Join(w.TempDir(), "pid"))
		},
		"dnsmasq": func(w *world) {
			w.dnsmasq("--dhcp-range=2001:db8::,ra-only,64", "--enable-ra", "--dhcp-option=option6:dns-server,[2001:db8::3]",
				"--dhcp-option=option6:domain-search,example.org")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld6(t)
			start(w)
			p := w.pod(`"ipv4": false, "ipv6": "slaac"`)
			begin := time.Now()
			p.add()
			t.Logf("ADD takes %s", time.Since(begin))
			mac := p.ns.Link(t, "net1").Attrs().HardwareAddr
			w.checkRouted(p, netip.PrefixFrom(eui64(mac), 64).String())
			if want := `{"nameservers":["2001:db8::3"],"search":["example.org"]}`; text(t, p.res.DNS) != want {
				t.Errorf("DNS is %s, want %s", text(t, p.res.DNS), want)
			}
			if err := p.check(); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			p.del()
		})
	}
}

// eui64 returns the address that a kernel makes of 2001:db8::/64 and a MAC.
func eui64(mac []byte) netip.Addr {
	a := netip.MustParseAddr("2001:db8::").As16()
	copy(a[8:], []byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
	return netip.AddrFrom16(a)
}

// A network without routers fails the ADD of a pod that needs one, when the caller has waited enough.
func testNoRouter(t *testing.T) {
	w := newWorld(t)
	p := w.pod(`"ipv4": false, "ipv6": "slaac"`)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var err error
	p.res, err = plugin.Add(ctx, p.req)
	if code(err) != 11 {
		t.Errorf("ADD: code %d, %v", code(err), err)
	}
	if links := p.ns.Links(t); len(links) != 0 {
		t.Errorf("a failed ADD leaves %v", links)
	}
}

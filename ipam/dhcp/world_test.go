package dhcp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/ipam/dhcp"
	"github.com/braid-cni/braid/ipam/dhcp/keeper"
	"github.com/braid-cni/braid/macvlan"
)

// keeperEnv makes the test binary a lease keeper, so that one can be killed.
const keeperEnv = "BRAID_TEST_KEEPER"

func TestMain(m *testing.M) {
	if socket := os.Getenv(keeperEnv); socket != "" {
		k, err := keeper.New(keeper.Options{Socket: socket})
		if err == nil {
			err = k.Serve(context.Background())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(nettest.Main(m))
}

// Tests that wait for most of their time run side by side, with one look for leaks after all of them.
func TestOverTime(t *testing.T) {
	nettest.LeakCheck(t)
	t.Run("all", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T){
			"renew and release":     testAddRenewRelease,
			"changed lease":         testChangedLease,
			"NAK":                   testNAK,
			"refused change":        testRefusedChange,
			"rebind":                testRebind,
			"expire":                testExpire,
			"killed keeper":         testKilledKeeper,
			"hand over":             testHandOver,
			"refused after restart": testRefusedAfterRestart,
			"server behind router":  testServerBehindRouter,
			"link down":             testLinkDown,
			"namespace gone":        testNamespaceGone,
			"no server":             testNoServer,
			"no router":             testNoRouter,
			"hostile server":        testHostileServer,
			"probe":                 testProbe,
			"hanging keeper":        testHangingKeeper,
			"keeper breaks off":     testKeeperBreaksOff,
			"silent keeper":         testSilentKeeper,
			"another MAC":           testOtherMAC,
			"dnsmasq":               testDnsmasq,
			"kea":                   testKea,
			"kea6":                  testKea6,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				test(t)
			})
		}
	})
}

// patience is for things that take a moment, on a machine that does much else.
const patience = 30 * time.Second

// A world is a node with a NIC, whose pods are attached by macvlan, and a LAN for servers.
type world struct {
	testing.TB
	nic    *nettest.NIC
	lan    *nettest.NS
	socket string
}

const (
	lanAddress  = "192.0.2.1"
	lanAddress6 = "2001:db8::1"
)

func newWorld(t testing.TB) *world {
	t.Helper()
	nettest.NeedKernel(t, nettest.Macvlan)
	if !strings.HasPrefix(t.Name(), "TestOverTime/") {
		nettest.LeakCheck(t)
	}
	w := &world{TB: t, nic: nettest.Parent(t, nettest.Node(t))}
	w.lan = w.nic.LAN
	// Routers have been there for long, and have their addresses.
	w.lan.Do(t, func() {
		for _, setting := range [][2]string{{"accept_dad", "0"}, {"disable_ipv6", "1"}, {"disable_ipv6", "0"}} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+w.nic.Port+"/"+setting[0], []byte(setting[1]), 0); err != nil {
				t.Fatal(err)
			}
		}
	})
	w.lan.Address(t, w.nic.Port, lanAddress+"/24", lanAddress6+"/64")
	dir, err := os.MkdirTemp("", "dhcp") // t.TempDir can be longer than the path of a socket may be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w.socket = filepath.Join(dir, "keeper.sock")
	return w
}

// keeper starts a lease keeper. Stop ends it, and leaves its leases to the next one.
func (w *world) keeper(options ...func(*keeper.Options)) (k *keeper.Keeper, stop func()) {
	w.Helper()
	o := keeper.Options{Socket: w.socket, Log: w.logger()}
	for _, set := range options {
		set(&o)
	}
	k, err := keeper.New(o)
	if err != nil {
		w.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- k.Serve(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.Errorf("the keeper ends with %v", err)
		}
	})
	w.Cleanup(stop)
	return k, stop
}

// logger shows what the keeper says if the test fails or is verbose.
func (w *world) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(w.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// A pod is one with an attachment.
type pod struct {
	*world
	ns  *nettest.NS
	req *cni.Request
	res *types100.Result
}

var plugin = macvlan.Plugin{Find: func(string) cni.Plugin { return dhcp.Plugin{} }}

// pod makes a pod that is not attached yet. The keys are those of ipam besides the type and the socket.
func (w *world) pod(keys string) *pod {
	w.Helper()
	ns := nettest.NewNS(w)
	return &pod{world: w, ns: ns, req: &cni.Request{
		Attachment: cni.Attachment{ContainerID: nettest.Name("pod-"), Netns: ns.Path(), IfName: "net1"},
		Config:     w.config(keys),
	}}
}

func (w *world) config(keys string) []byte {
	return fmt.Appendf(nil, `{"cniVersion": "1.1.0", "name": "lan", "type": "macvlan", "master": %q,
		"ipam": {"type": "dhcp", "daemonSocketPath": %q%s}}`, w.nic.Name, w.socket, comma(keys))
}

func comma(keys string) string {
	if keys == "" {
		return ""
	}
	return ", " + keys
}

func (p *pod) tryAdd(ctx context.Context) error {
	p.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var err error
	p.res, err = plugin.Add(ctx, p.req)
	return err
}

func (p *pod) add() *pod {
	p.Helper()
	if err := p.tryAdd(context.Background()); err != nil {
		p.Fatalf("ADD: %v", err)
	}
	return p
}

func (p *pod) check() error {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req := *p.req
	req.Config = with(p, req.Config, "prevResult", p.res)
	return plugin.Check(ctx, &req)
}

func (p *pod) del() {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := plugin.Del(ctx, p.req); err != nil {
		p.Errorf("DEL: %v", err)
	}
}

// address returns the only address of a family in the result.
func (p *pod) address(bits int) netip.Addr {
	p.Helper()
	for _, ip := range p.res.IPs {
		if a, _ := netip.AddrFromSlice(ip.Address.IP); a.Unmap().BitLen() == bits {
			return a.Unmap()
		}
	}
	p.Fatalf("no address of %d bits in the result %s", bits, text(p, p.res))
	return netip.Addr{}
}

// addresses returns what the kernel has.
func (p *pod) addresses() (found []string) {
	p.Helper()
	list, err := p.ns.Handle().AddrList(p.ns.Link(p, "net1"), netlink.FAMILY_ALL)
	if err != nil {
		p.Fatal(err)
	}
	for _, a := range list {
		if !a.IP.IsLinkLocalUnicast() {
			found = append(found, a.IPNet.String())
		}
	}
	return found
}

// routes returns what the kernel has that it has not made of an address.
func (p *pod) routes() (found []string) {
	p.Helper()
	list, err := p.ns.Handle().RouteList(p.ns.Link(p, "net1"), netlink.FAMILY_V4)
	if err != nil {
		p.Fatal(err)
	}
	for _, r := range list {
		if r.Protocol == 2 { // the kernel
			continue
		}
		dst := "default"
		if r.Dst != nil && r.Dst.String() != "0.0.0.0/0" {
			dst = r.Dst.String()
		}
		found = append(found, dst+" via "+r.Gw.String())
	}
	slices.Sort(found)
	return found
}

// eventually fails the test unless something comes true.
func (w *world) eventually(what string, is func() bool) {
	w.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("after %s it is still not true that %s", patience, what)
		}
	}
}

func with(t testing.TB, config []byte, key string, value any) []byte {
	t.Helper()
	var conf map[string]any
	if err := json.Unmarshal(config, &conf); err != nil {
		t.Fatal(err)
	}
	conf[key] = value
	return []byte(text(t, conf))
}

func text(t testing.TB, v any) string {
	t.Helper()
	doc, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

// A log is what a server prints, kept for the case that the test fails.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

var _ io.Writer = (*log)(nil)

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func (l *log) count(s string) int { return strings.Count(l.String(), s) }

func member(t testing.TB, config []byte, key string) (value map[string]any) {
	t.Helper()
	var conf map[string]json.RawMessage
	if err := json.Unmarshal(config, &conf); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(conf[key], &value); err != nil {
		t.Fatal(err)
	}
	return value
}

package dhcp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/ipam/dhcp"
	"github.com/braid-cni/braid/ipam/dhcp/keeper"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

func TestConformance(t *testing.T) {
	cnitest.Run(t, func(t *testing.T) *cnitest.Subject {
		w := newWorld(t)
		k, _ := w.keeper()
		// Without a router, for a second attachment cannot have the default route that the first one has.
		w.server()
		return &cnitest.Subject{Plugin: plugin, Config: w.config(""), Leaked: noLeases(k)}
	})
}

func noLeases(k *keeper.Keeper) func() error {
	return func() error {
		if n := k.Len(); n != 0 {
			return fmt.Errorf("the keeper has %d leases", n)
		}
		return nil
	}
}

func TestNoKeeper(t *testing.T) {
	w := newWorld(t)
	p := w.pod("")
	start := time.Now()
	err := p.tryAdd(context.Background())
	if code(err) != 11 || !strings.Contains(err.Error(), w.socket) {
		t.Errorf("ADD: code %d, %v", code(err), err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("ADD takes %s to find out", d)
	}
	if links := p.ns.Links(t); len(links) != 0 {
		t.Errorf("a failed ADD leaves %v", links)
	}
	if err := (dhcp.Plugin{}).Status(context.Background(), p.req); code(err) != 50 {
		t.Errorf("STATUS: code %d, %v", code(err), err)
	}
	if err := (dhcp.Plugin{}).Check(context.Background(), p.req); err == nil {
		t.Error("CHECK passes")
	}
	p.del()
}

// A lease is given back while no keeper runs, and the next keeper has not got it.
func TestReleaseWithoutKeeper(t *testing.T) {
	w := newWorld(t)
	s := w.server()
	_, stop := w.keeper()
	deleted, collected, kept := w.pod("").add(), w.pod("").add(), w.pod("").add()
	stop()
	deleted.del()
	w.eventually("one lease is released", func() bool { return s.clients() == 2 })
	req := *collected.req
	req.Config = with(t, req.Config, "cni.dev/valid-attachments", []map[string]string{
		{"containerID": kept.req.ContainerID, "ifname": "net1"}})
	if err := (dhcp.Plugin{}).GC(context.Background(), &req); err != nil {
		t.Errorf("GC: %v", err)
	}
	w.eventually("two leases are released", func() bool { return s.clients() == 1 })
	if from := s.received(dhcpv4.MessageTypeRelease)[0].from.Addr(); from != deleted.address(32) {
		t.Errorf("a release comes from %s, want %s", from, deleted.address(32))
	}
	if k, _ := w.keeper(); k.Len() != 1 {
		t.Errorf("the next keeper has %d leases, want that of one pod", k.Len())
	}
	if err := kept.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
}

// A DEL needs no configuration to be right.
func TestDelWithBadConfig(t *testing.T) {
	w := newWorld(t)
	s := w.server()
	w.keeper()
	p := w.pod("").add()
	good := p.req.Config
	p.req.Config = []byte(strings.Replace(string(good), `"type": "dhcp"`, `"type": "dhcp", "provide": {"x": 1}, "ipv6": 7`, 1))
	if err := (dhcp.Plugin{}).Del(context.Background(), p.req); err != nil {
		t.Errorf("DEL: %v", err)
	}
	w.eventually("the lease is released", func() bool { return s.clients() == 0 })
}

func testNoServer(t *testing.T) {
	w := newWorld(t)
	k, _ := w.keeper(func(o *keeper.Options) { o.AcquireTimeout = time.Second })
	p := w.pod("")
	err := p.tryAdd(context.Background())
	if code(err) != 11 || !strings.Contains(err.Error(), "net1") || !strings.Contains(err.Error(), "no lease within 1s") {
		t.Errorf("ADD: code %d, %v", code(err), err)
	}
	if k.Len() != 0 {
		t.Error("the keeper goes on")
	}
}

// Whoever ends an ADD that is waiting, nothing is left of it, and the address goes back to the server.
func TestEndOfAcquire(t *testing.T) {
	for name, end := range map[string]func(p *pod, cancel func()){
		"DEL":      func(p *pod, _ func()) { p.del() },
		"deadline": func(_ *pod, cancel func()) { cancel() },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			k, _ := w.keeper()
			s := w.server()
			s.set(func(s *fakeServer) {
				s.answer = func(question, answer *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
					if question.MessageType() == dhcpv4.MessageTypeRequest {
						return nil
					}
					return []*dhcpv4.DHCPv4{answer}
				}
			})
			p := w.pod("")
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			done := make(chan error)
			go func() { done <- p.tryAdd(ctx) }()
			w.eventually("the ADD waits for an ACK", func() bool { return len(s.received(dhcpv4.MessageTypeRequest)) > 0 })
			end(p, cancel)
			if err := <-done; err == nil {
				t.Error("the ADD succeeds")
			}
			w.eventually("the keeper has nothing", func() bool { return k.Len() == 0 })
			if links := p.ns.Links(t); len(links) != 0 {
				t.Errorf("the pod still has %v", links)
			}
			w.eventually("the server has the address back", func() bool { return s.clients() == 0 })
			s.set(func(s *fakeServer) { s.answer = nil })
			p.add() // and again
		})
	}
}

// A caller that has died asks again, and gets the lease that it did not live to hear of.
func TestAdopt(t *testing.T) {
	w := newWorld(t)
	k, _ := w.keeper()
	s := w.server()
	p := w.pod("").add()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			res, err := dhcp.Plugin{}.Add(context.Background(), p.req)
			if err != nil || len(res.IPs) != 1 || !res.IPs[0].Address.IP.Equal(p.address(32).AsSlice()) {
				t.Errorf("ADD again: %v, %v", res, err)
			}
		})
	}
	all.Wait()
	if n := len(s.received(dhcpv4.MessageTypeDiscover)); n != 1 || k.Len() != 1 {
		t.Errorf("%d DISCOVER and %d leases, want 1 of each", n, k.Len())
	}
}

// The interface has been made anew without the DEL of the old one, so its lease is of no use.
func TestAnotherInterface(t *testing.T) {
	w := newWorld(t)
	w.keeper()
	s := w.server()
	p := w.pod("").add()
	if err := p.ns.Handle().LinkDel(p.ns.Link(t, "net1")); err != nil {
		t.Fatal(err)
	}
	p.add()
	if err := p.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if n := len(s.received(dhcpv4.MessageTypeDiscover)); n != 2 {
		t.Errorf("%d DISCOVER, want 2", n)
	}
}

// Many pods at once, and the same pod many times.
func TestParallel(t *testing.T) {
	w := newWorld(t)
	k, _ := w.keeper()
	w.server()
	var all sync.WaitGroup
	pods := make([]*pod, 16)
	for i := range pods {
		pods[i] = w.pod("")
		all.Go(func() {
			if err := pods[i].tryAdd(context.Background()); err != nil {
				t.Errorf("ADD: %v", err)
			}
		})
	}
	all.Wait()
	found := map[netip.Addr]bool{}
	for _, p := range pods {
		found[p.address(32)] = true
	}
	if len(found) != len(pods) || k.Len() != len(pods) {
		t.Errorf("%d addresses and %d leases for %d pods", len(found), k.Len(), len(pods))
	}
	for _, p := range pods {
		all.Go(p.del)
	}
	all.Wait()
	if err := noLeases(k)(); err != nil {
		t.Error(err)
	}
}

func TestLimit(t *testing.T) {
	w := newWorld(t)
	w.keeper(func(o *keeper.Options) { o.MaxLeases = 1 })
	w.server()
	w.pod("").add()
	if err := w.pod("").tryAdd(context.Background()); code(err) != 11 || !strings.Contains(err.Error(), "1 leases") {
		t.Errorf("ADD: code %d, %v", code(err), err)
	}
}

func TestOneKeeper(t *testing.T) {
	w := newWorld(t)
	w.keeper()
	if _, err := keeper.New(keeper.Options{Socket: w.socket}); err == nil || !strings.Contains(err.Error(), lease.ErrBusy.Error()) {
		t.Errorf("a second keeper: %v", err)
	}
}

// A keeper that neither runs nor does not: it holds its records, and nobody listens. A pod is deleted all the same.
func testHangingKeeper(t *testing.T) {
	w := newWorld(t)
	s, err := lease.CreateStore(lease.Dir(w.socket))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w.pod("").del()
}

// A connection to a keeper that has its records open breaks: DEL asks it again.
func testKeeperBreaksOff(t *testing.T) {
	w := newWorld(t)
	s, err := lease.CreateStore(lease.Dir(w.socket))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	p, asked := w.pod(""), make(chan lease.Request, 10)
	w.listen(func(conn net.Conn) {
		var req lease.Request
		if err := lease.Read(conn, &req); err != nil {
			t.Error(err)
		}
		asked <- req
		if len(asked) == 3 {
			_ = json.NewEncoder(conn).Encode(lease.Response{Version: lease.ProtocolVersion})
		}
		conn.Close()
	})
	p.del()
	if len(asked) != 3 {
		t.Fatalf("it was asked %d times", len(asked))
	}
	for range 3 {
		if req := <-asked; req.Verb != lease.VerbDel || req.Spec.Key.ContainerID != p.req.ContainerID {
			t.Errorf("it was asked %+v", req)
		}
	}
}

// A keeper takes the question and does not answer: DEL has time left for everything else.
func testSilentKeeper(t *testing.T) {
	w := newWorld(t)
	heard := make(chan net.Conn, 10)
	w.listen(func(conn net.Conn) { heard <- conn })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := plugin.Del(ctx, w.pod("").req); err != nil || ctx.Err() != nil {
		t.Errorf("DEL: %v, with a context that %v", err, ctx.Err())
	}
	if len(heard) == 0 {
		t.Error("nobody was asked")
	}
}

// listen is a keeper of which nothing else is known.
func (w *world) listen(serve func(net.Conn)) {
	w.Helper()
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { l.Close() })
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			serve(conn)
		}
	}()
}

// Something else listens on the socket.
func TestNotAKeeper(t *testing.T) {
	w := newWorld(t)
	l, err := net.Listen("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			_, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			_ = conn.Close()
		}
	}()
	if err := w.pod("").tryAdd(context.Background()); code(err) != 11 || !strings.Contains(err.Error(), "another plugin") {
		t.Errorf("ADD: code %d, %v", code(err), err)
	}
	if _, err := keeper.New(keeper.Options{Socket: w.socket}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a keeper on this socket: %v", err)
	}
}

func TestSocket(t *testing.T) {
	w := newWorld(t)
	k, _ := w.keeper()
	for path, mode := range map[string]os.FileMode{w.socket: 0o600, lease.Dir(w.socket): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want mode %o", path, info.Mode(), err, mode)
		}
	}
	for _, garbage := range []string{
		"", "{", "[]", `{"version":1,"verb":"ADD"}`, `{"version":1,"verb":"FLY"}`, `{"version":99,"verb":"STATUS"}`,
		`{"version":1,"verb":"ADD","spec":{"containerID":"a","network":"b","ifName":"c","netns":"/proc/self/ns/net","ipv4":true,"bogus":1}}`,
		`{"version":1,"verb":"ADD","spec":{"containerID":"a","network":"b","ifName":"none","netns":"/proc/self/ns/net","ipv4":true}}`,
		`{"version":1,"verb":"ADD","spec":{"containerID":"a","network":"b","ifName":"lo","netns":"/etc/passwd","ipv4":true}}`,
		`{"version":1,"verb":"DEL","spec":{}}`, `{"version":1,"verb":"CHECK","spec":{}}`, strings.Repeat("[", 1<<20),
	} {
		conn, err := net.Dial("unix", w.socket)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte(garbage))
		_ = conn.(*net.UnixConn).CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		var answer lease.Response
		if err := json.NewDecoder(conn).Decode(&answer); err == nil && answer.Error == nil && !strings.Contains(garbage, "DEL") {
			t.Errorf("%.80s is accepted: %+v", garbage, answer)
		}
		_ = conn.Close()
	}
	if k.Len() != 0 {
		t.Errorf("the keeper has %d leases of nobody", k.Len())
	}
}

// What hosts of the LAN send that mean no good, or cannot do better, does not keep a pod from its lease.
func testHostileServer(t *testing.T) {
	w := newWorld(t)
	w.keeper()
	s := w.server(append(times(time.Second, time.Minute, time.Hour), router)...)
	s.set(func(s *fakeServer) { s.answer = beNasty(t) })
	p := w.pod("").add()
	if got := p.addresses(); !slices.Equal(got, []string{"192.0.2.100/24"}) {
		t.Errorf("the pod has addresses %v", got)
	}
	w.eventually("the lease is renewed", func() bool { return len(s.received(dhcpv4.MessageTypeRequest)) >= 3 })
	if err := p.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
}

// beNasty sends the right answer after all wrong ones.
func beNasty(t *testing.T) func(question, answer *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
	return func(_, answer *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
		var all []*dhcpv4.DHCPv4
		for _, change := range nastiness {
			bad, err := dhcpv4.FromBytes(answer.ToBytes())
			if err != nil {
				t.Error(err)
				continue
			}
			bad.YourIPAddr = net.IPv4(192, 0, 2, 66)
			change(bad)
			all = append(all, bad)
		}
		return append(all, answer)
	}
}

var nastiness = []func(*dhcpv4.DHCPv4){
	func(m *dhcpv4.DHCPv4) { m.TransactionID[0]++ },
	func(m *dhcpv4.DHCPv4) { m.OpCode = dhcpv4.OpcodeBootRequest },
	func(m *dhcpv4.DHCPv4) { m.ClientHWAddr = net.HardwareAddr{2, 0, 0, 0, 0, 1} },
	func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptClientIdentifier([]byte("another"))) },
	func(m *dhcpv4.DHCPv4) { m.Options.Del(dhcpv4.OptionDHCPMessageType) },
	func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeInform)) },
	func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4bcast },
	func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4(127, 0, 0, 1) },
	func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4(224, 0, 0, 1) },
	func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptSubnetMask(net.IPMask{255, 0, 255, 0})) },
	func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptSubnetMask(net.IPMask{0, 0, 0, 0})) },
	func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptIPAddressLeaseTime(0)) },
	func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptIPAddressLeaseTime(time.Second)) },
	func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptServerIdentifier(net.IPv4zero)) },
}

func TestRecordsStayPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "x.leases")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := lease.OpenStore(dir); err == nil || !strings.Contains(err.Error(), "0700") {
		t.Errorf("a folder that all can read: %v", err)
	}
	if _, err := lease.OpenStore(filepath.Join(dir, "none")); !os.IsNotExist(err) {
		t.Errorf("no folder: %v", err)
	}
}

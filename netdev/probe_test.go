package netdev

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/internal/nettest"
)

// addrs parses addresses.
func addrs(list ...string) (parsed []netip.Addr) {
	for _, s := range list {
		parsed = append(parsed, netip.MustParseAddr(s))
	}
	return parsed
}

func (p *pod) taken(t *testing.T, how Probe, list ...string) map[string]string {
	t.Helper()
	found, err := p.Taken(t.Context(), "net1", addrs(list...), how)
	must(t, err)
	taken := map[string]string{}
	for a, mac := range found {
		taken[a.String()] = mac.String()
	}
	return taken
}

func TestTaken(t *testing.T) {
	p := newPod(t)
	p.lan.Address(t, p.port, "192.0.2.1/24", "192.0.2.3/24", "2001:db8::1/64", "2001:db8::3/64")
	// The kernel of a host whose link is new does not answer for IPv6 addresses yet.
	p.taken(t, Probe{Count: maxProbes, Interval: maxProbeInterval}, "2001:db8::1")
	mac := p.lan.Link(t, p.port).Attrs().HardwareAddr.String()
	got := p.taken(t, defaultProbe, "192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2", "2001:db8::3")
	want := map[string]string{"192.0.2.1": mac, "192.0.2.3": mac, "2001:db8::1": mac, "2001:db8::3": mac}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if neighbours, err := p.lan.Handle().NeighList(p.lan.Link(t, p.port).Attrs().Index, 0); err != nil {
		t.Error(err)
	} else {
		for _, n := range neighbours { // that is what probes are for: nobody's caches change
			if n.IP.Equal(net.ParseIP("192.0.2.2")) || n.IP.Equal(net.ParseIP("2001:db8::2")) {
				t.Errorf("the neighbour has learnt %s from a probe", n.IP)
			}
		}
	}
}

// A host that takes an address at the same time sends probes itself, and each must see the other.
func TestTwoProbeAtOnce(t *testing.T) {
	p := newPod(t)
	lan := open(t, p.lan.Path())
	both := addrs("192.0.2.9", "2001:db8::9")
	slow := Probe{Count: 4, Interval: 250 * time.Millisecond}
	other := make(chan map[netip.Addr]net.HardwareAddr, 1)
	go func() {
		found, err := lan.Taken(t.Context(), p.port, both, slow)
		if err != nil {
			t.Error(err)
		}
		other <- found
	}()
	here, err := p.Taken(t.Context(), "net1", both, slow)
	must(t, err)
	there := <-other
	link, err := p.Link("net1")
	must(t, err)
	for _, a := range both {
		if !bytes.Equal(there[a], link.Attrs().HardwareAddr) && !bytes.Equal(here[a], p.lan.Link(t, p.port).Attrs().HardwareAddr) {
			t.Errorf("nobody sees that the other one is about to take %s: %v, %v", a, here, there)
		}
	}
}

func TestProbeThatCannotBe(t *testing.T) {
	p := newPod(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Taken(ctx, "net1", addrs("192.0.2.9"), defaultProbe); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if _, err := p.Taken(t.Context(), "net7", addrs("192.0.2.9"), defaultProbe); !errors.Is(err, ErrNotFound) {
		t.Errorf("without the interface: %v", err)
	}
	if _, err := p.Taken(t.Context(), "lo", addrs("192.0.2.9"), defaultProbe); err == nil {
		t.Error("lo can be probed on")
	}
	must(t, p.lan.Handle().LinkSetDown(p.lan.Link(t, p.port)))
	if _, err := p.Taken(t.Context(), "net1", addrs("192.0.2.9"), defaultProbe); err == nil || !strings.Contains(err.Error(), "carrier of net1") {
		t.Errorf("without carrier: %v", err)
	}
}

func TestProbeKey(t *testing.T) {
	for doc, want := range map[string]any{
		`false`:                              Probe{},
		`null`:                               Probe{},
		`true`:                               defaultProbe,
		`{}`:                                 defaultProbe,
		`{"count": 1}`:                       Probe{1, defaultProbe.Interval},
		`{"interval": "1s"}`:                 Probe{defaultProbe.Count, time.Second},
		`{"count": 10, "interval": "1ms"}`:   Probe{10, time.Millisecond},
		`{"count": 0}`:                       "probe.count: found 0, want 1 to 10",
		`{"count": 1000000}`:                 "probe.count: found 1000000",
		`{"interval": "1h"}`:                 `probe.interval: found "1h", want a duration`,
		`{"interval": "-1s"}`:                `probe.interval: found "-1s"`,
		`{"interval": 50}`:                   "probe: want true, false, or an object",
		`{"count": 1, "intervall": "500ms"}`: `unknown field "intervall"`,
		`"yes"`:                              "probe: want true, false, or an object",
		`3`:                                  "probe: want true, false, or an object",
		`[true]`:                             "probe: want true, false, or an object",
	} {
		var got Probe
		err := json.Unmarshal([]byte(doc), &got)
		if text, fails := want.(string); fails {
			if ce := (*types.Error)(nil); !errors.As(err, &ce) || ce.Code != types.ErrInvalidNetworkConfig || !strings.Contains(ce.Msg, text) {
				t.Errorf("%s: %v, want an error of code 7 with %q", doc, err, text)
			}
		} else if err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", doc, got, err, want)
		}
	}
}

// What anybody on the link sends must not do harm.
func FuzzClaims(f *testing.F) {
	own := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	f.Add(make([]byte, 60))
	f.Add(append(make([]byte, 12), 8, 6, 0, 1, 8, 0, 6, 4, 0, 2))
	f.Fuzz(func(_ *testing.T, frame []byte) {
		arpClaim(frame, own)
		ndpClaim(frame, own)
	})
}

func BenchmarkTaken(b *testing.B) {
	node := nettest.NewNS(b)
	nic := nettest.Parent(b, node)
	ns, err := Open(node.Path())
	if err != nil {
		b.Fatal(err)
	}
	defer ns.Close()
	for b.Loop() {
		if _, err := ns.Taken(b.Context(), nic.Name, addrs("192.0.2.9", "2001:db8::9"), Probe{Count: 1, Interval: time.Millisecond}); err != nil {
			b.Fatal(err)
		}
	}
}

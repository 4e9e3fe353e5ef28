package dhcp_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/ipam/dhcp"
	"github.com/braid-cni/braid/ipvlan"
)

// Pods on ipvlan share a MAC. They are told apart by their identifier, and hear answers that are broadcast.
func TestIPVLAN(t *testing.T) {
	nettest.NeedKernel(t, nettest.IPVLAN)
	w := newWorld(t)
	w.keeper()
	s := w.server(router)
	add := func() (*pod, error) {
		p := w.pod("")
		p.req.Config = bytes.Replace(p.req.Config, []byte(`"macvlan"`), []byte(`"ipvlan"`), 1)
		var err error
		p.res, err = ipvlan.Plugin{Find: func(string) cni.Plugin { return dhcp.Plugin{} }}.Add(context.Background(), p.req)
		return p, err
	}
	for _, want := range []string{"192.0.2.100/24", "192.0.2.101/24"} {
		p, err := add()
		if err != nil {
			t.Fatalf("ADD: %v", err)
		}
		if got := p.addresses(); !slices.Equal(got, []string{want}) {
			t.Errorf("the pod has %v, want %s", got, want)
		}
	}
	if m := s.received(dhcpv4.MessageTypeDiscover)[0]; !m.IsBroadcast() {
		t.Errorf("the server is not asked to broadcast:\n%s", m.Summary())
	}

	// A server that looks at the MAC only.
	s.set(func(s *fakeServer) {
		s.answer = func(question, answer *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 {
			answer.YourIPAddr = []byte{192, 0, 2, 100}
			return []*dhcpv4.DHCPv4{answer}
		}
	})
	if _, err := add(); err == nil || !strings.Contains(err.Error(), "client identifier") {
		t.Errorf("two pods with one address: %v", err)
	}
	if n := len(s.received(dhcpv4.MessageTypeRelease)); n != 0 {
		t.Error("the lease of the other pod has been released")
	}
}

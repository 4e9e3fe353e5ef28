package ra

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/ndp"
)

func advertisement() *ndp.RouterAdvertisement {
	return &ndp.RouterAdvertisement{
		RouterLifetime: time.Hour,
		Options: []ndp.Option{
			&ndp.PrefixInformation{Prefix: netip.MustParseAddr("2001:db8::"), PrefixLength: 64, AutonomousAddressConfiguration: true, ValidLifetime: time.Hour},
			&ndp.PrefixInformation{Prefix: netip.MustParseAddr("2001:db8:1::"), PrefixLength: 64, OnLink: true, ValidLifetime: time.Hour},
			&ndp.PrefixInformation{Prefix: netip.MustParseAddr("2001:db8:2::"), PrefixLength: 64, AutonomousAddressConfiguration: true},
			&ndp.RecursiveDNSServer{Lifetime: time.Hour, Servers: []netip.Addr{netip.MustParseAddr("2001:db8::3"), netip.MustParseAddr("ff02::1")}},
			&ndp.RecursiveDNSServer{Servers: []netip.Addr{netip.MustParseAddr("2001:db8::4")}},
			&ndp.DNSSearchList{Lifetime: time.Hour, DomainNames: []string{"example.org"}},
		},
	}
}

func TestRead(t *testing.T) {
	packet, err := ndp.MarshalMessage(advertisement())
	if err != nil {
		t.Fatal(err)
	}
	want := &Advertisement{
		Router: netip.MustParseAddr("fe80::1"), Default: true,
		Prefixes: []netip.Prefix{netip.MustParsePrefix("2001:db8::/64")},
		Servers:  []string{"2001:db8::3"}, Search: []string{"example.org"},
	}
	got := read(packet, net.ParseIP("fe80::1"))
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Whatever a host of the LAN sends, it is understood or left alone.
func FuzzRead(f *testing.F) {
	packet, err := ndp.MarshalMessage(advertisement())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packet)
	f.Fuzz(func(t *testing.T, packet []byte) {
		if a := read(packet, net.ParseIP("fe80::1")); a != nil && !a.Router.IsValid() {
			t.Error("an advertisement of nobody")
		}
	})
}

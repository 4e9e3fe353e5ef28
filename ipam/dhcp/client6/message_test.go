package client6

import (
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

var client = &Client{Spec: &lease.Spec{Key: lease.Key{ContainerID: "c", Network: "n", IfName: "i"}}}

func reply(address *dhcpv6.OptIAAddress, options ...dhcpv6.Option) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply}
	m.AddOption(dhcpv6.OptClientID(client.duid()))
	m.AddOption(dhcpv6.OptServerID(&dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr{2, 0, 0, 0, 0, 1}}))
	ia := &dhcpv6.OptIANA{IaId: client.iaid()}
	if address != nil {
		ia.Options.Add(address)
	}
	m.AddOption(ia)
	for _, o := range options {
		m.AddOption(o)
	}
	return m
}

func address(ip string, preferred, valid time.Duration) *dhcpv6.OptIAAddress {
	return &dhcpv6.OptIAAddress{IPv6Addr: net.ParseIP(ip), PreferredLifetime: preferred, ValidLifetime: valid}
}

func TestDecode(t *testing.T) {
	now := time.Now()
	l, err := decode(reply(address("2001:db8::5", 100*time.Second, 200*time.Second), dhcpv6.OptDNS(net.ParseIP("2001:db8::3"))), client.iaid())
	if err != nil {
		t.Fatal(err)
	}
	if l.Address.String() != "2001:db8::5/128" || len(l.DNS.Nameservers) != 1 || l.DNS.Nameservers[0] != "2001:db8::3" {
		t.Errorf("the lease is %+v", l)
	}
	for what, d := range map[string][2]time.Duration{
		"T1": {l.Renew.Sub(now), 50 * time.Second}, "T2": {l.Rebind.Sub(now), 80 * time.Second}, "the end": {l.Expire.Sub(now), 200 * time.Second},
	} {
		if d[0].Round(time.Second) != d[1] {
			t.Errorf("%s is after %s, want %s", what, d[0], d[1])
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	status := func(code iana.StatusCode) dhcpv6.Option {
		return &dhcpv6.OptStatusCode{StatusCode: code, StatusMessage: "why"}
	}
	other := reply(address("2001:db8::5", 100*time.Second, 200*time.Second))
	other.Options.OneIANA().IaId = [4]byte{9}
	stateless := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply}
	inAddress := address("2001:db8::5", 100*time.Second, 200*time.Second)
	inAddress.Options.Add(status(iana.StatusNoBinding))
	for want, m := range map[string]*dhcpv6.Message{
		"no server identifier": stateless,
		"for the interface":    other,
		"no address":           reply(nil),
		"NoAddrsAvail":         reply(nil, status(iana.StatusNoAddrsAvail)),
		"no such lease":        reply(inAddress),
		"fe80::1":              reply(address("fe80::1", 100*time.Second, 200*time.Second)),
		"ff02::1":              reply(address("ff02::1", 100*time.Second, 200*time.Second)),
		"::ffff:192.0.2.1":     reply(address("192.0.2.1", 100*time.Second, 200*time.Second)),
		"for 1s":               reply(address("2001:db8::5", time.Second, time.Second)),
		"preferred for 5m0s":   reply(address("2001:db8::5", 300*time.Second, 200*time.Second)),
	} {
		if l, err := decode(m, client.iaid()); err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, lease.ErrRefused) {
			t.Errorf("%s: %v, %v", want, l, err)
		}
	}
	for name, m := range map[string]*dhcpv6.Message{
		"not on link": reply(nil, status(iana.StatusNotOnLink)),
		"not valid":   reply(address("2001:db8::5", 0, 0)),
	} {
		if l, err := decode(m, client.iaid()); !errors.Is(err, lease.ErrRefused) {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
}

// Whatever a host of the LAN sends, it is understood or left alone.
func FuzzAnswer(f *testing.F) {
	f.Add(reply(address("2001:db8::5", 100*time.Second, 200*time.Second), dhcpv6.OptDNS(net.ParseIP("2001:db8::3"))).ToBytes())
	f.Add(reply(nil, &dhcpv6.OptStatusCode{StatusCode: iana.StatusNoBinding}).ToBytes())
	f.Fuzz(func(t *testing.T, packet []byte) {
		m, err := dhcpv6.MessageFromBytes(packet)
		if err != nil {
			return
		}
		question := client.message(dhcpv6.MessageTypeSolicit, netip.Addr{}, nil)
		if answers(m, question) && (m.TransactionID != question.TransactionID || !m.Options.ClientID().Equal(question.Options.ClientID())) {
			t.Fatalf("an answer to somebody else: %s", m)
		}
		l, err := decode(m, client.iaid())
		if err != nil {
			return
		}
		doc, err := json.Marshal(l)
		if err != nil || !l.Address.IsValid() || !l.Expire.IsZero() && !l.Renew.Before(l.Expire) {
			t.Fatalf("a lease that makes no sense: %v, %s", err, doc)
		}
	})
}

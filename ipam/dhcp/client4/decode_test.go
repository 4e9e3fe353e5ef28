package client4

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/rfc1035label"
	"github.com/mdlayher/arp"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

func ack(options ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, YourIPAddr: net.IPv4(192, 0, 2, 50).To4(), ClientIPAddr: net.IPv4zero,
		ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero, ClientHWAddr: make(net.HardwareAddr, 6),
		Options: dhcpv4.OptionsFromList(
			dhcpv4.OptSubnetMask(net.CIDRMask(24, 32)), dhcpv4.OptServerIdentifier(net.IPv4(192, 0, 2, 1)),
			dhcpv4.OptMessageType(dhcpv4.MessageTypeAck)),
	}
	for _, o := range options {
		m.UpdateOption(o)
	}
	return m
}

func raw(code uint8, value ...byte) dhcpv4.Option {
	return dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), value)
}

// Each case shows what a lease has besides "address":"192.0.2.50/24".
func TestDecode(t *testing.T) {
	gateway := raw(3, 192, 0, 2, 1, 192, 0, 2, 2)
	for _, c := range []struct {
		name    string
		options []dhcpv4.Option
		want    string
	}{
		{"nothing else", nil, `"dns":{}`},
		{"routers", []dhcpv4.Option{gateway}, `"gateway":"192.0.2.1","routes":[{"dst":"0.0.0.0/0","gw":"192.0.2.1"}],"dns":{}`},
		{"a router outside of the subnet", []dhcpv4.Option{raw(3, 198, 51, 100, 1)}, `"gateway":"198.51.100.1",` +
			`"routes":[{"dst":"198.51.100.1/32","gw":"0.0.0.0","scope":253},{"dst":"0.0.0.0/0","gw":"198.51.100.1"}],"dns":{}`},
		{"no router at all", []dhcpv4.Option{raw(3, 0, 0, 0, 0)}, `"dns":{}`},
		{"option 33", []dhcpv4.Option{gateway, raw(33, 10, 0, 0, 0, 192, 0, 2, 9, 203, 0, 113, 0, 192, 0, 2, 8, 0, 0, 0, 0, 192, 0, 2, 7, 1)},
			`"gateway":"192.0.2.1","routes":[{"dst":"10.0.0.0/8","gw":"192.0.2.9"},{"dst":"203.0.113.0/24","gw":"192.0.2.8"},` +
				`{"dst":"0.0.0.0/0","gw":"192.0.2.1"}],"dns":{}`},
		{"option 121 goes before 3 and 33", []dhcpv4.Option{gateway, raw(33, 10, 0, 0, 0, 192, 0, 2, 9), raw(249, 8, 11, 192, 0, 2, 9),
			raw(121, 24, 198, 51, 100, 192, 0, 2, 9, 25, 198, 51, 100, 200, 0, 0, 0, 0)}, `"gateway":"192.0.2.1",` +
			`"routes":[{"dst":"198.51.100.0/24","gw":"192.0.2.9"},{"dst":"198.51.100.128/25","gw":"0.0.0.0","scope":253}],"dns":{}`},
		{"option 249 goes before 3", []dhcpv4.Option{gateway, raw(249, 8, 11, 192, 0, 2, 9)},
			`"gateway":"192.0.2.1","routes":[{"dst":"11.0.0.0/8","gw":"192.0.2.9"}],"dns":{}`},
		{"a broken 121 does not count", []dhcpv4.Option{gateway, raw(121, 33, 1, 2, 3, 4, 5, 192, 0, 2, 9)},
			`"gateway":"192.0.2.1","routes":[{"dst":"0.0.0.0/0","gw":"192.0.2.1"}],"dns":{}`},
		{"routes that no kernel takes", []dhcpv4.Option{raw(121, 8, 127, 192, 0, 2, 9, 4, 224, 192, 0, 2, 9, 24, 198, 51, 100, 224, 0, 0, 1)}, `"dns":{}`},
		{"names", []dhcpv4.Option{raw(6, 192, 0, 2, 3, 0, 0, 0, 0, 192, 0, 2, 3, 127, 0, 0, 53), dhcpv4.OptDomainName("example.org.\x00"),
			dhcpv4.OptDomainSearch(&rfc1035label.Labels{Labels: []string{"a.example", "x\nnameserver 192.0.2.66", "", "a b", "a.example"}})},
			`"dns":{"nameservers":["192.0.2.3","127.0.0.53"],"domain":"example.org","search":["a.example"]}`},
		{"a domain that is none", []dhcpv4.Option{dhcpv4.OptDomainName("a\noptions x")}, `"dns":{}`},
		{"MTU", []dhcpv4.Option{raw(26, 0x23, 0x28)}, `"dns":{},"mtu":9000`},
		{"an MTU that breaks the network", []dhcpv4.Option{raw(26, 0, 68)}, `"dns":{}`},
		{"an MTU of one byte", []dhcpv4.Option{raw(26, 5)}, `"dns":{}`},
		{"NTP", []dhcpv4.Option{raw(42, 192, 0, 2, 5, 255, 255, 255, 255)}, `"dns":{},"ntp":["192.0.2.5"]`},
		{"lengths that are wrong", []dhcpv4.Option{raw(3, 1, 2), raw(6, 1), raw(42), raw(15), raw(119, 63), raw(121, 24), raw(33, 1, 2, 3)}, `"dns":{}`},
		{"the smallest subnet", []dhcpv4.Option{raw(1, 255, 255, 255, 255), raw(3, 192, 0, 2, 1)}, `"gateway":"192.0.2.1",` +
			`"routes":[{"dst":"192.0.2.1/32","gw":"0.0.0.0","scope":253},{"dst":"0.0.0.0/0","gw":"192.0.2.1"}],"dns":{}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := &Client{Spec: &lease.Spec{}}
			l, err := client.decode(ack(c.options...))
			if err != nil {
				t.Fatal(err)
			}
			l.Renew, l.Rebind, l.Expire, l.Server = time.Time{}, time.Time{}, time.Time{}, nil
			doc, err := json.Marshal(l)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.TrimSuffix(strings.TrimPrefix(string(doc), `{"address":"`+l.Address.String()+`",`), `,"server":null}`)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, change := range map[string]func(*dhcpv4.DHCPv4){
		"0.0.0.0":                  func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4zero },
		"127.0.0.1":                func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4(127, 0, 0, 1) },
		"224.0.0.1":                func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4(224, 0, 0, 1) },
		"255.255.255.255":          func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4bcast },
		"<nil>":                    func(m *dhcpv4.DHCPv4) { m.Options.Del(dhcpv4.OptionSubnetMask) },
		"ff00ff00":                 func(m *dhcpv4.DHCPv4) { m.UpdateOption(raw(1, 255, 0, 255, 0)) },
		"server identifier":        func(m *dhcpv4.DHCPv4) { m.Options.Del(dhcpv4.OptionServerIdentifier) },
		"for 1s only":              func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptIPAddressLeaseTime(time.Second)) },
		"subnet mask \"00000000\"": func(m *dhcpv4.DHCPv4) { m.UpdateOption(raw(1, 0, 0, 0, 0)) },
	} {
		m := ack()
		change(m)
		if l, err := (&Client{Spec: &lease.Spec{}}).decode(m); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
}

func TestTimes(t *testing.T) {
	const never = -1
	for _, c := range []struct{ t1, t2, lease, renew, rebind, expire time.Duration }{
		{0, 0, 800 * time.Second, 400 * time.Second, 700 * time.Second, 800 * time.Second},
		{10, 20, 800 * time.Second, time.Second, time.Second, 800 * time.Second}, // nanoseconds
		{100 * time.Second, 200 * time.Second, 800 * time.Second, 100 * time.Second, 200 * time.Second, 800 * time.Second},
		{900 * time.Second, 1000 * time.Second, 800 * time.Second, 400 * time.Second, 700 * time.Second, 800 * time.Second},
		{300 * time.Second, 200 * time.Second, 800 * time.Second, 200 * time.Second, 200 * time.Second, 800 * time.Second},
		{0, 0, 0xfffffffe * time.Second, 0xfffffffe * time.Second / 2, 0xfffffffe*time.Second - 0xfffffffe*time.Second/8, 0xfffffffe * time.Second},
		{1, 2, lease.Infinite, never, never, never},
	} {
		var l lease.Lease
		now := time.Now()
		l.SetTimes(now, c.t1, c.t2, c.lease)
		for what, at := range map[string]struct {
			got  time.Time
			want time.Duration
		}{"renew": {l.Renew, c.renew}, "rebind": {l.Rebind, c.rebind}, "expire": {l.Expire, c.expire}} {
			if at.want == never && !at.got.IsZero() || at.want != never && at.got.Sub(now) != at.want {
				t.Errorf("T1 %s, T2 %s, lease %s: %s after %s, want %s", c.t1, c.t2, c.lease, what, at.got.Sub(now), at.want)
			}
		}
	}
}

func TestNextHop(t *testing.T) {
	l, err := (&Client{Spec: &lease.Spec{}}).decode(ack(raw(3, 192, 0, 2, 1), raw(121, 24, 198, 51, 100, 192, 0, 2, 9, 0, 192, 0, 2, 8,
		24, 203, 0, 113, 0, 0, 0, 0)))
	if err != nil {
		t.Fatal(err)
	}
	for to, want := range map[string]string{
		"192.0.2.77":   "192.0.2.77",
		"198.51.100.7": "192.0.2.9",
		"8.8.8.8":      "192.0.2.8",
		"203.0.113.5":  "203.0.113.5",
	} {
		if got := l.NextHop(netip.MustParseAddr(to)); got.String() != want {
			t.Errorf("to %s by %s, want %s", to, got, want)
		}
	}
}

// Whatever a host of the LAN sends, it is understood or left alone.
func FuzzAnswer(f *testing.F) {
	f.Add(ack(raw(3, 192, 0, 2, 1), raw(121, 24, 198, 51, 100, 192, 0, 2, 9), raw(119, 1, 'a', 0, 0xc0, 0)).ToBytes())
	f.Add(ack(raw(1), raw(3, 1), raw(33, 1), raw(51, 1, 2), raw(26, 1)).ToBytes())
	f.Fuzz(func(t *testing.T, packet []byte) {
		m, err := dhcpv4.FromBytes(packet)
		if err != nil {
			return
		}
		if question := ack(); answers(m, question) && (m.TransactionID != question.TransactionID || !bytes.Equal(m.ClientHWAddr, question.ClientHWAddr)) {
			t.Fatalf("an answer to somebody else: %s", m)
		}
		client := &Client{Spec: &lease.Spec{}}
		complete(m, &lease.Lease{Address: netip.MustParsePrefix("192.0.2.5/24"), Server: []byte{192, 0, 2, 1}})
		l, err := client.decode(m)
		if err != nil {
			return
		}
		l.NextHop(netip.MustParseAddr("203.0.113.1"))
		doc, err := json.Marshal(l)
		if err != nil {
			t.Fatalf("a lease that cannot be written: %v", err)
		}
		var again lease.Lease
		if err := json.Unmarshal(doc, &again); err != nil || !l.SameConfig(&again) {
			t.Fatalf("written and read it is another lease (%v): %s", err, doc)
		}
		if !l.Address.IsValid() || !l.Expire.IsZero() && !l.Renew.Before(l.Expire) {
			t.Fatalf("a lease that makes no sense: %s", doc)
		}
		held := lease.Held{IPv4: l}
		for _, r := range held.Result().Routes {
			if r.Dst.IP == nil || r.GW == nil {
				t.Fatalf("a route that makes no sense: %s", doc)
			}
		}
	})
}

// Frames with lengths that lie: nothing is read that the frame does not have.
func FuzzFrame(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 30, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 255, 255, 255, 255, 0, 67, 0, 68, 0, 10, 0, 0, 1, 2})
	f.Add([]byte{0x4f, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0})
	f.Fuzz(func(t *testing.T, frame []byte) {
		conn := nclient4.NewBroadcastUDPConn(&frames{list: [][]byte{frame}}, &net.UDPAddr{Port: clientPort})
		got := make([]byte, maxMessage)
		n, _, err := conn.ReadFrom(got)
		if err == nil && n > max(0, len(frame)-20-8) { // less the headers of IP and UDP
			t.Errorf("%d bytes of a frame of %d", n, len(frame))
		}
		if err == nil && !bytes.Contains(frame, got[:n]) {
			t.Errorf("%x is not in %x", got[:n], frame)
		}
		var p arp.Packet
		_ = p.UnmarshalBinary(frame)
	})
}

// frames is what a packet socket would receive.
type frames struct {
	net.PacketConn
	list [][]byte
}

func (f *frames) ReadFrom(b []byte) (int, net.Addr, error) {
	if len(f.list) == 0 {
		return 0, nil, io.EOF
	}
	n := copy(b, f.list[0])
	f.list = f.list[1:]
	return n, nil, nil
}

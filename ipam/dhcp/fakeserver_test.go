package dhcp_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// A fakeServer is a DHCPv4 server that does what the test says. Without orders it gives each client an address of
// its own and remembers it.
type fakeServer struct {
	w    *world
	id   netip.Addr
	conn net.PacketConn
	// raw, if it is set, sends answers to the client's MAC only, as real servers do.
	raw  net.PacketConn
	done chan struct{}

	mu      sync.Mutex
	seen    []seen
	given   map[string]netip.Addr // by client identifier
	next    netip.Addr
	options []dhcpv4.Option
	lease   time.Duration
	// answer is called with the answer that would be sent, and returns what is sent instead.
	answer func(question, answer *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4
}

// A seen message is one that the server has received.
type seen struct {
	*dhcpv4.DHCPv4
	from netip.AddrPort
}

// server starts a fake server with an identifier, which is also an address of the LAN.
func (w *world) server(options ...dhcpv4.Option) *fakeServer {
	w.Helper()
	s := &fakeServer{
		w: w, id: netip.MustParseAddr(lanAddress), done: make(chan struct{}),
		given: map[string]netip.Addr{}, next: netip.MustParseAddr("192.0.2.100"), lease: time.Hour,
		options: append([]dhcpv4.Option{dhcpv4.OptSubnetMask(net.CIDRMask(24, 32))}, options...),
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		control := raw.Control(func(fd uintptr) {
			if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err == nil {
				err = unix.SetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE, w.nic.Port)
			}
		})
		if control != nil {
			return control
		}
		return err
	}}
	var err error
	w.lan.Do(w, func() { s.conn, err = config.ListenPacket(context.Background(), "udp4", "0.0.0.0:67") })
	if err != nil {
		w.Fatal(err)
	}
	go s.run()
	w.Cleanup(s.stop)
	return s
}

func (s *fakeServer) stop() {
	_ = s.conn.Close()
	<-s.done
}

func (s *fakeServer) run() {
	defer close(s.done)
	buf := make([]byte, 4096)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		question, err := dhcpv4.FromBytes(buf[:n])
		if err != nil || question.OpCode != dhcpv4.OpcodeBootRequest {
			continue
		}
		for _, answer := range s.serve(question, from.(*net.UDPAddr).AddrPort()) {
			conn, to := s.conn, net.IPv4bcast
			switch {
			case !question.ClientIPAddr.IsUnspecified():
				to = question.ClientIPAddr
			case s.raw != nil:
				to = answer.YourIPAddr
				conn = nclient4.NewBroadcastUDPConn(toMAC{s.raw, question.ClientHWAddr}, &net.UDPAddr{IP: s.id.AsSlice(), Port: 67})
			}
			_, _ = conn.WriteTo(answer.ToBytes(), &net.UDPAddr{IP: to, Port: 68})
		}
	}
}

// toMAC sends to one neighbour what would be sent to all.
type toMAC struct {
	net.PacketConn
	mac net.HardwareAddr
}

func (c toMAC) WriteTo(b []byte, _ net.Addr) (int, error) {
	return c.PacketConn.WriteTo(b, &packet.Addr{HardwareAddr: c.mac})
}

func (s *fakeServer) serve(question *dhcpv4.DHCPv4, from netip.AddrPort) []*dhcpv4.DHCPv4 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, seen{question, from})
	client := string(question.Options.Get(dhcpv4.OptionClientIdentifier))
	kind := dhcpv4.MessageTypeAck
	switch question.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		kind = dhcpv4.MessageTypeOffer
	case dhcpv4.MessageTypeRequest:
	case dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeDecline:
		delete(s.given, client)
		return nil
	default:
		return nil
	}
	addr, known := s.given[client]
	if !known {
		addr, s.next = s.next, s.next.Next()
		s.given[client] = addr
	}
	answer, err := dhcpv4.NewReplyFromRequest(question, dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(addr.AsSlice()),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(s.id.AsSlice())), dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(s.lease)))
	if err != nil {
		return nil
	}
	for _, o := range s.options {
		answer.UpdateOption(o)
	}
	if s.answer != nil {
		return s.answer(question, answer)
	}
	return []*dhcpv4.DHCPv4{answer}
}

// answerByUnicast makes the server do so.
func (s *fakeServer) answerByUnicast() {
	var raw *packet.Conn
	var err error
	port := s.w.lan.Link(s.w, s.w.nic.Port).Attrs().Index
	s.w.lan.Do(s.w, func() { raw, err = packet.Listen(&net.Interface{Index: port}, packet.Datagram, unix.ETH_P_IP, nil) })
	if err != nil {
		s.w.Fatal(err)
	}
	s.w.Cleanup(func() { _ = raw.Close() })
	s.set(func(s *fakeServer) { s.raw = raw })
}

// set changes what the server does.
func (s *fakeServer) set(change func(*fakeServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// received returns the messages of a type, oldest first.
func (s *fakeServer) received(kind dhcpv4.MessageType) []seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.seen), func(m seen) bool { return m.MessageType() != kind })
}

// clients returns how many clients have addresses.
func (s *fakeServer) clients() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.given)
}

// silent is a server that hears, and says nothing.
func silent(_, _ *dhcpv4.DHCPv4) []*dhcpv4.DHCPv4 { return nil }

// times are the options of a lease that is extended after a second or so.
func times(t1, t2, lease time.Duration) []dhcpv4.Option {
	return []dhcpv4.Option{dhcpv4.OptRenewTimeValue(t1), dhcpv4.OptRebindingTimeValue(t2), dhcpv4.OptIPAddressLeaseTime(lease)}
}

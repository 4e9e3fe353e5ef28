package client4

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
	"github.com/braid-cni/braid/netdev"
)

// maxMessage is what fits into a packet on every Ethernet, and what servers are told so.
const maxMessage = 1500

const (
	serverPort = 67
	clientPort = 68
)

// A session is the client while it waits for answers.
type session struct {
	conn     *packet.Conn
	incoming net.PacketConn // conn without the headers
	ns       *netdev.Namespace
	index    int
	mac      net.HardwareAddr
}

// A destination says where a message is sent to, and where it says that it comes from.
type destination struct {
	source, ip netip.Addr
	mac        net.HardwareAddr
}

var everyone = destination{
	source: netip.IPv4Unspecified(),
	ip:     netip.AddrFrom4([4]byte{255, 255, 255, 255}),
	mac:    nclient4.BroadcastMac,
}

func (c *Client) open(ctx context.Context) (*session, error) {
	return newSession(c.Interface.OpenReady(ctx))
}

// newSession takes what opening an interface has returned.
func newSession(ns *netdev.Namespace, link netlink.Link, err error) (*session, error) {
	if err != nil {
		return nil, err
	}
	a := link.Attrs()
	s := &session{ns: ns, index: a.Index, mac: a.HardwareAddr}
	if len(s.mac) != 6 {
		err = fmt.Errorf("interface %s of type %s has no Ethernet address", a.Name, link.Type())
	} else {
		s.conn, err = s.listen(unix.ETH_P_IP, toPort68)
	}
	if err != nil {
		_ = ns.Close()
		return nil, err
	}
	s.incoming = nclient4.NewBroadcastUDPConn(s.conn, &net.UDPAddr{Port: clientPort})
	return s, nil
}

// listen opens a packet socket. It is of the namespace that it is opened in, whatever thread uses it later.
func (s *session) listen(protocol int, filter []bpf.RawInstruction) (conn *packet.Conn, err error) {
	err = s.ns.Do(func() error {
		conn, err = packet.Listen(&net.Interface{Index: s.index, HardwareAddr: s.mac}, packet.Datagram, protocol,
			&packet.Config{Filter: filter})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	return conn, nil
}

func (s *session) close() {
	dispose(s.conn)
	_ = s.ns.Close()
}

// dispose closes a packet socket. The kernel takes an RCU grace period for that, tens of milliseconds, and nobody has
// to wait for it.
func dispose(conn *packet.Conn) { go func() { _ = conn.Close() }() }

// send sends one message.
func (s *session) send(m *dhcpv4.DHCPv4, to destination) error {
	conn := nclient4.NewBroadcastUDPConn(toMAC{s.conn, to.mac}, &net.UDPAddr{IP: to.source.AsSlice(), Port: clientPort})
	_, err := conn.WriteTo(m.ToBytes(), &net.UDPAddr{IP: to.ip.AsSlice(), Port: serverPort})
	if err != nil {
		return fmt.Errorf("send a DHCP message: %w", err)
	}
	return nil
}

// toMAC sends to one neighbour what would be sent to all.
type toMAC struct {
	net.PacketConn
	mac net.HardwareAddr
}

func (c toMAC) WriteTo(b []byte, _ net.Addr) (int, error) {
	return c.PacketConn.WriteTo(b, &packet.Addr{HardwareAddr: c.mac})
}

// errIgnore is what a judge of answers returns for one that has nothing to do with the question.
var errIgnore = errors.New("not an answer")

// exchange sends a message, again and again, until the judge accepts an answer, or says that it is a refusal, or the
// context ends. The error then says why the last answer was not accepted.
func (s *session) exchange(ctx context.Context, m *dhcpv4.DHCPv4, to destination,
	judge func(*dhcpv4.DHCPv4) error) (*dhcpv4.DHCPv4, error) {
	defer context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })()
	last := errors.New("no answer")
	start := time.Now()
	for delay := time.Second; ; delay = min(2*delay, time.Minute) {
		m.NumSeconds = uint16(min(time.Since(start)/time.Second, 0xffff))
		if err := s.send(m, to); err != nil {
			last = err // the link may be down for a moment
		}
		answer, err := s.receive(ctx, time.Now().Add(jitter(delay)), m, judge)
		if answer != nil || errors.Is(err, lease.ErrRefused) {
			return answer, err
		}
		if err != nil {
			last = err
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), last)
		}
	}
}

// receive waits for an answer that the judge accepts. An error that is no refusal is for the record only.
func (s *session) receive(ctx context.Context, until time.Time, question *dhcpv4.DHCPv4,
	judge func(*dhcpv4.DHCPv4) error) (_ *dhcpv4.DHCPv4, last error) {
	buf := make([]byte, maxMessage)
	_ = s.conn.SetReadDeadline(until)
	for ctx.Err() == nil {
		n, _, err := s.incoming.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, last
		}
		if err != nil {
			sleep(ctx, time.Until(until)) // down, or gone; a socket that is closed does not come back sooner
			return nil, fmt.Errorf("receive a DHCP message: %w", err)
		}
		answer, err := dhcpv4.FromBytes(buf[:n])
		if err != nil || !answers(answer, question) {
			continue
		}
		switch err := judge(answer); {
		case err == nil:
			return answer, nil
		case errors.Is(err, lease.ErrRefused):
			return nil, err
		case !errors.Is(err, errIgnore):
			last = err
		}
	}
	return nil, last
}

// answers tells whether a message is about another one. A server that sends the client identifier back sends that
// of the question (RFC 6842).
func answers(answer, question *dhcpv4.DHCPv4) bool {
	identifier := answer.Options.Get(dhcpv4.OptionClientIdentifier)
	return answer.OpCode == dhcpv4.OpcodeBootReply &&
		answer.TransactionID == question.TransactionID &&
		bytes.Equal(answer.ClientHWAddr, question.ClientHWAddr) &&
		(identifier == nil || bytes.Equal(identifier, question.Options.Get(dhcpv4.OptionClientIdentifier)))
}

func newXID() (xid dhcpv4.TransactionID) {
	_, _ = rand.Read(xid[:]) // never fails
	return xid
}

// toPort68 lets UDP to the port of clients pass, and no fragment but the first: not what else the pod receives.
var toPort68 = mustAssemble(
	bpf.LoadAbsolute{Off: 9, Size: 1}, // protocol
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 6},
	bpf.LoadAbsolute{Off: 6, Size: 2}, // flags and fragment offset
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x1fff, SkipTrue: 4},
	bpf.LoadMemShift{Off: 0}, // length of the IP header
	bpf.LoadIndirect{Off: 2, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: clientPort, SkipTrue: 1},
	bpf.RetConstant{Val: 0xffff},
	bpf.RetConstant{Val: 0},
)

func mustAssemble(program ...bpf.Instruction) []bpf.RawInstruction {
	raw, err := bpf.Assemble(program)
	if err != nil {
		panic(err)
	}
	return raw
}

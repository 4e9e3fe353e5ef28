package client6

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// maxMessage is what fits into a packet on every Ethernet.
const maxMessage = 1500

const clientPort = "546"

// allServers is All_DHCP_Relay_Agents_and_Servers.
var allServers = &net.UDPAddr{IP: net.ParseIP("ff02::1:2"), Port: 547}

// A session is the client while it waits for answers.
type session struct {
	conn net.PacketConn
}

func (c *Client) open(ctx context.Context) (*session, error) {
	ns, _, err := c.Interface.OpenReady(ctx)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if _, err := ns.WaitAddress(ctx, c.Interface.Name, linkLocal); err != nil {
		return nil, err
	}
	s := new(session)
	if s.conn, err = lease.ListenPacket(ctx, ns, c.Interface.Name, "udp6", net.JoinHostPort("::", clientPort)); err != nil {
		return nil, fmt.Errorf("open a socket for DHCPv6: %w", err)
	}
	return s, nil
}

func linkLocal(a netlink.Addr) bool { return a.IP.IsLinkLocalUnicast() }

func (s *session) close() { _ = s.conn.Close() }

func (s *session) send(m *dhcpv6.Message) error {
	if _, err := s.conn.WriteTo(m.ToBytes(), allServers); err != nil {
		return fmt.Errorf("send a DHCPv6 message: %w", err)
	}
	return nil
}

// errIgnore is what a judge of answers returns for one that has nothing to do with the question.
var errIgnore = errors.New("not an answer")

// exchange sends a message, again and again, until the judge accepts an answer, or says that it is final, or the
// context ends. The error then says why the last answer was not accepted.
func (s *session) exchange(ctx context.Context, m *dhcpv6.Message, p pace, judge func(*dhcpv6.Message) error) error {
	defer context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })()
	last := errors.New("no answer")
	start := time.Now()
	for delay := p.first; ; delay = min(2*delay, p.last) {
		m.UpdateOption(dhcpv6.OptElapsedTime(min(time.Since(start), 0xffff*10*time.Millisecond)))
		if err := s.send(m); err != nil {
			last = err // the link may be down for a moment
		}
		done, err := s.receive(ctx, time.Now().Add(jitter(delay)), m, judge)
		if done {
			return err
		}
		if err != nil {
			last = err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", context.Cause(ctx), last)
		}
	}
}

// receive waits for an answer that the judge accepts or says to be final.
func (s *session) receive(ctx context.Context, until time.Time, question *dhcpv6.Message,
	judge func(*dhcpv6.Message) error) (done bool, last error) {
	buf := make([]byte, maxMessage)
	_ = s.conn.SetReadDeadline(until)
	for ctx.Err() == nil {
		n, _, err := s.conn.ReadFrom(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return false, last
		}
		if err != nil {
			sleep(ctx, time.Until(until))
			return false, fmt.Errorf("receive a DHCPv6 message: %w", err)
		}
		answer, err := dhcpv6.MessageFromBytes(buf[:n])
		if err != nil || !answers(answer, question) {
			continue
		}
		var noBinding *noBindingError
		switch err := judge(answer); {
		case err == nil || errors.Is(err, lease.ErrRefused) || errors.As(err, &noBinding):
			return true, err
		case !errors.Is(err, errIgnore):
			last = err
		}
	}
	return false, last
}

// answers tells whether a message is about another one: "the message does not include a Client Identifier option" and
// "the contents of the Client Identifier option do not match" are reasons to discard it.
func answers(answer, question *dhcpv6.Message) bool {
	id := answer.Options.ClientID()
	return answer.TransactionID == question.TransactionID && id != nil && id.Equal(question.Options.ClientID())
}

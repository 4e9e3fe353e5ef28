// Package client4 is a DHCPv4 client for one interface in a pod's network namespace (RFC 2131).
//
// It keeps no state: the keeper tells it what to do, and with which lease. All messages are sent and received with a
// packet socket that is open only while an answer is waited for, so the client needs neither an address nor a free
// port 68 nor a route to the server, does not depend on the packet filter of the pod, and keeps no namespace alive.
package client4

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// A Client speaks for one attachment. It is safe for concurrent use.
type Client struct {
	Interface lease.Interface
	Spec      *lease.Spec
}

// patience is how long one server is waited for, where another one might do instead.
const patience = 10 * time.Second

// Acquire gets a lease. It asks until it has one or the context ends; the error then says why the last answer was of
// no use, if there was one. The wish is an address that the server is asked for, or invalid.
func (c *Client) Acquire(ctx context.Context, wish netip.Addr) (*lease.Lease, error) {
	if err := c.Interface.SetUp(); err != nil {
		return nil, err
	}
	s, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	for delay := time.Second; ; delay *= 2 {
		l, err := c.negotiate(ctx, s, wish)
		if err == nil || ctx.Err() != nil {
			return l, err
		}
		// "If the client receives a DHCPNAK message, the client restarts the configuration process." And so it does
		// if the server that made the offer has gone. But not as fast as it can.
		if sleep(ctx, min(jitter(delay), time.Minute)); ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// negotiate goes from DISCOVER to ACK.
func (c *Client) negotiate(ctx context.Context, s *session, wish netip.Addr) (*lease.Lease, error) {
	var offered *lease.Lease
	offer, err := s.exchange(ctx, c.discover(s, wish), everyone, func(m *dhcpv4.DHCPv4) (err error) {
		if m.MessageType() != dhcpv4.MessageTypeOffer {
			return errIgnore
		}
		offered, err = c.decode(m)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("discover a DHCP server: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	l, err := c.request(limited, s, c.selecting(s, offer), everyone, nil)
	if err == nil && c.Spec.Probe {
		err = c.probe(limited, s, l)
	}
	if err == nil {
		return l, nil
	}
	if ctx.Err() != nil {
		c.abandon(s, offered)
	}
	return nil, fmt.Errorf("request %s of the DHCP server %s: %w", offer.YourIPAddr, offer.ServerIdentifier(), err)
}

// abandon gives an address back that the server may have given, when nobody waits for it any more.
func (c *Client) abandon(s *session, offered *lease.Lease) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if to, err := s.unicast(ctx, offered); err == nil {
		_ = s.send(c.release(s, offered), to) // the lease ends without it, too
	}
}

// probe declines an address that another host has.
//
// "If the network address appears to be in use, the client MUST send a DHCPDECLINE message to the server."
func (c *Client) probe(ctx context.Context, s *session, l *lease.Lease) error {
	owner, err := s.resolve(ctx, netip.IPv4Unspecified(), l.Address.Addr())
	if err != nil || owner == nil {
		return err
	}
	return errors.Join(fmt.Errorf("%s is in use by the host with MAC %s", l.Address.Addr(), owner),
		s.send(c.decline(s, l), everyone))
}

// Resume asks whether a lease still holds, after the keeper has been away: INIT-REBOOT.
func (c *Client) Resume(ctx context.Context, held *lease.Lease) (*lease.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	return c.request(ctx, s, c.rebooting(s, held), everyone, held)
}

// Renew asks the server of a lease for more time, until the context ends.
func (c *Client) Renew(ctx context.Context, held *lease.Lease) (*lease.Lease, error) {
	return c.extend(ctx, held, func(ctx context.Context, s *session) (destination, error) {
		return s.unicast(ctx, held)
	})
}

// Rebind asks any server for more time, until the context ends.
func (c *Client) Rebind(ctx context.Context, held *lease.Lease) (*lease.Lease, error) {
	return c.extend(ctx, held, func(context.Context, *session) (destination, error) {
		to := everyone
		to.source = held.Address.Addr()
		return to, nil
	})
}

// Release gives a lease back. The server does not answer, so that it has heard is not known.
func (c *Client) Release(ctx context.Context, held *lease.Lease) error {
	s, err := newSession(c.Interface.Open()) // and not wait for a link that may be down for good
	if err != nil {
		return err
	}
	defer s.close()
	to, err := s.unicast(ctx, held)
	if err != nil {
		return err
	}
	return s.send(c.release(s, held), to)
}

// extend tries, waits, and tries again. In between it has no socket open.
//
// "the client SHOULD wait one-half of the remaining time until T2 (in RENEWING state) and one-half of the remaining
// lease time (in REBINDING state), down to a minimum of 60 seconds, before retransmitting". A lease that is too short
// for that has a minimum of a quarter of the time.
func (c *Client) extend(ctx context.Context, held *lease.Lease,
	to func(context.Context, *session) (destination, error)) (*lease.Lease, error) {
	deadline, _ := ctx.Deadline()
	least := min(time.Minute, max(time.Second, time.Until(deadline)/4))
	for {
		next := time.Now().Add(max(time.Until(deadline)/2, least))
		l, err := c.try(ctx, held, to, min(patience, time.Until(next)))
		if err == nil || errors.Is(err, lease.ErrRefused) || lease.IsGone(err) {
			return l, err
		}
		if sleep(ctx, time.Until(next)); ctx.Err() != nil {
			return nil, err
		}
	}
}

func (c *Client) try(ctx context.Context, held *lease.Lease,
	to func(context.Context, *session) (destination, error), patience time.Duration) (*lease.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	dest, err := to(ctx, s)
	if err != nil {
		return nil, err
	}
	return c.request(ctx, s, c.extending(s, held), dest, held)
}

// request sends a REQUEST until there is an answer. Held is the lease that is to go on, nil for a new one.
func (c *Client) request(ctx context.Context, s *session, m *dhcpv4.DHCPv4, to destination, held *lease.Lease) (*lease.Lease, error) {
	var l *lease.Lease
	_, err := s.exchange(ctx, m, to, func(answer *dhcpv4.DHCPv4) (err error) {
		server := m.ServerIdentifier()
		switch {
		case server != nil && answer.ServerIdentifier() != nil && !answer.ServerIdentifier().Equal(server):
			return errIgnore
		case answer.MessageType() == dhcpv4.MessageTypeNak:
			return refusal(answer)
		case answer.MessageType() != dhcpv4.MessageTypeAck:
			return errIgnore
		}
		if held != nil {
			complete(answer, held)
		}
		l, err = c.decode(answer)
		return err
	})
	return l, err
}

func refusal(nak *dhcpv4.DHCPv4) error {
	return fmt.Errorf("%w: server %s, message %q", lease.ErrRefused, nak.ServerIdentifier(), nak.Message())
}

// jitter is what keeps many clients from asking at the same time again and again.
func jitter(d time.Duration) time.Duration { return d*3/4 + rand.N(d/2) }

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

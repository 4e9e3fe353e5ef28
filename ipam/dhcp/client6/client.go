// Package client6 is a DHCPv6 client for one interface in a pod's network namespace: one non-temporary address
// (RFC 8415).
//
// It keeps no state, as package client4. Its socket needs a link-local address, which it waits for, and the port 546.
package client6

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// A Client speaks for one attachment. It is safe for concurrent use.
type Client struct {
	Interface lease.Interface
	Spec      *lease.Spec
}

// A pace is how messages are sent again: after the first time, then after ever longer ones up to the last.
type pace struct{ first, last time.Duration }

// Section 7.6 of the RFC.
var (
	soliciting = pace{time.Second, time.Minute} // an hour by the RFC; but a pod is waiting
	requesting = pace{time.Second, 30 * time.Second}
	extending  = pace{10 * time.Second, 10 * time.Minute}
	releasing  = pace{time.Second, time.Second}
)

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
		if sleep(ctx, min(jitter(delay), time.Minute)); ctx.Err() != nil {
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

// negotiate goes from Solicit to Reply. It takes the first Advertise that has an address: the RFC would have it wait
// for better ones.
func (c *Client) negotiate(ctx context.Context, s *session, wish netip.Addr) (*lease.Lease, error) {
	var offered *lease.Lease
	err := s.exchange(ctx, c.message(dhcpv6.MessageTypeSolicit, wish, nil), soliciting, func(m *dhcpv6.Message) (err error) {
		if m.MessageType != dhcpv6.MessageTypeAdvertise {
			return errIgnore
		}
		offered, err = decode(m, c.iaid())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("solicit a DHCPv6 server: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	l, err := c.ask(limited, s, dhcpv6.MessageTypeRequest, offered, requesting)
	if err != nil && ctx.Err() != nil {
		// The server may have given the address, and nobody waits for it any more.
		_ = s.send(c.message(dhcpv6.MessageTypeRelease, offered.Address.Addr(), offered.Server))
	}
	if err != nil {
		return nil, fmt.Errorf("request %s of the DHCPv6 server %x: %w", offered.Address.Addr(), offered.Server, err)
	}
	return l, nil
}

// Resume asks whether a lease still holds, after the keeper has been away. Any server may answer.
func (c *Client) Resume(ctx context.Context, held *lease.Lease) (*lease.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return c.extend(ctx, dhcpv6.MessageTypeRebind, held, requesting)
}

// Renew asks the server of a lease for more time, until the context ends.
func (c *Client) Renew(ctx context.Context, held *lease.Lease) (*lease.Lease, error) {
	return c.extend(ctx, dhcpv6.MessageTypeRenew, held, extending)
}

// Rebind asks any server for more time, until the context ends.
func (c *Client) Rebind(ctx context.Context, held *lease.Lease) (*lease.Lease, error) {
	return c.extend(ctx, dhcpv6.MessageTypeRebind, held, extending)
}

// Release gives a lease back, and waits a moment for the server to say that it has heard.
func (c *Client) Release(ctx context.Context, held *lease.Lease) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer s.close()
	return s.exchange(ctx, c.message(dhcpv6.MessageTypeRelease, held.Address.Addr(), held.Server), releasing,
		func(m *dhcpv6.Message) error {
			if m.MessageType != dhcpv6.MessageTypeReply {
				return errIgnore
			}
			return nil
		})
}

// extend sends, waits, and sends again. While it waits for long it has no socket open.
func (c *Client) extend(ctx context.Context, kind dhcpv6.MessageType, held *lease.Lease, p pace) (*lease.Lease, error) {
	for delay := p.first; ; delay = min(2*delay, p.last) {
		next := time.Now().Add(jitter(delay))
		l, err := c.try(ctx, kind, held, min(patience, delay))
		if err == nil || errors.Is(err, lease.ErrRefused) || lease.IsGone(err) {
			return l, err
		}
		if sleep(ctx, time.Until(next)); ctx.Err() != nil {
			return nil, err
		}
	}
}

func (c *Client) try(ctx context.Context, kind dhcpv6.MessageType, held *lease.Lease, patience time.Duration) (*lease.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer s.close()
	l, err := c.ask(ctx, s, kind, held, extending)
	var unknown *noBindingError
	if errors.As(err, &unknown) {
		// "sends a Request message to the server that responded if any of the IAs in the Reply message contain the
		// NoBinding status code"
		held := *held
		held.Server = unknown.server
		return c.ask(ctx, s, dhcpv6.MessageTypeRequest, &held, requesting)
	}
	return l, err
}

// ask sends a message about a lease until there is a Reply.
func (c *Client) ask(ctx context.Context, s *session, kind dhcpv6.MessageType, about *lease.Lease, p pace) (l *lease.Lease, err error) {
	server := about.Server
	if kind == dhcpv6.MessageTypeRebind {
		server = nil // any
	}
	err = s.exchange(ctx, c.message(kind, about.Address.Addr(), server), p, func(m *dhcpv6.Message) (err error) {
		if m.MessageType != dhcpv6.MessageTypeReply {
			return errIgnore
		}
		l, err = decode(m, c.iaid())
		return err
	})
	return l, err
}

// jitter is what keeps many clients from asking at the same time again and again.
func jitter(d time.Duration) time.Duration { return d*9/10 + rand.N(d/5) }

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

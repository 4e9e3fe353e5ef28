package api

import (
	"context"
	"net"
	"sync"
)

// Close ends the connections of a server that [Login] has found, and those that are being made. No request may be at work.
//
// That is more than net/http does: it takes a connection for busy for a moment after the answer of a request, and one on
// which a request was given up until the server has shown that it lives.
func (s *Server) Close() {
	s.connections.close()
	s.HTTP.CloseIdleConnections()
}

// connections are those that were made.
type connections struct {
	net.Dialer

	mu     sync.Mutex
	made   []net.Conn
	closed bool
}

// DialContext is that of a [net.Dialer], until close.
func (c *connections) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.Dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		conn.Close()
		return nil, net.ErrClosed
	}
	c.made = append(c.made, conn)
	return conn, nil
}

func (c *connections) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, conn := range c.made {
		conn.Close()
	}
}

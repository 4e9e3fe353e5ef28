// Package dialed ends the connections of a client of net/http, in a process that lives on.
//
// net/http does not always: it takes a connection for busy for a moment after the answer of a request, and one on which a request
// was given up until the server has shown that it lives.
package dialed

import (
	"context"
	"net"
	"sync"
)

// Connections are those that a dialer has made. It is safe for concurrent use.
type Connections struct {
	net.Dialer

	mu     sync.Mutex
	made   []net.Conn
	closed bool
}

// DialContext is that of a [net.Dialer]. After Close the error is [net.ErrClosed].
func (c *Connections) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
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

// Close ends all connections, and those that are being made.
func (c *Connections) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, conn := range c.made {
		conn.Close()
	}
}

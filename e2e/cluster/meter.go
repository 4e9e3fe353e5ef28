package cluster

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

// A Meter stands before the API server and counts what TCP carries, in both directions: TLS, HTTP/2 and all, but not the
// headers of TCP and IP. It passes on everything as it is.
type Meter struct {
	URL            string
	sent, received atomic.Int64 // by the client
	opened         atomic.Int64

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// Traffic is what clients have sent and received, in bytes, and how many connections they have opened.
type Traffic struct{ Sent, Received, Connections int64 }

// NewMeter starts a meter that ends with the test.
func (c *Cluster) NewMeter() *Meter {
	c.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	m := &Meter{URL: "https://" + l.Addr().String(), conns: make(map[net.Conn]bool)}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			m.opened.Add(1)
			running.Go(func() { m.serve(client, strings.TrimPrefix(c.URL, "https://")) })
		}
	})
	c.t.Cleanup(func() {
		l.Close()
		m.mu.Lock()
		for conn := range m.conns {
			conn.Close()
		}
		m.conns = nil
		m.mu.Unlock()
		running.Wait()
	})
	return m
}

func (m *Meter) serve(client net.Conn, address string) {
	defer client.Close()
	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer server.Close()
	if !m.keep(client, server) {
		return
	}
	defer m.forget(client, server)
	var both sync.WaitGroup
	for _, way := range []struct {
		from, to net.Conn
		count    *atomic.Int64
	}{{client, server, &m.sent}, {server, client, &m.received}} {
		both.Go(func() {
			_, _ = io.Copy(way.to, io.TeeReader(way.from, counter{way.count})) // until one of both ends it
			way.to.Close()
		})
	}
	both.Wait()
}

// keep notes connections that the end of the test closes. It tells if that is still to come.
func (m *Meter) keep(conns ...net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, conn := range conns {
		if m.conns != nil {
			m.conns[conn] = true
		}
	}
	return m.conns != nil
}

func (m *Meter) forget(conns ...net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, conn := range conns {
		delete(m.conns, conn)
	}
}

// Traffic returns what there has been so far.
func (m *Meter) Traffic() Traffic { return Traffic{m.sent.Load(), m.received.Load(), m.opened.Load()} }

// Since returns what there has been after an earlier moment.
func (m *Meter) Since(t Traffic) Traffic {
	now := m.Traffic()
	return Traffic{now.Sent - t.Sent, now.Received - t.Received, now.Connections - t.Connections}
}

type counter struct{ *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.Add(int64(len(p)))
	return len(p), nil
}

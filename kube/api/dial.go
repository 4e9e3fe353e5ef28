package api

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/braid-cni/braid/internal/dialed"
)

// DialTime is how long a connection may take: of several API servers behind one name, another may be alive.
const DialTime = 3 * time.Second

// A dialer makes the connections to an API server.
type dialer struct {
	connections dialed.Connections
	trust       *tls.Config
	sessions    *sessions // nil keeps none

	early atomic.Pointer[early]
}

// An early connection is one that was begun before anybody asked for it.
type early struct {
	address string
	cancel  func()
	done    chan struct{}

	conn net.Conn
	err  error
}

// Connect begins to make a connection to a server that [Login] has found, which the first request takes. A connection by way of
// a proxy is left to the request.
func (s *Server) Connect() {
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: s.URL}); proxy != nil || err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	e := &early{address: net.JoinHostPort(s.URL.Hostname(), cmp.Or(s.URL.Port(), "443")), cancel: cancel, done: make(chan struct{})}
	s.dialer.early.Store(e)
	go func() {
		defer close(e.done)
		e.conn, e.err = s.dialer.connect(ctx, "tcp", e.address)
	}()
}

// take returns the connection, or ends it if ctx does.
func (e *early) take(ctx context.Context) (net.Conn, error) {
	defer context.AfterFunc(ctx, e.cancel)()
	<-e.done
	return e.conn, e.err
}

// close ends connections, and those that are being made.
func (d *dialer) close() {
	if e := d.early.Swap(nil); e != nil {
		e.cancel()
	}
	d.connections.Close()
}

// dialTLS connects to an address, a host with a port.
func (d *dialer) dialTLS(ctx context.Context, network, address string) (net.Conn, error) {
	if e := d.early.Swap(nil); e != nil {
		if e.address == address {
			return e.take(ctx)
		}
		e.cancel()
	}
	return d.connect(ctx, network, address)
}

func (d *dialer) connect(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTime+tryTime)
	defer cancel()
	trust := d.trust.Clone()
	if trust.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		trust.ServerName = host
	}
	// What the client says first, for which it makes keys, is made while the connection is.
	begun := d.begin(ctx, network, address)
	if d.sessions == nil {
		return shakeHands(ctx, begun, trust)
	}
	conn, err := shakeHands(ctx, begun, d.sessions.last().in(trust))
	if errors.Is(err, errNotResumed) {
		return shakeHands(ctx, d.begin(ctx, network, address), d.sessions.last().in(trust))
	}
	return conn, err
}

// in has a handshake use the session.
func (s *session) in(trust *tls.Config) *tls.Config {
	trust = trust.Clone()
	trust.ClientSessionCache, trust.VerifyConnection = s, s.shaken
	if s.isProven() {
		trust.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
	}
	return trust
}

func shakeHands(ctx context.Context, conn net.Conn, trust *tls.Config) (net.Conn, error) {
	secured := tls.Client(conn, trust)
	if err := secured.HandshakeContext(ctx); err != nil {
		secured.Close()
		return nil, err
	}
	return secured, nil
}

// begin returns a connection that is yet to be made. Whoever uses it waits for that, or has the error.
func (d *dialer) begin(ctx context.Context, network, address string) net.Conn {
	ctx, cancel := context.WithCancel(ctx)
	c := &beginning{made: make(chan struct{}), cancel: cancel}
	go func() {
		defer close(c.made)
		c.conn, c.err = d.connections.DialContext(ctx, network, address)
	}()
	runtime.Gosched() // so that it has begun
	return c
}

// A beginning is a connection that may not have been made yet.
type beginning struct {
	made   chan struct{} // closed when it has, or could not be
	cancel func()        // for what makes it

	conn net.Conn
	err  error
}

var _ net.Conn = (*beginning)(nil)

func (c *beginning) Read(b []byte) (int, error) {
	if <-c.made; c.err != nil {
		return 0, c.err
	}
	return c.conn.Read(b)
}

func (c *beginning) Write(b []byte) (int, error) {
	if <-c.made; c.err != nil {
		return 0, c.err
	}
	return c.conn.Write(b)
}

func (c *beginning) Close() error {
	c.cancel()
	if <-c.made; c.err != nil {
		return nil
	}
	return c.conn.Close()
}

func (c *beginning) LocalAddr() net.Addr {
	if <-c.made; c.err != nil {
		return new(net.TCPAddr)
	}
	return c.conn.LocalAddr()
}

func (c *beginning) RemoteAddr() net.Addr {
	if <-c.made; c.err != nil {
		return new(net.TCPAddr)
	}
	return c.conn.RemoteAddr()
}

func (c *beginning) SetDeadline(t time.Time) error      { return c.set(net.Conn.SetDeadline, t) }
func (c *beginning) SetReadDeadline(t time.Time) error  { return c.set(net.Conn.SetReadDeadline, t) }
func (c *beginning) SetWriteDeadline(t time.Time) error { return c.set(net.Conn.SetWriteDeadline, t) }

func (c *beginning) set(deadline func(net.Conn, time.Time) error, t time.Time) error {
	if <-c.made; c.err != nil {
		return c.err
	}
	return deadline(c.conn, t)
}

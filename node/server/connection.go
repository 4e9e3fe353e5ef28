package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/braid-cni/braid/internal/peercred"
	"github.com/braid-cni/braid/resolve"
)

// accept takes connections, each when there is room for it. After stop it takes those that wait, and returns.
func (s *Server) accept(e *ear, stop <-chan struct{}) {
	stopping := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	for {
		if !s.room(stop) {
			return
		}
		if stopping() {
			e.wake()
		}
		conn, err := e.AcceptUnix()
		if err == nil {
			s.start(conn)
			continue
		}
		<-s.slots
		switch {
		case stopping():
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
		default:
			// Out of descriptors, for instance. It passes.
			s.Log.Error("accept a connection", "err", err)
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// roomTime is how long those who wait in the backlog are kept when the server stops to listen.
const roomTime = time.Second

// room waits until a connection can be served, after stop for a bounded time.
func (s *Server) room(stop <-chan struct{}) bool {
	select {
	case s.slots <- struct{}{}:
		return true
	case <-stop:
	}
	select {
	case s.slots <- struct{}{}:
		return true
	case <-time.After(roomTime):
		return false
	}
}

// start serves a connection, which has a slot.
func (s *Server) start(conn *net.UnixConn) {
	c := &connection{
		UnixConn: conn, requestTime: s.RequestTime, idleTime: s.IdleTime, idleUntil: time.Now().Add(s.RequestTime),
	}
	s.mu.Lock()
	s.open[c] = true
	s.mu.Unlock()
	s.serving.Go(func() {
		defer func() { <-s.slots }()
		defer func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.open, c)
		}()
		defer conn.Close()
		s.answer(c)
	})
}

// answer answers the requests of a connection. A panic ends it, and nothing else.
func (s *Server) answer(c *connection) {
	defer func() {
		if p := recover(); p != nil {
			s.Log.Error("panic", "value", p, "stack", string(debug.Stack()))
		}
	}()
	// The second line of defence, after the mode of the socket.
	if err := peercred.Root(c.UnixConn); err != nil {
		s.refuse(c, err)
		return
	}
	var err error
	if s.Handle != nil {
		err = s.Handle(s.work, c.UnixConn)
	} else {
		err = resolve.Serve(s.work, c, c, watched{s}, s.Observe)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.Log.Warn("a client took too long", "err", err)
	} else if err != nil {
		s.Log.Debug("a connection broke", "err", err)
	}
}

// refuseTime is for a client to say what it will not get.
const refuseTime = time.Second

// refuse tells a client why it is not served.
func (s *Server) refuse(c *connection, cause error) {
	s.Log.Warn("refuse a client", "err", cause)
	if s.Refused != nil {
		s.Refused(cause)
	}
	doc, err := json.Marshal(map[string]*resolve.Error{
		"error": {Reason: resolve.Invalid, Message: "only root may ask braidd: " + cause.Error()},
	})
	if err != nil {
		return
	}
	// It looks for an answer when it has sent something.
	if err := c.SetReadDeadline(time.Now().Add(refuseTime)); err == nil {
		_, _ = c.UnixConn.Read(make([]byte, 4096))
	}
	_, _ = c.Write(append(doc, '\n'))
}

// watched tells about each request. A panic goes on.
type watched struct{ s *Server }

func (w watched) Resolve(ctx context.Context, q *resolve.Query) (a *resolve.Answer, err error) {
	defer w.served("resolve", time.Now(), &err)()
	return w.s.Resolver.Resolve(ctx, q)
}

func (w watched) Report(ctx context.Context, r *resolve.Report) (err error) {
	defer w.served("report", time.Now(), &err)()
	return w.s.Resolver.Report(ctx, r)
}

func (w watched) served(verb string, start time.Time, err *error) func() {
	*err = errPanic // until it returns
	return func() {
		if w.s.Served != nil {
			w.s.Served(Request{Verb: verb, Outcome: outcome(*err), Took: time.Since(start)})
		}
	}
}

var errPanic = errors.New("panic")

func outcome(err error) string {
	if err == nil {
		return resolve.Success
	}
	if e, ok := errors.AsType[*resolve.Error](err); ok {
		return e.Reason
	}
	if errors.Is(err, errPanic) {
		return "panic"
	}
	return resolve.Unavailable
}

// A connection bounds how long the client may take: from the first byte of a request to its end, to take an answer, and
// between requests.
type connection struct {
	*net.UnixConn
	requestTime, idleTime time.Duration

	mu        sync.Mutex // guards the deadline for reading, and closed
	closed    bool       // for reading
	idleUntil time.Time  // for the first request
	partUntil time.Time  // zero unless a request has come in part
}

// Read implements [io.Reader].
func (c *connection) Read(p []byte) (int, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return 0, io.EOF
	}
	deadline := c.partUntil
	if deadline.IsZero() {
		deadline = c.idleUntil
	}
	if deadline.IsZero() {
		deadline = time.Now().Add(c.idleTime)
	}
	err := c.SetReadDeadline(deadline)
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := c.UnixConn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed && n == 0:
		return 0, io.EOF
	case n > 0 && p[n-1] == '\n':
		c.idleUntil, c.partUntil = time.Time{}, time.Time{}
	case n > 0 && c.partUntil.IsZero():
		c.partUntil = time.Now().Add(c.requestTime)
	}
	return n, err
}

// Write implements [io.Writer].
func (c *connection) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.requestTime)); err != nil {
		return 0, err
	}
	return c.UnixConn.Write(p)
}

// readNoMore lets the connection end when its current request is answered.
func (c *connection) readNoMore() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	_ = c.SetReadDeadline(time.Unix(1, 0))
}

// cut ends the connection at once.
func (c *connection) cut() { _ = c.Close() }

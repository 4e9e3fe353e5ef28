// Package server answers the plugin on a unix socket, which only root may use.
//
// One daemon at a time serves the socket: it holds a lock. Another one that starts meanwhile stands by, ready in every
// other way. When the first is told to end it gives the lock up, and goes on serving until the next has put its own
// socket in the place of the old one, by a rename: the path always leads to somebody who listens. Where nobody stands by,
// it removes the socket. Either way it then serves who had connected, for a bounded time, and never cuts an answer.
//
// What is served at once is bounded. Those who connect beyond that wait in the kernel's backlog, until they are served or
// their own deadline sends them elsewhere: nothing in this process grows with them.
package server

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/resolve"
)

// DefaultSocket is where the plugin looks for a daemon.
const DefaultSocket = conf.DefaultDaemonSocket

// Options configure a Server. The zero value of a field stands for its default, where one is named.
type Options struct {
	Socket   string           // path; default DefaultSocket. The folder is made if need be.
	Resolver resolve.Resolver // answers the requests, unless there is Handle
	// Handle, if it is not nil, serves a connection in another way; who is not root does not get to it. The context ends when
	// the server has ended for so long that it does not wait for the connection any more.
	Handle func(ctx context.Context, conn *net.UnixConn) error
	Log    *slog.Logger // default slog.Default()

	MaxConnections int           // that are served at once; default 512
	RequestTime    time.Duration // for a client to send a request that it has begun, and to take an answer; default 10 s
	IdleTime       time.Duration // that a connection may rest between requests, as long as an ADD takes; default 10 min
	DrainTime      time.Duration // for the connections that there are when the server ends; default 10 s

	// All of the following may be nil, and must not block.

	Observe func(*resolve.Observation) // gets what the plugin tells without waiting for an answer
	Served  func(Request)              // is called after each request
	Refused func(error)                // is called for each client that is not root
}

// A Request is what became of one.
type Request struct {
	Verb    string // "resolve" or "report"
	Outcome string // "success", the reason of a resolve.Error, or "panic"
	Took    time.Duration
}

// A Server serves the socket while [Server.Run] runs.
type Server struct {
	Options
	slots  chan struct{} // holds as many as there are connections
	state  atomic.Pointer[string]
	work   context.Context // of requests
	giveUp context.CancelCauseFunc

	serving sync.WaitGroup // connections
	mu      sync.Mutex     // guards the map
	open    map[*connection]bool
}

// New returns a server that does nothing yet.
func New(o Options) *Server {
	o.Socket = cmp.Or(o.Socket, DefaultSocket)
	o.MaxConnections = cmp.Or(o.MaxConnections, 512)
	o.RequestTime = cmp.Or(o.RequestTime, 10*time.Second)
	o.IdleTime = cmp.Or(o.IdleTime, 10*time.Minute)
	o.DrainTime = cmp.Or(o.DrainTime, 10*time.Second)
	o.Log = cmp.Or(o.Log, slog.Default())
	s := &Server{
		Options: o, slots: make(chan struct{}, o.MaxConnections), open: make(map[*connection]bool),
	}
	// They go on when the context of Run ends.
	s.work, s.giveUp = context.WithCancelCause(context.Background())
	s.set(Starting)
	return s
}

// What a server is about.
const (
	Starting = "starting"
	Standby  = "standby" // another daemon serves the socket
	Serving  = "serving"
	Draining = "draining"
)

// State returns what the server is about.
func (s *Server) State() string { return *s.state.Load() }

func (s *Server) set(state string) { s.state.Store(&state) }

// Ready returns nil if plugins are served, by this daemon or by one that this one stands by for.
func (s *Server) Ready() error {
	switch state := s.State(); state {
	case Serving, Standby:
		return nil
	default:
		return errors.New("the socket is not served: " + state)
	}
}

// Connections returns how many are served now.
func (s *Server) Connections() int { return len(s.slots) }

// Run serves until ctx ends and what was under way then is done, for once. An error is about the socket: another Run may
// succeed, and the connections that there are go on meanwhile.
func (s *Server) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		e, err := s.listen(ctx)
		if err != nil && ctx.Err() == nil {
			s.set(Starting)
			return err
		}
		if err == nil {
			s.serve(ctx, e)
		}
	}
	s.set(Draining)
	s.drain()
	return nil
}

// serve accepts connections until ctx ends or the socket is no longer this server's.
func (s *Server) serve(ctx context.Context, e *ear) {
	s.set(Serving)
	s.Log.Info("serving", "socket", s.Socket)
	stop := make(chan struct{})
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		s.accept(e, stop)
	}()
	if err := s.watch(ctx, e); err != nil {
		s.set(Starting)
		s.Log.Warn("the socket is made anew", "socket", s.Socket, "err", err)
		e.unlock()
	} else {
		s.set(Draining)
		e.handOver()
	}
	// Nobody finds the way to this socket any more. Those who have are in its backlog.
	close(stop)
	e.wake()
	<-accepted
	e.close()
}

// lookInterval is how long it may take until it is noticed that somebody has removed or replaced the socket.
const lookInterval = time.Second

// watch returns an error when the socket is not this server's any more, nil when ctx ends.
func (s *Server) watch(ctx context.Context, e *ear) error {
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			if err := e.check(); err != nil {
				return err
			}
		}
	}
}

// errDrained is why the context of requests ends that take too long when the server ends.
var errDrained = &resolve.Error{Reason: resolve.Unavailable, Message: "braidd is ending"}

// answerTime is for what is to be answered in the end.
const answerTime = 2 * time.Second

// drain serves the connections that there are until their clients end them. After a while it reads no more requests from
// them, and then gives up on those it has.
func (s *Server) drain() {
	done := make(chan struct{})
	go func() {
		s.serving.Wait()
		close(done)
	}()
	for _, step := range []struct {
		after time.Duration
		do    func()
	}{
		{s.DrainTime, func() { s.each((*connection).readNoMore) }},
		{answerTime, func() { s.giveUp(errDrained) }},
		{answerTime, func() { s.each((*connection).cut) }},
	} {
		select {
		case <-done:
			return
		case <-time.After(step.after):
			step.do()
		}
	}
	s.Log.Warn("connections were cut whose requests do not end", "connections", s.Connections())
}

// each does something to all connections.
func (s *Server) each(do func(*connection)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		do(c)
	}
}

// Package health is the HTTP server by which a kubelet, Prometheus and an operator look at the node daemon.
//
//	/healthz   200 if the daemon works, 503 if restarting it would help
//	/readyz    200 if it can answer the plugin, 503 if not, or not yet
//	/metrics   for Prometheus
//	/debug/pprof/   if asked for
//
// The first two answer with a line for each check, which tells what is wrong. Anybody who can reach the address can read
// all of it, so the default is the node itself only.
package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// DefaultListen is the address that is listened on if none is given.
const DefaultListen = "127.0.0.1:9477"

// Options configure a Server. The zero value of each field stands for its default.
type Options struct {
	Listen  string       // host:port; default [DefaultListen]
	Metrics http.Handler // of /metrics; there is none if nil
	Pprof   bool         // serve /debug/pprof/, which shows the memory of the daemon

	// CertFile and KeyFile, if given, are what TLS is served with. They are read for every connection, so that they can
	// be renewed.
	CertFile, KeyFile string

	Log *slog.Logger // default slog.Default()
}

// A Server answers from [Server.Serve] on. Checks can be added at any time.
type Server struct {
	Options
	listener net.Listener

	mu    sync.Mutex
	live  []*check
	ready []*check
}

// New listens. An address that cannot be listened on is an error, as are files of a certificate that cannot be used.
func New(o Options) (*Server, error) {
	if o.Listen == "" {
		o.Listen = DefaultListen
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	s := &Server{Options: o}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, fmt.Errorf("certificate file %q, key file %q: want both or none", o.CertFile, o.KeyFile)
	}
	if o.CertFile != "" {
		if _, err := s.certificate(nil); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("health and metrics: want an address like %s: %w", DefaultListen, err)
	}
	s.listener = netutil.LimitListener(l, maxConnections)
	return s, nil
}

// maxConnections bounds what clients cost that connect and stay.
const maxConnections = 64

// Addr is where the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

func (s *Server) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(s.CertFile, s.KeyFile)
	return &c, err
}

// Serve answers until the context ends, and waits a moment then for those who have asked. It returns nil if the context
// was why it ended.
func (s *Server) Serve(ctx context.Context) error {
	h := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	if s.Pprof {
		h.WriteTimeout = 5 * time.Minute // profiles are taken for as long as is asked
	}
	l := s.listener
	if s.CertFile != "" {
		l = tls.NewListener(l, &tls.Config{GetCertificate: s.certificate, MinVersion: tls.VersionTLS12})
	}
	stop := context.AfterFunc(ctx, func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if h.Shutdown(ctx) != nil {
			h.Close()
		}
	})
	defer stop()
	if err := h.Serve(l); ctx.Err() == nil || !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("health and metrics: %w", err)
	}
	return nil
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.checks(&s.live)) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.checks(&s.ready)) })
	if s.Metrics != nil {
		mux.Handle("GET /metrics", s.Metrics)
	}
	if s.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

package cluster

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
)

// A Proxy stands before the API server, counts requests and does to them what a bad day does.
type Proxy struct {
	URL string

	server *httptest.Server

	mu       sync.Mutex
	fault    Fault
	requests []string
}

// A Fault answers a request in the API server's place, or waits, and says whether it has answered.
type Fault func(w http.ResponseWriter, r *http.Request) (answered bool)

// NewProxy starts a proxy that ends with the test.
func (c *Cluster) NewProxy() *Proxy {
	c.t.Helper()
	target, err := url.Parse(c.URL)
	if err != nil {
		c.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.pki.pool()}, ForceAttemptHTTP2: true}
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.Transport = transport
	forward.ErrorLog = log.New(io.Discard, "", 0)
	p := &Proxy{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.requests = append(p.requests, r.Method+" "+r.URL.Path)
		fault := p.fault
		p.mu.Unlock()
		if fault == nil || !fault(w, r) {
			forward.ServeHTTP(w, r)
		}
	}))
	// Read anew for each connection: see RotateServingCertificate.
	server.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair, err := tls.LoadX509KeyPair(c.pki.path("apiserver.crt"), c.pki.path("apiserver.key"))
		return &pair, err
	}}
	server.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{GetCertificate: server.TLS.GetCertificate}, nil // and not the one that httptest adds
	}
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that break, as they are meant to
	server.StartTLS()
	c.t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		transport.CloseIdleConnections()
	})
	p.URL, p.server = server.URL, server
	return p
}

// Set makes the proxy do f to every request from now on; nil ends that.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// Cut breaks all connections, in the middle of whatever they carry.
func (p *Proxy) Cut() { p.server.CloseClientConnections() }

// Requests returns "METHOD path" of the requests since it was last called.
func (p *Proxy) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.requests
	p.requests = nil
	return r
}

package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
)

// A Proxy stands before the API server, counts requests and does to them what a bad day does.
type Proxy struct {
	URL string

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
	ca := x509.NewCertPool()
	ca.AddCert(c.pki.cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca}, ForceAttemptHTTP2: true}
	forward := httputil.NewSingleHostReverseProxy(target)
	forward.Transport = transport
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
	pair, err := tls.LoadX509KeyPair(c.pki.path("apiserver.crt"), c.pki.path("apiserver.key"))
	if err != nil {
		c.t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	c.t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		transport.CloseIdleConnections()
	})
	p.URL = server.URL
	return p
}

// Set makes the proxy do f to every request from now on; nil ends that.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// Requests returns "METHOD path" of the requests since it was last called.
func (p *Proxy) Requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.requests
	p.requests = nil
	return r
}

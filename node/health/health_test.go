package health

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// start serves until the test ends. The functions add checks before.
func start(t *testing.T, o Options, with ...func(*Server)) *Server {
	t.Helper()
	o.Listen = "127.0.0.1:0"
	o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, add := range with {
		add(s)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s
}

func get(t *testing.T, s *Server, path string) (status int, body string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + s.Addr().String() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestEndpoints(t *testing.T) {
	var synced atomic.Bool
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "braid_up 1\n") })
	s := start(t, Options{Metrics: metrics}, func(s *Server) {
		s.Live("reports", func() error { return nil })
		s.Ready("socket", func() error { return nil })
		s.Ready("cache", func() error {
			if synced.Load() {
				return nil
			}
			return errors.New("pods are not listed yet:\nconnection refused")
		})
	})
	want := func(path string, status int, body string) {
		t.Helper()
		if gotStatus, got := get(t, s, path); gotStatus != status || body != "" && got != body {
			t.Errorf("GET %s: %d %q; want %d %q", path, gotStatus, got, status, body)
		}
	}
	want("/healthz", 200, "ok      reports\nok\n")
	want("/readyz", 503, "ok      socket\nfailed  cache: pods are not listed yet:; connection refused\n")
	synced.Store(true)
	want("/readyz", 200, "ok      socket\nok      cache\nok\n")
	want("/metrics", 200, "braid_up 1\n")
	want("/debug/pprof/", 404, "")
	want("/", 404, "")

	resp, err := http.Post("http://"+s.Addr().String()+"/healthz", "text/plain", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST /healthz: %s", resp.Status)
	}
}

func TestPprof(t *testing.T) {
	s := start(t, Options{Pprof: true})
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/goroutine?debug=1", "/debug/pprof/heap"} {
		if status, body := get(t, s, path); status != 200 || body == "" {
			t.Errorf("GET %s: %d, %d bytes", path, status, len(body))
		}
	}
	if status, _ := get(t, s, "/metrics"); status != 404 {
		t.Errorf("GET /metrics: %d without metrics", status)
	}
}

// A check that is stuck fails, costs one goroutine however often it is asked, and does not keep others from answering.
func TestStuck(t *testing.T) {
	var asked atomic.Int32
	stuck := make(chan struct{})
	s := start(t, Options{}, func(s *Server) {
		s.Live("stuck", func() error {
			asked.Add(1)
			<-stuck
			return nil
		})
		s.Live("fine", func() error { return nil })
	})
	for range 2 {
		if status, body := get(t, s, "/healthz"); status != 503 || body != "failed  stuck: no answer within 1s\nok      fine\n" {
			t.Errorf("GET /healthz: %d %q", status, body)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the check was asked %d times while it was stuck", n)
	}
	close(stuck)
	deadline := time.Now().Add(30 * time.Second)
	for status := 0; status != 200; status, _ = get(t, s, "/healthz") {
		if time.Now().After(deadline) {
			t.Fatal("the check does not recover")
		}
	}
}

func TestListen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, o := range []Options{
		{Listen: l.Addr().String()}, // taken
		{Listen: "9477"},
		{Listen: "127.0.0.1:0", CertFile: "/cert"},
		{Listen: "127.0.0.1:0", CertFile: "/no/cert", KeyFile: "/no/key"},
	} {
		if s, err := New(o); err == nil {
			s.listener.Close()
			t.Errorf("%+v is accepted", o)
		}
	}
}

// A certificate that is renewed is used without a restart.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	o := Options{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	certificate(t, o, 1)
	s := start(t, o)
	for serial := int64(1); serial <= 2; serial++ {
		certificate(t, o, serial)
		conn, err := tls.Dial("tcp", s.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != serial {
			t.Errorf("certificate %d, want %d", got, serial)
		}
		conn.Close()
	}
}

func certificate(t *testing.T, o Options, serial int64) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{o.CertFile: {Type: "CERTIFICATE", Bytes: cert}, o.KeyFile: {Type: "PRIVATE KEY", Bytes: der}} {
		var b bytes.Buffer
		if err := pem.Encode(&b, block); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

package api_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braid-cni/braid/kube/api"
	"github.com/braid-cni/braid/resolve"
)

// A resuming is an API server, and what clients of it keep.
type resuming struct {
	*testing.T
	http       *httptest.Server
	kubeconfig string
	session    string
	resumed    atomic.Bool  // as the last request was
	exchange   atomic.Int32 // of keys, for the last request
	made       atomic.Int32 // connections
}

func newResuming(t *testing.T, user string) *resuming {
	t.Helper()
	dir := t.TempDir()
	r := &resuming{T: t, kubeconfig: filepath.Join(dir, "kubeconfig"), session: filepath.Join(dir, "session")}
	r.http = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.resumed.Store(req.TLS.DidResume)
		r.exchange.Store(int32(req.TLS.CurveID))
		_, _ = w.Write([]byte(`{"metadata":{"uid":"u"}}`))
	}))
	r.http.EnableHTTP2 = true
	r.http.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that clients have ended
	r.http.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			r.made.Add(1)
		}
	}
	r.http.StartTLS()
	t.Cleanup(r.http.Close)
	r.write(filepath.Join(dir, "ca.crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.http.Certificate().Raw}))
	r.write(r.kubeconfig, fmt.Appendf(nil, `{"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
		"clusters": [{"name": "a", "cluster": {"server": %q, "certificate-authority": "ca.crt"}}], "users": [{"name": "a", "user": %s}]}`,
		r.http.URL, user))
	return r
}

func (r *resuming) write(path string, content []byte) {
	r.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		r.Fatal(err)
	}
}

// kept returns what is in the file of the session, once it is there: the server sends it when it likes.
func (r *resuming) kept() []byte {
	r.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(r.session)
		if err == nil {
			return b
		}
		if time.Now().After(deadline) {
			r.Fatal(err)
		}
	}
}

// ask asks as a new process does, and tells if it has resumed a session.
func (r *resuming) ask() (resumed bool) {
	r.Helper()
	server, err := api.Login(r.kubeconfig)
	if err != nil {
		r.Fatal(err)
	}
	defer server.Close()
	server.KeepSession(r.session)
	server.Connect()
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	resolver := api.New(server, api.Options{Log: slog.New(slog.DiscardHandler)})
	if _, err := resolver.Resolve(ctx, &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web"}}); err != nil {
		r.Fatal(err)
	}
	return r.resumed.Load()
}

const withToken = `{"token": "secret"}`

func TestSessionIsKept(t *testing.T) {
	r := newResuming(t, withToken)
	if r.ask() {
		t.Error("the first process has resumed a session")
	}
	r.kept()
	for range 8 {
		r.asks(true, tls.X25519MLKEM768, 1)
	}
	proven := r.kept()
	for range 3 {
		r.asks(true, tls.X25519, 1)
	}
	if string(r.kept()) != string(proven) {
		t.Error("a session that is proven has been written again")
	}
	info, err := os.Stat(r.session)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("found %v, %v, want a file that nobody else can read", info, err)
	}
}

// asks asks as a new process does, and complains if it has not resumed a session, has, exchanged keys otherwise or made more
// connections.
func (r *resuming) asks(resumed bool, exchange tls.CurveID, connections int32) {
	r.Helper()
	before := r.made.Load()
	if got := r.ask(); got != resumed {
		r.Errorf("resumed: %v, want %v", got, resumed)
	}
	if got := tls.CurveID(r.exchange.Load()); got != exchange {
		r.Errorf("keys are exchanged by %v, want %v", got, exchange)
	}
	if made := r.made.Load() - before; made != connections {
		r.Errorf("%d connections, want %d", made, connections)
	}
}

// forget has the server know no session any more, as after a restart, or as another server at the same address.
func (r *resuming) forget() {
	r.Helper()
	var key [32]byte
	if _, err := rand.Read(key[:]); err != nil {
		r.Fatal(err)
	}
	r.http.TLS.SetSessionTicketKeys([][32]byte{key})
}

// TestSessionThatServerForgets: the keys of a connection always follow from an exchange that withstands quantum computers.
func TestSessionThatServerForgets(t *testing.T) {
	for _, resumptions := range []int{1, 7, 8, 10} {
		t.Run(fmt.Sprint(resumptions), func(t *testing.T) {
			r := newResuming(t, withToken)
			for range 2 {
				r.asks(false, tls.X25519MLKEM768, 1)
				old := r.kept()
				for i := range resumptions {
					exchange := tls.X25519MLKEM768
					if i >= 8 {
						exchange = tls.X25519
					}
					r.asks(true, exchange, 1)
				}
				r.forget()
				connections := int32(1)
				if resumptions >= 8 {
					connections = 2
				}
				r.asks(false, tls.X25519MLKEM768, connections)
				for deadline := time.Now().Add(10 * time.Second); bytes.Equal(r.kept()[33:], old[33:]); time.Sleep(time.Millisecond) {
					if time.Now().After(deadline) {
						t.Fatal("the new session is not kept")
					}
				}
				r.asks(true, tls.X25519MLKEM768, 1)
				r.forget()
			}
		})
	}
}

// TestProvenSessionThatServerForgets: the request that finds it out is no failed one.
func TestProvenSessionThatServerForgets(t *testing.T) {
	r := newResuming(t, withToken)
	r.ask()
	r.kept()
	for range 8 {
		r.ask()
	}
	r.forget()
	server := login(t, r.kubeconfig)
	defer server.Close()
	server.KeepSession(r.session)
	answer, err := server.HTTP.Get(r.http.URL)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
}

// TestSessionOfOthers: a session is used with the server and the authority that it was made with, though the server would
// resume it.
func TestSessionOfOthers(t *testing.T) {
	const name = "example.com" // of which the certificate is, and of 127.0.0.1
	r := newResuming(t, withToken)
	address := r.http.Listener.Addr().(*net.TCPAddr)
	authority, err := os.ReadFile(filepath.Join(filepath.Dir(r.kubeconfig), "ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	more, _ := selfSigned(t)
	login := func(host, name string, authority []byte) {
		r.write(r.kubeconfig, fmt.Appendf(nil, `{"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
			"clusters": [{"name": "a", "cluster": {"server": "https://%s:%d", "tls-server-name": %q, "certificate-authority-data": %q}}],
			"users": [{"name": "a", "user": %s}]}`, host, address.Port, name, base64.StdEncoding.EncodeToString(authority), withToken))
	}
	for what, other := range map[string]func(){
		"another address":   func() { login("localhost", name, authority) },
		"another name":      func() { login("127.0.0.1", "", authority) },
		"another authority": func() { login("127.0.0.1", name, append(authority, more...)) },
	} {
		login("127.0.0.1", name, authority)
		_ = os.Remove(r.session)
		r.ask()
		r.kept()
		if !r.ask() {
			t.Fatalf("%s: the session is not resumed with its own", what)
		}
		if other(); r.ask() {
			t.Errorf("%s: the session is resumed", what)
		}
	}
}

// TestDamagedSession: whatever is in the file, it is a full handshake that it costs at most, and a good one replaces it.
func TestDamagedSession(t *testing.T) {
	r := newResuming(t, withToken)
	r.ask()
	good := r.kept()
	damaged := [][]byte{nil, []byte("garbage"), append(good[:32:32], 0, 0xff, 0xff, 0xff, 0xff), append(good[:32:32], 0xff, 0, 0, 0, 0), good[:33]}
	for i := 0; i < len(good); i += 61 {
		flipped := append([]byte(nil), good...)
		flipped[i] ^= 0x55
		damaged = append(damaged, good[:i], flipped)
	}
	for _, content := range damaged {
		r.write(r.session, content)
		if r.ask() {
			continue // what was damaged does not matter
		}
		for deadline := time.Now().Add(10 * time.Second); !r.ask(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no session is kept in the place of %q", content)
			}
		}
	}
}

// TestNoSessionWithCertificate: who could read it would have the credential.
func TestNoSessionWithCertificate(t *testing.T) {
	r := newResuming(t, withToken)
	dir := filepath.Dir(r.kubeconfig)
	cert, key := selfSigned(t)
	r.write(filepath.Join(dir, "client.crt"), cert)
	r.write(filepath.Join(dir, "client.key"), key)
	c := newResuming(t, fmt.Sprintf(`{"client-certificate": %q, "client-key": %q}`, filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key")))
	c.ask()
	if c.ask() {
		t.Error("a session has been resumed")
	}
	if _, err := os.Stat(c.session); err == nil {
		t.Error("a session is kept")
	}
}

func selfSigned(t *testing.T) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

package api_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/braid-cni/braid/kube/api"
	"github.com/braid-cni/braid/resolve"
)

// A mute server accepts connections and says nothing.
func mute(t *testing.T) (kubeconfig string, accepted <-chan net.Conn) {
	t.Helper()
	r := newResuming(t, withToken) // whose authority is good enough
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	conns := make(chan net.Conn, 10)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			conns <- conn
		}
	}()
	r.write(r.kubeconfig, fmt.Appendf(nil, `{"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
		"clusters": [{"name": "a", "cluster": {"server": "https://%s", "certificate-authority": "ca.crt"}}], "users": [{"name": "a", "user": {"token": "x"}}]}`,
		listener.Addr()))
	return r.kubeconfig, conns
}

func login(t *testing.T, kubeconfig string) *api.Server {
	t.Helper()
	server, err := api.Login(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	return server
}

func get(ctx context.Context, s *api.Server) error {
	_, err := api.New(s, api.Options{Log: slog.New(slog.DiscardHandler)}).Resolve(ctx, &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web"}})
	return err
}

// ended waits until the other side has closed a connection.
func ended(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for b := make([]byte, 4096); ; {
		if _, err := conn.Read(b); isTimeout(err) {
			t.Fatal("the connection is still there")
		} else if err != nil {
			return
		}
	}
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// TestConnect: what is begun before the first request is what that takes, and the next one too.
func TestConnect(t *testing.T) {
	r := newResuming(t, withToken)
	server := login(t, r.kubeconfig)
	defer server.Close()
	server.Connect()
	for range 2 {
		if err := get(t.Context(), server); err != nil {
			t.Fatal(err)
		}
	}
	if made := r.made.Load(); made != 1 {
		t.Errorf("%d connections, want 1", made)
	}
}

// TestConnectFails: the next try makes a connection of its own.
func TestConnectFails(t *testing.T) {
	kubeconfig, accepted := mute(t)
	server := login(t, kubeconfig)
	server.Connect()
	(<-accepted).Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	failed := make(chan error)
	go func() { failed <- get(ctx, server) }()
	second := <-accepted
	cancel()
	if e, ok := errors.AsType[*resolve.Error](<-failed); !ok || e.Reason != resolve.Unavailable {
		t.Errorf("got %v, want an error that says Unavailable", e)
	}
	server.Close()
	ended(t, second)
}

// TestCloseWhileConnecting: nothing stays of a connection that nobody has asked for yet, nor of one that is waited for.
func TestCloseWhileConnecting(t *testing.T) {
	kubeconfig, accepted := mute(t)
	server := login(t, kubeconfig)
	server.Connect()
	first := <-accepted
	server.Close()
	ended(t, first)

	server = login(t, kubeconfig)
	server.Connect()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	second := <-accepted
	if e, ok := errors.AsType[*resolve.Error](get(ctx, server)); !ok || e.Reason != resolve.Unavailable {
		t.Errorf("got %v, want an error that says Unavailable", e)
	}
	server.Close()
	ended(t, second)
}

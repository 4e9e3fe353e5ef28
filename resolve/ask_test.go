package resolve_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"
)

// TestNodeIsAsked: the daemon has the question before anybody waits for the answer, which is there however long it takes until
// somebody does. Who does not want it any more hangs up.
func TestNodeIsAsked(t *testing.T) {
	asked := make(chan string, 1)
	d := newDaemon(t, func(line string) string {
		asked <- line
		return fromDaemon
	})
	n := node(t, d.socket)
	ctx, cancel := context.WithCancel(t.Context())
	answer, end := n.Ask(ctx, query("web"))
	<-asked
	cancel()
	if a, err := answer(t.Context()); err != nil || a.Pod.UID != "daemon" {
		t.Errorf("found %+v, %v", a, err)
	}
	end()

	silent := newDaemon(t, func(line string) string {
		asked <- line
		select {} // the connection has to end without it
	})
	n = node(t, silent.socket)
	_, end = n.Ask(t.Context(), query("web"))
	<-asked
	end()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	silent.mu.Lock()
	defer silent.mu.Unlock()
	conn := silent.conns[0]
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); n != 0 || err.Error() != "EOF" {
		t.Errorf("the daemon has read %d bytes more, %v", n, err)
	}
}

// TestNobodyIsAsked: where there is no daemon the child is at work before anybody waits for it.
func TestNobodyIsAsked(t *testing.T) {
	n := node(t, filepath.Join(t.TempDir(), "s"))
	answer, end := n.Ask(t.Context(), query("web"))
	if a, err := answer(t.Context()); err != nil || a.Pod.UID == "" {
		t.Errorf("found %+v, %v", a, err)
	}
	end()
	_, end = n.Ask(t.Context(), query("web"))
	end()
}

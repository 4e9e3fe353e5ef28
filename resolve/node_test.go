package resolve_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/braid-cni/braid/resolve"
)

// A daemon is one that answers each line with what answer returns; an empty answer closes the connection.
type daemon struct {
	socket string
	answer func(line string) string

	mu       sync.Mutex
	listener net.Listener
	conns    []net.Conn
	lines    []string
}

func newDaemon(t *testing.T, answer func(line string) string) *daemon {
	t.Helper()
	d := &daemon{socket: filepath.Join(t.TempDir(), "s"), answer: answer}
	d.start(t)
	t.Cleanup(d.stop)
	return d
}

func (d *daemon) start(t *testing.T) {
	t.Helper()
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	d.listener = l
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			d.mu.Lock()
			d.conns = append(d.conns, conn)
			d.mu.Unlock()
			go d.serve(conn)
		}
	}()
}

func (d *daemon) serve(conn net.Conn) {
	defer conn.Close()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		d.mu.Lock()
		d.lines = append(d.lines, lines.Text())
		d.mu.Unlock()
		answer := d.answer(lines.Text())
		if answer == "" {
			return
		}
		if _, err := conn.Write([]byte(answer + "\n")); err != nil {
			return
		}
	}
}

// stop ends the daemon as kill -9 does, but takes the socket away.
func (d *daemon) stop() {
	d.listener.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, conn := range d.conns {
		// A child that another test is starting has a copy of the descriptor for a moment, and so the connection would be there.
		_ = conn.(*net.UnixConn).CloseRead()
		conn.Close()
	}
	d.conns = nil
}

// node is a Node whose child answers with its process id, as the UID.
func node(t *testing.T, socket string) *resolve.Node {
	n := &resolve.Node{Socket: socket, Fallback: newChild(t, "serve"), Log: func(msg string, args ...any) { t.Log(msg, args) }}
	t.Cleanup(func() { n.Close() })
	return n
}

const fromDaemon = `{"answer":{"pod":{"namespace":"default","name":"web","uid":"daemon"},"queues":true}}`

// A daemon that gives no answer, for whatever reason, costs no ADD.
func TestNodeFallsBack(t *testing.T) {
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	for _, tt := range []struct {
		name   string
		answer func(string) string
	}{
		{"closes", func(string) string { return "" }},
		{"garbage", func(string) string { return "hello" }},
		{"unavailable", func(string) string { return `{"error":{"reason":"Unavailable","message":"not synced"}}` }},
		{"invalid", func(string) string { return `{"error":{"reason":"Invalid","message":"my credentials are wrong"}}` }},
		{"hangs", func(string) string { <-hang; return "" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := node(t, newDaemon(t, tt.answer).socket)
			ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
			defer cancel()
			a, err := n.Resolve(ctx, query("web"))
			if err != nil || a.Pod.UID == "daemon" || a.Queues {
				t.Fatalf("found %+v, %v, want the child's answer", a, err)
			}
			if err := n.Report(ctx, &resolve.Report{Pod: a.Pod}); err != nil {
				t.Errorf("report: %v", err)
			}
		})
	}
	t.Run("absent", func(t *testing.T) {
		n := node(t, filepath.Join(t.TempDir(), "s"))
		if a, err := n.Resolve(t.Context(), query("web")); err != nil || a.Pod.UID == "" {
			t.Errorf("found %+v, %v", a, err)
		}
	})
	t.Run("both fail", func(t *testing.T) {
		n := node(t, newDaemon(t, func(string) string { return `{"error":{"reason":"Unavailable","message":"not synced"}}` }).socket)
		n.Fallback.(*resolve.Child).Env = env("refuse")
		_, err := n.Resolve(t.Context(), query("web"))
		wantError(t, err, resolve.Invalid, "no such kubeconfig")
		wantError(t, err, resolve.Invalid, "not synced")
	})
}

func TestNodeTakesTheDaemonsWord(t *testing.T) {
	d := newDaemon(t, func(line string) string {
		switch {
		case strings.Contains(line, "gone"):
			return `{"error":{"reason":"NotFound","message":"pod is gone"}}`
		case strings.Contains(line, "wrong"):
			return `{"error":{"reason":"Invalid","message":"the status is refused"}}`
		case strings.Contains(line, "resolve"):
			return fromDaemon
		}
		return `{"reported":true}`
	})
	n := node(t, d.socket)
	n.Fallback.(*resolve.Child).Env = env("refuse")
	_, err := n.Resolve(t.Context(), query("gone"))
	wantError(t, err, resolve.NotFound, "pod is gone")
	a, err := n.Resolve(t.Context(), query("web"))
	if err != nil || a.Pod.UID != "daemon" {
		t.Fatalf("found %+v, %v", a, err)
	}
	if err := n.Report(t.Context(), &resolve.Report{Pod: a.Pod}); err != nil {
		t.Error(err)
	}
	err = n.Report(t.Context(), &resolve.Report{Pod: a.Pod, Status: json.RawMessage(`["wrong"]`)})
	wantError(t, err, resolve.Invalid, "the status is refused")
}

// A daemon that ends during an ADD loses no report: the next daemon gets it, or finds it in the journal.
func TestNodeReportsWhenTheDaemonEnds(t *testing.T) {
	record := &resolve.Record{ContainerID: "c1", IfName: "eth0"}
	for _, tt := range []struct {
		name   string
		report resolve.Report
		again  bool // another daemon has been started
		child  bool // the child is to write it
	}{
		{"upgraded", resolve.Report{Record: record, Status: json.RawMessage(`["the journal has it"]`)}, true, false},
		{"ended", resolve.Report{Record: record}, false, false},
		{"ended, waiting", resolve.Report{Record: record, Wait: true}, false, true},
		{"ended, no record", resolve.Report{}, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := newDaemon(t, func(line string) string {
				if strings.Contains(line, "resolve") {
					return fromDaemon
				}
				return `{"reported":true}`
			})
			n := node(t, d.socket)
			a, err := n.Resolve(t.Context(), query("web"))
			if err != nil {
				t.Fatal(err)
			}
			d.stop()
			if tt.again {
				os.Remove(d.socket)
				d.start(t)
			}
			n.Fallback.(*resolve.Child).Env = env("refuse")
			tt.report.Pod = a.Pod
			if err := n.Report(t.Context(), &tt.report); tt.child {
				wantError(t, err, resolve.Invalid, "no such kubeconfig")
			} else if err != nil {
				t.Fatal(err)
			}
			got := func() bool {
				d.mu.Lock()
				defer d.mu.Unlock()
				return strings.Contains(d.lines[len(d.lines)-1], `"report":{"pod":{"namespace":"default","name":"web","uid":"daemon"},"record"`)
			}
			for deadline := time.Now().Add(10 * time.Second); tt.again && !got() && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond) // nobody has waited until it arrives
			}
			if got() != tt.again {
				t.Errorf("the daemon got %q", d.lines)
			}
		})
	}
}

func TestObserve(t *testing.T) {
	got := make(chan *resolve.Observation, 1)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		resolve.Serve(context.Background(), conn, conn, fake{}, func(o *resolve.Observation) { got <- o })
	}()
	if err := resolve.Observe(socket, &resolve.Observation{Verb: "DEL", Outcome: resolve.Success}); err != nil {
		t.Fatal(err)
	}
	select {
	case o := <-got:
		if o.Verb != "DEL" || o.Outcome != resolve.Success {
			t.Errorf("found %+v", o)
		}
	case <-time.After(30 * time.Second):
		t.Error("nothing arrived")
	}
	if err := resolve.Observe(socket+"x", &resolve.Observation{}); err == nil {
		t.Error("no error without a daemon")
	}
}

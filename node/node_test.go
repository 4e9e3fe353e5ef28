package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/kube"
	"github.com/braid-cni/braid/kube/kubetest"
	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/node"
	"github.com/braid-cni/braid/node/server"
	"github.com/braid-cni/braid/resolve"
)

// patience is for things that take a moment, on a machine that does much else.
const patience = time.Minute

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %s it is still not true that %s", patience, what)
		}
	}
}

// A world is an API server and the folders of a node.
type world struct {
	*testing.T
	api     *kubetest.Server
	options node.Options
}

func newWorld(t *testing.T) *world {
	t.Helper()
	nettest.NeedRoot(t)
	dir, err := os.MkdirTemp("", "node") // t.TempDir can be longer than the path of a socket may be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{T: t, api: kubetest.New(t)}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	api, err := kube.Open(w.api.Kubeconfig(), log)
	if err != nil {
		t.Fatal(err)
	}
	w.options = node.Options{
		CNIDir: filepath.Join(dir, "cni"), Source: api, Writer: api, Log: log, NoDHCP: true,
		Server: server.Options{Socket: filepath.Join(dir, "run", "braidd.sock"), DrainTime: 10 * time.Millisecond},
	}
	return w
}

func (w *world) node() *node.Node {
	w.Helper()
	n, err := node.New(w.options)
	if err != nil {
		w.Fatal(err)
	}
	return n
}

func (w *world) run(n *node.Node) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { n.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	w.Cleanup(stop)
	eventually(w, "the daemon serves", func() bool { return n.Server.State() == server.Serving })
	return stop
}

func (w *world) dial() *resolve.Client {
	w.Helper()
	c, err := resolve.Dial(within(w, patience), w.options.Server.Socket)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { c.Close() })
	return c
}

func (w *world) addPod(name string) resolve.Pod {
	uid := w.api.AddPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}})
	return resolve.Pod{Namespace: "default", Name: name, UID: uid}
}

// The way of an ADD: it asks, puts its record, and reports while it has the lock; and a DEL, that is observed.
func TestAdd(t *testing.T) {
	w := newWorld(t)
	observed := make(chan *resolve.Observation, 1)
	w.options.Observe = func(o *resolve.Observation) { observed <- o }
	n := w.node()
	stop := w.run(n)
	pod := w.addPod("web")
	c := w.dial()
	dir := filepath.Join(w.options.CNIDir, "attachments")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for folder, want := range map[string]bool{"": false, "/elsewhere": false, dir: true, dir + "/": true, link: true} {
		a, err := c.Resolve(within(t, patience), &resolve.Query{Pod: pod, Journal: folder})
		if err != nil {
			t.Fatal(err)
		}
		if a.Pod != pod || a.Queues != want {
			t.Errorf("journal %s: found pod %+v, queues %v, want %v", folder, a.Pod, a.Queues, want)
		}
	}
	unlock, err := n.Journal.Lock(within(t, patience), "c1")
	if err != nil {
		t.Fatal(err)
	}
	w.report(c, n, pod)
	unlock()
	eventually(t, "it is written", func() bool {
		record, err := n.Journal.Get("c1", "eth0")
		return err == nil && record.Pending == nil && w.api.Status("default", "web") == "[]"
	})
	if err := resolve.Observe(w.options.Server.Socket, &resolve.Observation{Pod: pod, Verb: "DEL", Events: []resolve.Event{{Type: "Normal", Reason: "RemovedInterface"}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the event is written", func() bool { return len(w.api.Events()) == 1 })
	if o := <-observed; o.Verb != "DEL" {
		t.Errorf("observed %+v", o)
	}
	for part, err := range n.Ready() {
		if err != nil {
			t.Errorf("%s is not ready: %v", part, err)
		}
	}
	c.Close()
	stop()
	if n.Ready()["socket"] == nil {
		t.Error("it is ready after its end")
	}
}

// report puts a record and reports it.
func (w *world) report(c *resolve.Client, n *node.Node, pod resolve.Pod) {
	w.Helper()
	r := &resolve.Report{Pod: pod, Status: json.RawMessage("[]")}
	pending, err := json.Marshal(r)
	if err != nil {
		w.Fatal(err)
	}
	if err := n.Journal.Put(&journal.Record{ContainerID: "c1", IfName: "eth0", Done: true, Pending: pending}); err != nil {
		w.Fatal(err)
	}
	r.Record = &resolve.Record{ContainerID: "c1", IfName: "eth0"}
	if err := c.Report(within(w, patience), r); err != nil {
		w.Errorf("report: %v", err)
	}
}

// An ADD that has begun before the daemon ends can still report to it.
func TestReportWhileItEnds(t *testing.T) {
	w := newWorld(t)
	w.options.Server.DrainTime = patience
	n := w.node()
	stop := w.run(n)
	pod := w.addPod("web")
	c := w.dial()
	if _, err := c.Resolve(within(t, patience), &resolve.Query{Pod: pod}); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	eventually(t, "it ends", func() bool { return n.Server.State() == server.Draining })
	w.report(c, n, pod)
	eventually(t, "it is written", func() bool { return w.api.Status("default", "web") == "[]" })
	c.Close()
	<-stopped
}

// A cache has one pod, and asks a source for all others.
type cache struct{ lookup.Source }

func (c cache) Resolve(ctx context.Context, q *resolve.Query) (*resolve.Answer, error) {
	a, _, err := lookup.Resolve(ctx, c, q)
	return a, err
}

func (c cache) Pod(ctx context.Context, pod resolve.Pod) (*lookup.Pod, error) {
	if pod.Name == "cached" {
		return &lookup.Pod{UID: "u"}, nil
	}
	return c.Source.Pod(ctx, pod)
}

// A slow source takes its time, and notes how many ask at once.
type slow struct {
	lookup.Source
	now, most *atomic.Int32
	hold      chan struct{}
}

func (s slow) Pod(ctx context.Context, pod resolve.Pod) (*lookup.Pod, error) {
	n := s.now.Add(1)
	defer s.now.Add(-1)
	for most := s.most.Load(); n > most && !s.most.CompareAndSwap(most, n); most = s.most.Load() {
	}
	select {
	case <-s.hold:
		return &lookup.Pod{UID: pod.UID}, nil
	case <-ctx.Done():
		return nil, &resolve.Error{Reason: resolve.Unavailable, Message: "slow"}
	}
}

// What the cache has is answered at once, however many wait for an API server that does not answer; and of those no more
// wait than may.
func TestLimit(t *testing.T) {
	w := newWorld(t)
	s := slow{now: new(atomic.Int32), most: new(atomic.Int32), hold: make(chan struct{})}
	w.options.Source = cache{node.Limit(s, 4, 8)}
	w.options.Server.MaxConnections = 32
	n := w.node()
	w.run(n)
	answers := make(chan error)
	for i := range 20 {
		c := w.dial()
		go func() {
			_, err := c.Resolve(within(t, patience), &resolve.Query{Pod: resolve.Pod{Name: fmt.Sprint("pod", i)}})
			answers <- err
		}()
	}
	for range 20 - 4 - 8 {
		if e, ok := (<-answers).(*resolve.Error); !ok || e.Reason != resolve.Unavailable || !strings.Contains(e.Message, "more wait than may wait") {
			t.Errorf("found %v, want %s", e, resolve.Unavailable)
		}
	}
	if _, err := w.dial().Resolve(within(t, patience), &resolve.Query{Pod: resolve.Pod{Name: "cached"}}); err != nil {
		t.Errorf("what the cache has: %v", err)
	}
	// One that waits has a deadline.
	_, err := node.Limit(slow{}, 0, 1).Network(within(t, time.Millisecond), resolve.NetworkName{})
	if e, ok := err.(*resolve.Error); !ok || e.Reason != resolve.Unavailable {
		t.Errorf("found %v, want %s", err, resolve.Unavailable)
	}
	close(s.hold)
	for range 4 + 8 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if most := s.most.Load(); most != 4 {
		t.Errorf("found %d look-ups at once, want 4", most)
	}
}

// A source that panics where networks are looked up, on goroutines of their own.
type panicking struct{ lookup.Source }

func (panicking) Network(context.Context, resolve.NetworkName) (*resolve.Network, error) {
	panic("as the test wants")
}

func TestPanicOfSource(t *testing.T) {
	w := newWorld(t)
	w.options.Source = cache{panicking{}}
	w.run(w.node())
	c := w.dial()
	for range 2 {
		_, err := c.Resolve(within(t, patience), &resolve.Query{Networks: []resolve.NetworkName{{Namespace: "a", Name: "b"}}})
		if e, ok := err.(*resolve.Error); !ok || e.Reason != resolve.Unavailable || !strings.HasPrefix(e.Message, "panic: as the test wants\n") {
			t.Errorf("found %v, want %s", err, resolve.Unavailable)
		}
	}
}

// A part that fails is run again, while the others go on.
func TestPartFails(t *testing.T) {
	w := newWorld(t)
	n := w.node()
	var runs atomic.Int32
	n.Add(node.Part{Name: "flaky", Run: func(ctx context.Context) error {
		switch runs.Add(1) {
		case 1:
			return errors.New("first")
		case 2:
			panic("second")
		}
		<-ctx.Done()
		return nil
	}})
	notYet := errors.New("not synced")
	n.Add(node.Part{Name: "slow", Run: func(context.Context) error { return nil }, Ready: func() error { return notYet }})
	stop := w.run(n)
	eventually(t, "it is not ready", func() bool { return n.Ready()["flaky"] != nil })
	if _, err := w.dial().Resolve(within(t, patience), &resolve.Query{}); err != nil {
		t.Error(err)
	}
	eventually(t, "it is run again twice", func() bool { return runs.Load() == 3 })
	if err := n.Ready()["flaky"]; err == nil || err.Error() != "panic: second" {
		t.Errorf("found %v, want the panic", err)
	}
	if err := n.Ready()["slow"]; err != notYet {
		t.Errorf("found %v, want %v", err, notYet)
	}
	stop()
}

func TestIncomplete(t *testing.T) {
	if _, err := node.New(node.Options{CNIDir: t.TempDir()}); err == nil {
		t.Error("a daemon without a source")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := node.New(node.Options{CNIDir: file, Source: cache{}, Writer: &kube.Resolver{}}); err == nil {
		t.Error("a daemon without a journal")
	}
}

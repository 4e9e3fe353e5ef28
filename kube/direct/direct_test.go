package direct_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/kube/direct"
	"github.com/braid-cni/braid/kube/kubetest"
	"github.com/braid-cni/braid/resolve"
)

// TestMain lets the test binary be the program that the child runs, which says so as the UID of the pod.
func TestMain(m *testing.M) {
	if os.Getenv("DIRECT_TEST_CHILD") == "" {
		os.Exit(m.Run())
	}
	if err := resolve.Serve(context.Background(), os.Stdin, os.Stdout, child{}, nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type child struct{}

func (child) Resolve(_ context.Context, q *resolve.Query) (*resolve.Answer, error) {
	if q.Pod.Name == "gone" {
		return nil, &resolve.Error{Reason: resolve.NotFound, Message: "pod is gone"}
	}
	return &resolve.Answer{Pod: resolve.Pod{Namespace: q.Pod.Namespace, Name: q.Pod.Name, UID: strings.Join(os.Args[1:], " ")}}, nil
}

func (child) Report(context.Context, *resolve.Report) error { return nil }

func newResolver(t *testing.T, kubeconfig string) *direct.Resolver {
	t.Helper()
	r := &direct.Resolver{
		Kubeconfig: kubeconfig, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Child: &resolve.Child{
			Path: os.Args[0], Args: []string{"resolve", "--kubeconfig", kubeconfig}, Env: append(os.Environ(), "DIRECT_TEST_CHILD=1"), Stderr: io.Discard,
		},
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func newServer(t *testing.T) *kubetest.Server {
	t.Helper()
	s := kubetest.New(t)
	s.AddManifests("../../examples/manifests")
	return s
}

func query(name string) *resolve.Query {
	return &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: name}}
}

func timeout(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func wantError(t *testing.T, err error, reason string, messages ...string) {
	t.Helper()
	e, ok := errors.AsType[*resolve.Error](err)
	if !ok {
		t.Fatalf("found error %v, want a *resolve.Error", err)
	}
	for _, message := range messages {
		if e.Reason != reason || !strings.Contains(e.Message, message) {
			t.Errorf("found error %s: %q, want %s: %q", e.Reason, e.Message, reason, message)
		}
	}
}

// The whole way of an ADD, with one connection, and its session kept for the next one.
func TestResolve(t *testing.T) {
	s := newServer(t)
	r := newResolver(t, s.Kubeconfig())
	r.Session = filepath.Join(t.TempDir(), "session")
	s.WholeWay(timeout(t, time.Minute), t, r, "default", "web")
	if _, err := os.Stat(r.Session); err != nil {
		t.Errorf("no session is kept: %v", err)
	}
}

// TestBeginsAnew: after Close the kubeconfig is read again.
func TestBeginsAnew(t *testing.T) {
	s := newServer(t)
	r := newResolver(t, s.Kubeconfig())
	uid := func() string {
		t.Helper()
		a, err := r.Resolve(timeout(t, time.Minute), query("web"))
		if err != nil {
			t.Fatal(err)
		}
		return a.Pod.UID
	}
	child := "resolve --kubeconfig " + s.Kubeconfig()
	if got := uid(); got == child {
		t.Error("the child is asked, of a kubeconfig that is plain")
	}
	if err := errors.Join(r.Close(), os.Remove(s.Kubeconfig())); err != nil {
		t.Fatal(err)
	}
	if got := uid(); got != child {
		t.Errorf("found answer of %q, want that of the child", got)
	}
}

// What is no plain kubeconfig is left to the child, which is told the path; where that fails, the error says why it was asked.
func TestChildAsks(t *testing.T) {
	t.Parallel()
	const exec = `{apiVersion: v1, kind: Config, current-context: a, contexts: [{name: a, context: {cluster: a, user: a}}],
clusters: [{name: a, cluster: {server: "https://127.0.0.1:1"}}],
users: [{name: a, user: {exec: {command: get-token, apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never}}}]}`
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, []byte(exec), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kubeconfig := range []string{path, path + ".none"} {
		r := newResolver(t, kubeconfig)
		a, err := r.Resolve(t.Context(), query("web"))
		if err != nil {
			t.Fatal(err)
		}
		if want := "resolve --kubeconfig " + kubeconfig; a.Pod.UID != want {
			t.Errorf("found answer of %q, want that of the child with %q", a.Pod.UID, want)
		}
		if err := r.Report(t.Context(), &resolve.Report{Pod: a.Pod}); err != nil {
			t.Errorf("report: %v", err)
		}
		_, err = r.Resolve(t.Context(), query("gone"))
		wantError(t, err, resolve.NotFound, "pod is gone", "not a plain kubeconfig")
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	r := newResolver(t, path)
	r.Child.Path = filepath.Join(t.TempDir(), "braidd")
	_, err := r.Resolve(t.Context(), query("web"))
	wantError(t, err, resolve.Invalid, "braidd: no such file or directory", `key "exec" is not known`, "not a plain kubeconfig")
}

// A process that does many ADDs has after each of them what it had before: goroutines, descriptors, connections.
func TestNothingStays(t *testing.T) {
	s := newServer(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and never shakes hands
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	plain, err := os.ReadFile(s.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	toSilent := filepath.Join(filepath.Dir(s.Kubeconfig()), "silent")
	if err := os.WriteFile(toSilent, []byte(strings.ReplaceAll(string(plain), s.URL(), "https://"+silent.Addr().String())), 0o600); err != nil {
		t.Fatal(err)
	}
	session := filepath.Join(t.TempDir(), "session")
	add := func(kubeconfig string, toResolve, toReport time.Duration) error {
		r := newResolver(t, kubeconfig)
		r.Session = session
		defer r.Close()
		a, err := r.Resolve(timeout(t, toResolve), query("web"))
		if err != nil {
			return err
		}
		return r.Report(timeout(t, toReport), &resolve.Report{Pod: a.Pod, Status: []byte("[]"), Events: []resolve.Event{{Reason: "A"}, {Reason: "B"}}})
	}
	round := func() {
		t.Helper()
		if err := add(s.Kubeconfig(), time.Minute, time.Minute); err != nil {
			t.Fatal(err)
		}
		wantError(t, add(toSilent, 50*time.Millisecond, 0), resolve.Unavailable, "get pods default/web")
		s.Break(kubetest.Fault{Method: "PATCH", Hang: true})
		wantError(t, add(s.Kubeconfig(), time.Minute, 200*time.Millisecond), resolve.Unavailable, "patch pods/status default/web")
		s.Mend()
	}
	round()
	settled := func(want string) string {
		var found string
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			found = own(t)
			if found == want || time.Now().After(deadline) {
				return found
			}
		}
	}
	before := settled("goroutines 0, connections 0")
	for range 10 {
		round()
	}
	if after := settled(before); after != before {
		buf := make([]byte, 1<<20)
		t.Errorf("found %s after ten more rounds, %s before\n%s", after, before, buf[:runtime.Stack(buf, true)])
	}
	if before != "goroutines 0, connections 0" {
		t.Errorf("found %s after the first round", before)
	}
}

// own counts the goroutines that net/http has for clients, or this package, and the connections that clients have made: those of the
// server are in this process too.
func own(t *testing.T) string {
	t.Helper()
	buf := make([]byte, 1<<20)
	goroutines := 0
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "net/http.(*Transport)") || strings.Contains(g, "ClientConn)") || strings.Contains(g, "braid/kube/api.") {
			goroutines++
		}
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	// A connection of a client that is open has a descriptor at its end, and one at the server's: those of the server go when it sees the end.
	connections := 0
	for _, fd := range fds {
		if target, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.HasPrefix(target, "socket:") {
			connections++
		}
	}
	return fmt.Sprintf("goroutines %d, connections %d", goroutines, connections-listening)
}

// listening is how many sockets the test itself has: the server's, and the silent one.
const listening = 2

// A request ends with its context, whatever the server does.
func TestEndsWithContext(t *testing.T) {
	for name, fault := range map[string]kubetest.Fault{
		"silent": {Hang: true}, "silent about networks": {Path: "network-attachment-definitions", Hang: true}, "ill": {Code: 500}, "gone": {Close: true},
		"large header": {Code: 200, Body: `{"metadata":{"uid":"u"}}`, RetryAfter: strings.Repeat("1", 300<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			s.Break(fault)
			r := newResolver(t, s.Kubeconfig())
			start := time.Now()
			_, err := r.Resolve(timeout(t, 300*time.Millisecond), query("web"))
			wantError(t, err, resolve.Unavailable, "get ")
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

// What a tenant has made large, in each of some networks, fails the ADD before it costs the node its memory.
func TestLargeAnswers(t *testing.T) {
	t.Parallel()
	s := kubetest.New(t)
	var names []string
	for i := range 4 {
		names = append(names, fmt.Sprint("n", i))
		s.AddNAD(&netv1.NetworkAttachmentDefinition{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: names[i]},
			Spec:       netv1.NetworkAttachmentDefinitionSpec{Config: strings.Repeat("x", 9<<20)},
		})
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}}
	pod.Annotations = map[string]string{"k8s.v1.cni.cncf.io/networks": strings.Join(names, ",")}
	s.AddPod(pod)
	_, err := newResolver(t, s.Kubeconfig()).Resolve(timeout(t, time.Minute), query("web"))
	wantError(t, err, resolve.Invalid, "too large, all together")

	pod.Annotations["k8s.v1.cni.cncf.io/networks"] = strings.Join(names[:3], ",")
	s.AddPod(pod)
	a, err := newResolver(t, s.Kubeconfig()).Resolve(timeout(t, time.Minute), query("web"))
	if err != nil || len(a.Networks) != 3 {
		t.Errorf("found %v, want 3 networks", err)
	}
}

// A panic is an error of the request that it happened in.
func TestPanic(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	r := newResolver(t, s.Kubeconfig())
	r.Log = slog.New(panicking{slog.DiscardHandler})
	uid := string(s.Pod("default", "web").UID)
	q := query("web")
	q.Pod.UID, q.Annotations = uid, map[string]string{"k8s.v1.cni.cncf.io/networks": "other"} // a difference is logged
	_, err := r.Resolve(timeout(t, time.Minute), q)
	wantError(t, err, resolve.Unavailable, "panic: a log")
	s.Break(kubetest.Fault{Path: "events", Code: 403})
	err = r.Report(timeout(t, time.Minute), &resolve.Report{Pod: q.Pod, Status: []byte("[]"), Events: []resolve.Event{{Reason: "A"}}})
	wantError(t, err, resolve.Unavailable, "panic: a log")
}

type panicking struct{ slog.Handler }

func (panicking) Enabled(context.Context, slog.Level) bool  { return true }
func (panicking) Handle(context.Context, slog.Record) error { panic("a log") }

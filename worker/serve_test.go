package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/worker/client"
	"github.com/braid-cni/braid/worker/protocol"
)

// What a worker answers is what the plugin process would have.
func TestAnswer(t *testing.T) {
	netns := nettest.NewNS(t).Path()
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	on := func(ctx context.Context, command string, req *cni.Request) error {
		tp, _ := cni.TraceParentOf(ctx)
		cni.Notice(ctx, command+" notice")
		switch req.ContainerID {
		case "traced":
			return fmt.Errorf("trace %s, args %s, netns %s, path %s", tp.String(), req.Args, req.Netns, req.Path)
		case "coded":
			return types.NewError(types.ErrTryAgainLater, "busy", "the server is silent")
		case "plain":
			return errors.New("no luck")
		}
		return nil
	}
	socket, _ := serve(t, of(&cnitest.Fake{On: on}))
	big := config[:len(config)-1] + `,"pad":"` + strings.Repeat("x", 8<<20-len(config)-len(`,"pad":""`)) + `"}`
	for _, tt := range []struct {
		name    string
		environ []string
		stdin   string
	}{
		{"ADD", environ("ADD", "c1", netns), config},
		{"DEL", environ("DEL", "c1", netns), config},
		{"DEL without a namespace", environ("DEL", "c1", ""), config},
		{"DEL of a namespace that is gone", environ("DEL", "c1", "/nonexistent"), config},
		{"CHECK", environ("CHECK", "c1", netns), config},
		{"traced", environ("ADD", "traced", netns, "TRACEPARENT="+trace, "CNI_ARGS=A=1;B=x=y"), config},
		{"coded", environ("ADD", "coded", netns), config},
		{"plain", environ("DEL", "plain", netns), config},
		{"as much as a runtime may say", environ("ADD", "c1", netns), big},
		{"more", environ("ADD", "c1", netns), big + " "},
		{"nothing", environ("ADD", "c1", netns), ""},
		{"garbage", environ("ADD", "c1", netns), "\x00\xff"},
		{"invalid", environ("ADD", "../c1", netns), config},
		{"the node's own namespace", environ("ADD", "c1", "/proc/self/ns/net"), config},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, done := Call(socket, tt.environ, []byte(tt.stdin))
			if !done {
				t.Fatal("it is not done")
			}
			if diff := cmp.Diff(direct(&cnitest.Fake{On: on}, tt.environ, tt.stdin), got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

// A panic is that of one call.
func TestPanic(t *testing.T) {
	netns := nettest.NewNS(t).Path()
	fake := &cnitest.Fake{On: func(_ context.Context, command string, req *cni.Request) error {
		if req.ContainerID == "bad" && command != "DEL" {
			panic("at the disco")
		}
		return nil
	}}
	socket, _ := serve(t, of(fake))
	got, done := Call(socket, environ("ADD", "bad", netns), []byte(config))
	if !done || got.ExitCode != 1 || !strings.Contains(got.Stdout, "at the disco") || !strings.Contains(got.Stderr, "goroutine") {
		t.Errorf("done %t, answer %+v", done, got)
	}
	wantCalls(t, fake, "ADD eth0", "DEL eth0")
	if got, done := Call(socket, environ("ADD", "good", netns), []byte(config)); !done || got.ExitCode != 0 {
		t.Errorf("after a panic: done %t, %+v", done, got)
	}
}

func wantCalls(t *testing.T, fake *cnitest.Fake, want ...string) {
	t.Helper()
	got := []string{}
	for _, c := range fake.Calls() {
		got = append(got, c.String())
	}
	if diff := cmp.Diff(append([]string{}, want...), got); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// Calls that are none for this worker do not get to the plugin.
func TestNotForThisWorker(t *testing.T) {
	netns, other := nettest.NewNS(t).Path(), nettest.NewNS(t).Path()
	var fake cnitest.Fake
	socket, _ := serve(t, of(&fake))
	at := place(netns)
	request := func(where string, environ []string) []string {
		return append([]string{where, config}, environ...)
	}
	for name, texts := range map[string][]string{
		"nothing":                  {},
		"a place only":             {at},
		"a call from nowhere":      request("", environ("ADD", "c1", netns)),
		"without an environment":   request(at, nil),
		"another namespace":        request(place(other), environ("ADD", "c1", netns)),
		"one that is gone here":    request(place(""), environ("ADD", "c1", netns)),
		"one that is gone there":   request(at, environ("DEL", "c1", "/nonexistent")),
		"more than a place":        request(at+"\x00", environ("ADD", "c1", netns)),
		"VERSION":                  request(at, environ("VERSION", "c1", netns)),
		"GC":                       request(at, environ("GC", "c1", netns)),
		"STATUS":                   request(at, environ("STATUS", "c1", netns)),
		"no command":               request(at, environ("", "c1", netns)),
		"an unknown command":       request(at, environ("UPDATE", "c1", netns)),
		"variables without values": request(at, []string{"CNI_COMMAND", "CNI_NETNS"}),
	} {
		t.Run(name, func(t *testing.T) {
			conn := dialRaw(t, socket)
			if err := protocol.Send(conn, texts...); err != nil {
				t.Fatal(err)
			}
			if m, err := protocol.Receive(conn); err != nil || !slices.Equal(m, []string{protocol.Elsewhere}) {
				t.Errorf("found %q, %v, want %q", m, err, protocol.Elsewhere)
			}
			if _, err := protocol.Receive(conn); !errors.Is(err, io.EOF) {
				t.Errorf("then %v, want the end", err)
			}
		})
	}
	for i := range len(at) / 8 { // each number of the place counts
		b := []byte(at)
		b[8*i+7] ^= 1
		conn := dialRaw(t, socket)
		if err := protocol.Send(conn, request(string(b), environ("ADD", "c1", netns))...); err != nil {
			t.Fatal(err)
		}
		if m, err := protocol.Receive(conn); err != nil || !slices.Equal(m, []string{protocol.Elsewhere}) {
			t.Errorf("number %d: found %q, %v", i, m, err)
		}
	}
	wantCalls(t, &fake)
}

// Paths that begin where the plugin process is lead elsewhere in the worker.
func TestRelativePaths(t *testing.T) {
	var fake cnitest.Fake
	socket, _ := serve(t, of(&fake))
	for _, vars := range [][]string{
		{"CNI_NETNS=run/netns/a"}, {"CNI_NETNS=."}, {"CNI_PATH=bin"}, {"CNI_PATH=/opt/cni/bin:bin"}, {"CNI_PATH=/opt/cni/bin:"},
	} {
		if _, done := Call(socket, append([]string{"CNI_COMMAND=DEL", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0"}, vars...), []byte(config)); done {
			t.Errorf("%s: it is done", vars)
		}
	}
	wantCalls(t, &fake)
	if _, done := Call(socket, []string{"CNI_COMMAND=DEL", "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_PATH=", "CNI_NETNS="}, []byte(config)); !done {
		t.Error("without paths: it is not done")
	}
}

// What a plugin gives back is done by the plugin process, whatever was printed meanwhile.
func TestGivenBack(t *testing.T) {
	netns := nettest.NewNS(t).Path()
	fake := &cnitest.Fake{On: func(context.Context, string, *cni.Request) error {
		return fmt.Errorf("third party: %w", cni.ErrElsewhere)
	}}
	socket, _ := serve(t, of(fake))
	for _, command := range []string{"ADD", "DEL", "CHECK"} {
		if a, done := Call(socket, environ(command, "c1", netns), []byte(config)); done {
			t.Errorf("%s is done: %+v", command, a)
		}
	}
	wantCalls(t, fake, "ADD eth0", "DEL eth0", "CHECK eth0")
}

// A result that no message has room for is undone, and made again by the plugin process. Of what people read the beginning is
// kept.
func TestLongAnswers(t *testing.T) {
	netns := nettest.NewNS(t).Path()
	long := strings.Repeat("x", maxStdout)
	fake := &cnitest.Fake{}
	var mu sync.Mutex
	var said string
	socket, _ := serve(t, &Worker{Plugin: func(c Caller) cni.Plugin {
		fake.On = func(_ context.Context, _ string, req *cni.Request) error {
			if req.ContainerID == "loud" {
				mu.Lock()
				defer mu.Unlock()
				for range 3 {
					said += strings.Repeat("noise ", 100_000)
					fmt.Fprint(c.Stderr, strings.Repeat("noise ", 100_000))
				}
			}
			return nil
		}
		return fake
	}})
	a, done := Call(socket, environ("ADD", "loud", netns), []byte(config))
	if !done || a.ExitCode != 0 || len(a.Stderr) != maxStderr || !strings.HasPrefix(said, a.Stderr) {
		t.Errorf("done %t, exit code %d, %d bytes of standard error", done, a.ExitCode, len(a.Stderr))
	}
	fake.Result = cnitestResult(long)
	if a, done := Call(socket, environ("ADD", "c1", netns), []byte(config)); done {
		t.Errorf("it is done: exit code %d, %d bytes", a.ExitCode, len(a.Stdout))
	}
	wantCalls(t, fake, "ADD eth0", "ADD eth0", "DEL eth0")
}

// Many calls do not get into each other's way.
func TestManyAtOnce(t *testing.T) {
	netns := nettest.NewNS(t).Path()
	descriptors := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before, goroutines := descriptors(), runtime.NumGoroutine()
	socket, stop := serve(t, &Worker{Plugin: func(c Caller) cni.Plugin {
		return &cnitest.Fake{On: func(_ context.Context, command string, req *cni.Request) error {
			var writers sync.WaitGroup
			for range 4 { // attachments go at the same time
				writers.Go(func() { fmt.Fprintln(c.Stderr, req.ContainerID) })
			}
			writers.Wait()
			return c.Waits()
		}}
	}})
	var calls sync.WaitGroup
	for i := range 200 {
		calls.Go(func() {
			id := fmt.Sprint("c", i)
			a, done := Call(socket, environ("CHECK", id, netns), []byte(config))
			if !done || a.ExitCode != 0 || a.Stdout != "" || a.Stderr != strings.Repeat(id+"\n", 4) {
				t.Errorf("%s: done %t, answer %+v", id, done, a)
			}
		})
	}
	calls.Wait()
	stop()
	eventually(t, "nothing of the calls is left", func() bool { return descriptors() <= before && runtime.NumGoroutine() <= goroutines })
}

func TestPing(t *testing.T) {
	var fake cnitest.Fake
	outdated := false
	w := of(&fake)
	w.Outdated = func() { outdated = true }
	socket, stop := serve(t, w)
	if err := Ping(socket); err != nil {
		t.Error(err)
	}
	stop()
	if err := Ping(socket); err == nil {
		t.Error("somebody answers who is gone")
	}
	if outdated {
		t.Error("this binary is where it was")
	}
	wantCalls(t, &fake)
}

// What a worker does that ends is left to plugin processes.
func TestServerEnds(t *testing.T) {
	netns := nettest.NewNS(t).Path()
	begun := make(chan struct{})
	fake := &cnitest.Fake{On: func(ctx context.Context, _ string, _ *cni.Request) error {
		close(begun)
		<-ctx.Done()
		return context.Cause(ctx)
	}}
	socket, stop := serve(t, of(fake))
	done := make(chan bool)
	go func() {
		_, d := Call(socket, environ("ADD", "c1", netns), []byte(config))
		done <- d
	}()
	<-begun
	stop()
	if <-done {
		t.Error("a call is done that was given up")
	}
}

// One that needs no more than the time that an ending server gives is answered.
func TestServerEndsLater(t *testing.T) {
	netns := nettest.NewNS(t).Path()
	begun, goOn := make(chan struct{}), make(chan struct{})
	fake := &cnitest.Fake{On: func(ctx context.Context, _ string, _ *cni.Request) error {
		close(begun)
		<-goOn
		return context.Cause(ctx)
	}}
	socket, stop := serveFor(t, of(fake), patience)
	answers := make(chan client.Answer)
	go func() {
		a, _ := Call(socket, environ("ADD", "c1", netns), []byte(config))
		answers <- a
	}()
	<-begun
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	eventually(t, "nobody finds the socket", func() bool { _, err := os.Stat(socket); return err != nil })
	close(goOn)
	if a := <-answers; a.ExitCode != 0 || !strings.Contains(a.Stdout, "eth0") {
		t.Errorf("found %+v", a)
	}
	<-stopped
}

// connected is a connection whose other end waits as long as the test does.
func connected(t *testing.T) *net.UnixConn {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	other := os.NewFile(uintptr(fds[1]), "other end")
	own := os.NewFile(uintptr(fds[0]), "own end")
	defer own.Close()
	conn, err := net.FileConn(own)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); other.Close() })
	return conn.(*net.UnixConn)
}

// A signal, such as those by which the runtime of Go lets goroutines take turns, does not make a caller one that is gone.
func TestWaitsAmidSignals(t *testing.T) {
	conn := connected(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self, thread := unix.Getpid(), unix.Gettid()
	over := make(chan struct{})
	var signals sync.WaitGroup
	for range 2 {
		signals.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
					if err := unix.Tgkill(self, thread, unix.SIGURG); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for range 300_000 {
		if err := waits(conn); err != nil {
			t.Error(err)
			break
		}
	}
	close(over)
	signals.Wait()
}

package server_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/node/server"
	"github.com/braid-cni/braid/resolve"
)

// The test binary is also a daemon that can be killed, and a client that is not root.
const (
	daemonEnv = "BRAID_TEST_DAEMON"
	clientEnv = "BRAID_TEST_CLIENT"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(daemonEnv); socket != "" {
		s := server.New(server.Options{Socket: socket, Resolver: census{}, MaxConnections: 16})
		fmt.Fprintln(os.Stderr, s.Run(context.Background()))
		os.Exit(1)
	}
	if socket := os.Getenv(clientEnv); socket != "" {
		client, err := resolve.Dial(context.Background(), socket)
		if err == nil {
			_, err = client.Resolve(context.Background(), &resolve.Query{})
		}
		fmt.Println(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// patience is for things that take a moment, on a machine that does much else.
const patience = time.Minute

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// census is a resolver that tells how many goroutines there are.
type census struct{ resolve.Resolver }

func (census) Resolve(context.Context, *resolve.Query) (*resolve.Answer, error) {
	time.Sleep(time.Millisecond)
	return &resolve.Answer{Pod: resolve.Pod{UID: strconv.Itoa(runtime.NumGoroutine())}}, nil
}

// A fake resolver answers by name of the pod.
type fake struct {
	running, most atomic.Int32
	hold          chan struct{} // for "held"
	held          chan struct{} // gets a value for each that is held
}

func newFake() *fake { return &fake{hold: make(chan struct{}), held: make(chan struct{}, 10000)} }

func (f *fake) Resolve(ctx context.Context, q *resolve.Query) (*resolve.Answer, error) {
	n := f.running.Add(1)
	defer f.running.Add(-1)
	for most := f.most.Load(); n > most && !f.most.CompareAndSwap(most, n); most = f.most.Load() {
	}
	switch q.Pod.Name {
	case "panic":
		panic("as the test wants")
	case "gone":
		return nil, &resolve.Error{Reason: resolve.NotFound, Message: "pod is gone"}
	case "big":
		return &resolve.Answer{Networks: map[string]resolve.Network{"a/b": {Config: strings.Repeat("x", 16<<20)}}}, nil
	case "held":
		f.held <- struct{}{}
		select {
		case <-f.hold:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return &resolve.Answer{Pod: q.Pod}, nil
}

func (f *fake) Report(context.Context, *resolve.Report) error { return nil }

// socketPath returns one that is short enough.
func socketPath(t testing.TB) string {
	t.Helper()
	nettest.NeedRoot(t)
	dir, err := os.MkdirTemp("", "braidd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "run", "braidd.sock")
}

// start runs a server until stop.
func start(t testing.TB, o server.Options) (s *server.Server, stop func()) {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	s = server.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ends with %v", err)
		}
	})
	t.Cleanup(stop)
	return s, stop
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %s it is still not true that %s", patience, what)
		}
	}
}

func serving(t testing.TB, o server.Options) (s *server.Server, stop func()) {
	t.Helper()
	s, stop = start(t, o)
	eventually(t, "the server serves", func() bool { return s.State() == server.Serving })
	return s, stop
}

func dial(t testing.TB, socket string) *resolve.Client {
	t.Helper()
	c, err := resolve.Dial(within(t, patience), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func ask(t testing.TB, c *resolve.Client, pod string) error {
	a, err := c.Resolve(within(t, patience), &resolve.Query{Pod: resolve.Pod{Name: pod}})
	if err == nil && a.Pod.Name != pod {
		return fmt.Errorf("the answer is about %q, want %q", a.Pod.Name, pod)
	}
	return err
}

func TestServe(t *testing.T) {
	observed := make(chan *resolve.Observation, 1)
	served := make(chan server.Request, 10)
	o := server.Options{
		Socket: socketPath(t), Resolver: newFake(),
		Observe: func(o *resolve.Observation) { observed <- o },
		Served:  func(r server.Request) { served <- r },
	}
	s, _ := serving(t, o)
	if err := s.Ready(); err != nil {
		t.Errorf("not ready: %v", err)
	}
	c := dial(t, o.Socket)
	if err := ask(t, c, "web"); err != nil {
		t.Error(err)
	}
	if err := ask(t, c, "gone"); err == nil || err.(*resolve.Error).Reason != resolve.NotFound {
		t.Errorf("found %v, want %s", err, resolve.NotFound)
	}
	if err := resolve.Observe(o.Socket, &resolve.Observation{Verb: "ADD"}); err != nil {
		t.Error(err)
	}
	if err := c.Report(within(t, patience), &resolve.Report{}); err != nil {
		t.Error(err)
	}
	if o := <-observed; o.Verb != "ADD" {
		t.Errorf("observed %+v", o)
	}
	for _, want := range []string{"resolve success", "resolve NotFound", "report success"} {
		if r := <-served; r.Verb+" "+r.Outcome != want || r.Took <= 0 {
			t.Errorf("served %+v, want %s", r, want)
		}
	}
	for path, want := range map[string]os.FileMode{o.Socket: 0o600, filepath.Dir(o.Socket): 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: found %v, %v, want mode %v", path, info.Mode(), err, want)
		}
	}
}

// A client of another version gets an answer to what is understood of its request.
// The server is alive as long as it answers, whatever its resolver does.
func TestLive(t *testing.T) {
	f := newFake()
	var served atomic.Int32
	s, stop := serving(t, server.Options{
		Socket: socketPath(t), Resolver: f, MaxConnections: 2, Served: func(server.Request) { served.Add(1) },
	})
	if err := s.Live(); err != nil || served.Load() != 0 {
		t.Errorf("found %v, and %d requests", err, served.Load())
	}
	for range 2 {
		c := dial(t, s.Socket)
		go func() { _ = ask(t, c, "held") }()
		<-f.held
	}
	if err := s.Live(); err == nil || !strings.Contains(err.Error(), "no answer") {
		t.Errorf("found %v with all connections held", err)
	}
	close(f.hold)
	stop()
	if err := s.Live(); err != nil {
		t.Errorf("found %v when it has ended", err)
	}
}

func TestOtherVersion(t *testing.T) {
	o := server.Options{Socket: socketPath(t), Resolver: newFake()}
	serving(t, o)
	conn, err := net.Dial("unix", o.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintln(conn, `{"version":7,"resolve":{"pod":{"name":"web","cluster":"c"},"later":[1]}}`)
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != `{"answer":{"pod":{"namespace":"","name":"web"}}}`+"\n" {
		t.Errorf("found %q, %v", line, err)
	}
}

// No more are served at once than may be, and all others wait for it.
func TestBound(t *testing.T) {
	f := newFake()
	o := server.Options{Socket: socketPath(t), Resolver: f, MaxConnections: 4}
	s, _ := serving(t, o)
	answers := make(chan error)
	const clients = 20
	for range clients {
		c := dial(t, o.Socket)
		go func() {
			answers <- ask(t, c, "held")
			c.Close()
		}()
	}
	for range 4 {
		<-f.held
	}
	time.Sleep(100 * time.Millisecond) // for a fifth, if there were one
	if n := s.Connections(); n != 4 || len(f.held) != 0 {
		t.Errorf("found %d connections and %d requests more, want 4 and none", n, len(f.held))
	}
	close(f.hold)
	for range clients {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	if most := f.most.Load(); most != 4 {
		t.Errorf("found %d at once, want 4", most)
	}
}

// child starts this binary again, as a daemon.
func child(t *testing.T, socket string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), daemonEnv+"="+socket)
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	eventually(t, "the daemon serves", func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return cmd
}

// A thousand clients at once are answered by a process that does not grow with them.
func TestBackPressure(t *testing.T) {
	socket := socketPath(t)
	daemon := child(t, socket)
	var most atomic.Int64
	var clients sync.WaitGroup
	ctx := within(t, patience)
	for range 1000 {
		clients.Go(func() {
			c, err := resolve.Dial(ctx, socket)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			a, err := c.Resolve(ctx, &resolve.Query{})
			if err != nil {
				t.Error(err)
				return
			}
			n, _ := strconv.ParseInt(a.Pod.UID, 10, 64)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
		})
	}
	clients.Wait()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", daemon.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	peak, _, _ = strings.Cut(strings.TrimSpace(peak), "\n")
	t.Logf("at most %d goroutines for 1000 clients, 16 of them at once; peak memory of the process %s", most.Load(), peak)
	// 16 that serve, each of which may have just been replaced, and a dozen of the server and the runtime.
	if n := most.Load(); n > 50 {
		t.Errorf("found %d goroutines", n)
	}
}

// Whoever is not root gets an error that says so, even if the mode of the socket is wrong.
func TestOnlyRoot(t *testing.T) {
	refused := make(chan error, 1)
	o := server.Options{Socket: socketPath(t), Resolver: newFake(), Refused: func(err error) { refused <- err }}
	serving(t, o)
	dir := filepath.Dir(filepath.Dir(o.Socket))
	for path, mode := range map[string]os.FileMode{dir: 0o755, filepath.Dir(o.Socket): 0o755, o.Socket: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	// The folder of the test binary is closed to others.
	self := filepath.Join(dir, "self")
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(self, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{clientEnv + "=" + o.Socket}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatal(err, string(out))
	}
	want := fmt.Sprintf("only root may ask braidd: the user of process %d is 65534, not root\n", cmd.ProcessState.Pid())
	if string(out) != want {
		t.Errorf("the client says %q, want %q", out, want)
	}
	select {
	case <-refused:
	case <-time.After(patience):
		t.Error("it is not told")
	}
	if err := ask(t, dial(t, o.Socket), "web"); err != nil {
		t.Errorf("root: %v", err)
	}
}

func TestPanic(t *testing.T) {
	served := make(chan server.Request, 10)
	o := server.Options{Socket: socketPath(t), Resolver: newFake(), Served: func(r server.Request) { served <- r }}
	serving(t, o)
	other := dial(t, o.Socket)
	if err := ask(t, other, "web"); err != nil {
		t.Fatal(err)
	}
	err := ask(t, dial(t, o.Socket), "panic")
	if e, ok := err.(*resolve.Error); !ok || e.Reason != resolve.Unavailable {
		t.Errorf("found %v, want %s", err, resolve.Unavailable)
	}
	<-served
	if r := <-served; r.Outcome != "panic" {
		t.Errorf("served %+v", r)
	}
	if err := ask(t, other, "web"); err != nil {
		t.Errorf("another connection: %v", err)
	}
}

// Those who take their time lose their connection, and are in nobody's way.
func TestSlowClients(t *testing.T) {
	o := server.Options{Socket: socketPath(t), Resolver: newFake(), MaxConnections: 1, RequestTime: 50 * time.Millisecond}
	serving(t, o)
	for name, send := range map[string]string{
		"silent":          "",
		"half a request":  `{"resolve":`,
		"no reading":      `{"resolve":{"pod":{"name":"big"}}}` + "\n",
		"endless request": strings.Repeat(" ", 1<<20+2),
	} {
		conn, err := net.Dial("unix", o.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go io.WriteString(conn, send)
		// There is room for one.
		c := dial(t, o.Socket)
		if err := ask(t, c, "web"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
	}
}

// A connection may rest while an ADD does its work.
func TestIdleConnection(t *testing.T) {
	o := server.Options{Socket: socketPath(t), Resolver: newFake(), RequestTime: 50 * time.Millisecond, IdleTime: patience}
	serving(t, o)
	c := dial(t, o.Socket)
	for range 2 {
		if err := ask(t, c, "web"); err != nil {
			t.Error(err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// What is under way when the server ends is answered.
func TestEnd(t *testing.T) {
	f := newFake()
	o := server.Options{Socket: socketPath(t), Resolver: f, DrainTime: patience}
	s, stop := serving(t, o)
	idle := dial(t, o.Socket)
	if err := ask(t, idle, "web"); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error)
	busy := dial(t, o.Socket)
	go func() { answer <- ask(t, busy, "held") }()
	<-f.held
	stopped := make(chan struct{})
	go func() {
		stop()
		close(stopped)
	}()
	eventually(t, "the socket is gone", func() bool {
		_, err := os.Stat(o.Socket)
		return errors.Is(err, fs.ErrNotExist)
	})
	if s.Ready() == nil {
		t.Error("it is ready while it ends")
	}
	if _, err := resolve.Dial(t.Context(), o.Socket); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("dial: found %v, want %v", err, syscall.ENOENT)
	}
	if err := ask(t, idle, "web"); err != nil {
		t.Errorf("a connection from before: %v", err)
	}
	close(f.hold)
	if err := <-answer; err != nil {
		t.Errorf("the request that was under way: %v", err)
	}
	idle.Close()
	busy.Close()
	<-stopped
}

// A connection that nobody ends, and a request that does not end, do not keep the server.
func TestEndInTime(t *testing.T) {
	f := newFake()
	o := server.Options{Socket: socketPath(t), Resolver: f, DrainTime: time.Millisecond}
	_, stop := serving(t, o)
	idle := dial(t, o.Socket)
	if err := ask(t, idle, "web"); err != nil {
		t.Fatal(err)
	}
	answer := make(chan error)
	busy := dial(t, o.Socket)
	go func() { answer <- ask(t, busy, "held") }()
	<-f.held
	stop()
	if err := <-answer; err == nil || err.Error() != "braidd is ending" {
		t.Errorf("found %v, want that braidd is ending", err)
	}
	if e, ok := ask(t, idle, "web").(*resolve.Error); !ok || e.Reason != resolve.Unavailable {
		t.Errorf("found %v, want %s", e, resolve.Unavailable)
	}
}

// A killed daemon leaves its socket, which the next one replaces.
func TestKilled(t *testing.T) {
	socket := socketPath(t)
	daemon := child(t, socket)
	daemon.Process.Kill()
	daemon.Wait()
	if _, err := resolve.Dial(t.Context(), socket); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("dial: found %v, want %v", err, syscall.ECONNREFUSED)
	}
	if err := os.WriteFile(socket+".new", nil, 0o600); err != nil { // as if it had been killed a little earlier
		t.Fatal(err)
	}
	serving(t, server.Options{Socket: socket, Resolver: newFake()})
	if err := ask(t, dial(t, socket), "web"); err != nil {
		t.Error(err)
	}
}

// A socket that somebody removes, alone or with the lock, comes back.
func TestRemoved(t *testing.T) {
	o := server.Options{Socket: socketPath(t), Resolver: newFake()}
	serving(t, o)
	before := dial(t, o.Socket)
	for _, names := range [][]string{{"braidd.sock"}, {"braidd.lock"}, {"braidd.sock", "braidd.lock"}} {
		old, err := os.Stat(o.Socket)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if err := os.Remove(filepath.Join(filepath.Dir(o.Socket), name)); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "there is another socket", func() bool {
			info, err := os.Stat(o.Socket)
			return err == nil && !os.SameFile(old, info)
		})
		if err := ask(t, dial(t, o.Socket), "web"); err != nil {
			t.Errorf("%v removed: %v", names, err)
		}
	}
	if err := ask(t, before, "web"); err != nil {
		t.Errorf("the connection from before: %v", err)
	}
}

func TestPathErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		prepare func(socket string) error
		want    string
	}{
		"file":        {func(socket string) error { return os.WriteFile(socket, []byte("precious"), 0o600) }, "there is a file that is no socket (-rw-------): remove it"},
		"folder":      {func(socket string) error { return os.Mkdir(socket, 0o700) }, "there is a file that is no socket (drwx------): remove it"},
		"open folder": {func(socket string) error { return os.Chmod(filepath.Dir(socket), 0o777) }, "has owner 0 and mode 0777: want 0, and that nobody else can write (0700 or 0755)"},
	} {
		t.Run(name, func(t *testing.T) {
			socket := socketPath(t)
			if err := os.Mkdir(filepath.Dir(socket), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := tt.prepare(socket); err != nil {
				t.Fatal(err)
			}
			s := server.New(server.Options{Socket: socket, Resolver: newFake()})
			if err := s.Run(within(t, patience)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("found %v, want %s", err, tt.want)
			}
			if s.Ready() == nil {
				t.Error("it is ready")
			}
		})
	}
	long := filepath.Join(socketPath(t), strings.Repeat("x", 100))
	if err := server.New(server.Options{Socket: long, Resolver: newFake()}).Run(within(t, patience)); err == nil ||
		!strings.Contains(err.Error(), "at most 103 are possible") {
		t.Errorf("long path: found %v", err)
	}
}

// While one daemon follows another, again and again, no client is ever without one.
func TestUpgrade(t *testing.T) {
	o := server.Options{Socket: socketPath(t), Resolver: newFake()}
	_, stop := serving(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	var asked atomic.Int64
	var slowest atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				start := time.Now()
				c, err := resolve.Dial(within(t, patience), o.Socket)
				if err != nil {
					t.Errorf("dial: %v", err)
					return
				}
				if err := ask(t, c, "web"); err != nil {
					t.Errorf("ask: %v", err)
				}
				c.Close()
				asked.Add(1)
				slowest.Store(max(slowest.Load(), int64(time.Since(start))))
			}
		})
	}
	const upgrades = 10
	for range upgrades {
		next, stopNext := start(t, o)
		eventually(t, "the next stands by", func() bool { return next.State() == server.Standby })
		if err := next.Ready(); err != nil {
			t.Errorf("it stands by and is not ready: %v", err)
		}
		stop()
		eventually(t, "the next serves", func() bool { return next.State() == server.Serving })
		stop = stopNext
	}
	cancel()
	clients.Wait()
	t.Logf("%d requests during %d upgrades, each of them answered, the slowest within %s", asked.Load(), upgrades, time.Duration(slowest.Load()))
}

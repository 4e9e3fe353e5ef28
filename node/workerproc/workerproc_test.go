package workerproc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/node/server"
	"github.com/braid-cni/braid/node/workerproc"
	"github.com/braid-cni/braid/worker"
	"github.com/braid-cni/braid/worker/client"
)

// The test binary is the plugin binary too, which does as a file says, and a daemon that can be killed. They have a folder.
const (
	workerEnv = "BRAID_WORKERPROC_TEST_WORKER"
	daemonEnv = "BRAID_WORKERPROC_TEST_DAEMON"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(workerEnv); dir != "" && len(os.Args) == 3 && os.Args[1] == "worker" {
		os.Exit(beWorker(dir, os.Args[2]))
	}
	if dir := os.Getenv(daemonEnv); dir != "" {
		p := process(dir)
		fmt.Fprintln(os.Stderr, p.Run(context.Background()))
		os.Exit(1)
	}
	os.Exit(nettest.Main(m))
}

// beWorker notes that it has begun, and how.
func beWorker(dir, socket string) int {
	how, err := os.ReadFile(filepath.Join(dir, "how"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 4
	}
	if err := appendTo(filepath.Join(dir, "begun"), fmt.Sprintln(os.Getpid(), string(how))); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 4
	}
	fmt.Fprintln(os.Stderr, "said by the worker")
	switch string(how) {
	case "crash":
		return 3
	case "leave":
		return 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	w := &worker.Worker{Plugin: func(worker.Caller) cni.Plugin { return &cnitest.Fake{} }, Outdated: stop}
	handle := func(ctx context.Context, conn *net.UnixConn) error {
		err := w.Serve(ctx, conn)
		return errors.Join(err, appendTo(filepath.Join(dir, "served"), "."))
	}
	err = server.New(server.Options{Socket: socket, Handle: handle, Log: slog.New(slog.DiscardHandler)}).Run(ctx)
	if err == nil {
		err = appendTo(filepath.Join(dir, "begun"), fmt.Sprintln(os.Getpid(), "ended"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 5
	}
	return 0
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// process is the worker of a daemon with a folder, in which the binary is.
func process(dir string) *workerproc.Process {
	return &workerproc.Process{
		Path:         func() (string, error) { return filepath.Join(dir, "braid"), nil },
		Socket:       filepath.Join(dir, "w.sock"),
		Stderr:       os.Stderr,
		LookInterval: 10 * time.Millisecond, PingInterval: 10 * time.Millisecond,
	}
}

// A world is a daemon's folder.
type world struct {
	t   *testing.T
	dir string
	*workerproc.Process
	stderr safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newWorld(t *testing.T, how string) *world {
	nettest.NeedRoot(t)
	dir, err := os.MkdirTemp("", "wproc") // the path of a socket has to be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, Process: process(dir)}
	w.Stderr = &w.stderr
	w.how(how)
	t.Setenv(workerEnv, dir)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// how says what workers do from now on.
func (w *world) how(how string) {
	w.t.Helper()
	w.must(os.WriteFile(filepath.Join(w.dir, "how.new"), []byte(how), 0o600))
	w.must(os.Rename(filepath.Join(w.dir, "how.new"), filepath.Join(w.dir, "how")))
}

// install puts a binary where it is looked for, in the place of another.
func (w *world) install() {
	w.t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	w.must(err)
	at := filepath.Join(w.dir, "braid")
	w.must(os.WriteFile(at+".new", b, 0o700))
	w.must(os.Rename(at+".new", at))
}

// run runs the worker until stop, which returns how that ended.
func (w *world) run() (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	w.t.Cleanup(func() { _ = stop() })
	return stop
}

// begun returns what the workers have noted.
func (w *world) begun() (lines []string) {
	b, err := os.ReadFile(filepath.Join(w.dir, "begun"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Error(err)
	}
	return strings.FieldsFunc(string(b), func(r rune) bool { return r == '\n' })
}

const patience = time.Minute

func (w *world) eventually(what string, is func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not true: %s; workers: %q, which say %s", what, w.begun(), w.stderr.String())
		}
	}
}

// serving waits until the nth worker answers, and returns its process.
func (w *world) serving(n int) (pid int) {
	w.t.Helper()
	w.eventually(fmt.Sprint("worker ", n, " has begun"), func() bool { return w.starts() == n })
	lines := w.begun()
	if _, err := fmt.Sscan(lines[len(lines)-1], &pid); err != nil {
		w.t.Fatal(err)
	}
	w.eventually("it answers", func() bool { return (&client.Client{Socket: w.Socket}).Ping() == nil })
	return pid
}

func (w *world) starts() (n int) {
	for _, line := range w.begun() {
		if !strings.HasSuffix(line, " ended") {
			n++
		}
	}
	return n
}

// isGone says whether a process has ended, though its parent may not have asked how.
func isGone(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

func TestEnd(t *testing.T) {
	w := newWorld(t, "serve")
	w.install()
	stop := w.run()
	pid := w.serving(1)
	if err := stop(); err != nil {
		t.Error(err)
	}
	if lines := w.begun(); len(lines) != 2 || lines[1] != fmt.Sprint(pid, " ended") || !isGone(pid) {
		t.Errorf("workers: %q, want one that has ended by itself", lines)
	}
	if !strings.Contains(w.stderr.String(), "said by the worker") {
		t.Errorf("the worker says %q", w.stderr.String())
	}
}

// A binary that comes later is run when it is there.
func TestBinaryThatComesLater(t *testing.T) {
	w := newWorld(t, "serve")
	looks := make(chan struct{}, 1000)
	path := w.Path
	w.Path = func() (string, error) {
		looks <- struct{}{}
		if len(looks) < 3 {
			return "", nil // it is not even known where
		}
		return path()
	}
	stop := w.run()
	w.eventually("it is looked for", func() bool { return len(looks) > 5 })
	if lines := w.begun(); len(lines) > 0 {
		t.Errorf("there are workers: %q", lines)
	}
	w.install()
	w.serving(1)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestPathError(t *testing.T) {
	w := newWorld(t, "serve")
	unknown := errors.New("the installation is unreadable")
	w.Path = func() (string, error) { return "", unknown }
	if err := w.Run(t.Context()); !errors.Is(err, unknown) {
		t.Errorf("found %v, want %v", err, unknown)
	}
}

// A worker that fails is an error, and so is one that ends for no reason: whoever runs the daemon's parts waits before the next.
func TestEndsThatAreErrors(t *testing.T) {
	for how, want := range map[string]string{
		"crash": "exit status 3",
		"leave": "it has ended, and its binary is the same", // as that of a Braid which knows of no worker does
	} {
		t.Run(how, func(t *testing.T) {
			w := newWorld(t, how)
			w.install()
			err := w.Run(t.Context())
			if err == nil || !strings.Contains(err.Error(), "braid worker: "+want) {
				t.Errorf("found %v, want %s", err, want)
			}
			if n := w.starts(); n != 1 {
				t.Errorf("%d workers have begun, want 1", n)
			}
		})
	}
	t.Run("kill", func(t *testing.T) {
		w := newWorld(t, "serve")
		w.install()
		done := make(chan error)
		go func() { done <- w.Run(t.Context()) }()
		w.must(syscall.Kill(w.serving(1), syscall.SIGKILL))
		if err := <-done; err == nil || !strings.Contains(err.Error(), "signal: killed") {
			t.Errorf("found %v, want that it was killed", err)
		}
	})
	t.Run("no program", func(t *testing.T) {
		w := newWorld(t, "serve")
		w.must(os.WriteFile(filepath.Join(w.dir, "braid"), []byte("not one"), 0o700))
		if err := w.Run(t.Context()); !errors.Is(err, syscall.ENOEXEC) {
			t.Errorf("found %v, want %v", err, syscall.ENOEXEC)
		}
	})
}

// A worker ends when its binary is replaced, and the new one is run at once.
func TestReplacedBinary(t *testing.T) {
	w := newWorld(t, "serve")
	w.PingInterval = 0 // the default: while it ends, it answers no questions
	w.install()
	stop := w.run()
	first := w.serving(1)
	w.install()
	_ = (&client.Client{Socket: w.Socket}).Ping() // as any call of the new binary is
	second := w.serving(2)
	if second == first || !isGone(first) {
		t.Errorf("processes %d and %d", first, second)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// A worker that does not answer any more is killed: it may hold locks.
func TestSilentWorker(t *testing.T) {
	w := newWorld(t, "serve")
	w.install()
	done := make(chan error)
	go func() { done <- w.Run(t.Context()) }()
	pid := w.serving(1)
	served := func() int {
		b, err := os.ReadFile(filepath.Join(w.dir, "served"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
		return len(b)
	}
	before := served()
	w.eventually("the daemon has heard of it", func() bool { return served() > before+2 }) // besides the test
	w.must(syscall.Kill(pid, syscall.SIGSTOP))
	if err := <-done; err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("found %v, want that it was killed", err)
	}
}

// When a daemon is killed its worker is too.
func TestDaemonThatIsKilled(t *testing.T) {
	w := newWorld(t, "serve")
	w.install()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), daemonEnv+"="+w.dir)
	cmd.Stderr = &w.stderr
	w.must(cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	pid := w.serving(1)
	w.must(cmd.Process.Kill())
	w.eventually("the worker is gone", func() bool { return isGone(pid) })
}

// The worker sees the file system of the host.
func TestRoot(t *testing.T) {
	w := newWorld(t, "serve")
	w.install()
	w.Root = nettest.Root(t)
	stop := w.run()
	pid := w.serving(1)
	if root, err := os.Readlink(fmt.Sprintf("/proc/%d/root", pid)); err != nil || root != w.Root {
		t.Errorf("the worker's root is %s, %v, want %s", root, err, w.Root)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

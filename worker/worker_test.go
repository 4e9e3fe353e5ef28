package worker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/node/server"
	"github.com/braid-cni/braid/worker/client"
	"github.com/braid-cni/braid/worker/protocol"
)

// In a role this test binary is a process that tests need: a worker that can be killed, or a caller.
const roleEnv = "BRAID_WORKER_TEST_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(roleEnv)
	if role == "" {
		os.Exit(nettest.Main(m))
	}
	if err := roles[role](os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, role+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// child starts the test binary in a role. It is gone when the test ends, however that does.
func child(t *testing.T, binary, role string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(binary, args...), t: t}
	p.Env = append(os.Environ(), roleEnv+"="+role)
	p.Stderr = t.Output()
	p.SysProcAttr = &unix.SysProcAttr{}
	var err error
	if p.out, err = p.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	return p
}

type process struct {
	*exec.Cmd
	t   *testing.T
	out io.Reader
}

func (p *process) start() *process {
	p.t.Helper()
	if err := p.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = p.Process.Kill(); _ = p.Wait() })
	return p
}

// says waits for a line.
func (p *process) says(want string) {
	p.t.Helper()
	b := make([]byte, len(want)+1)
	if _, err := io.ReadFull(p.out, b); err != nil || string(b) != want+"\n" {
		p.t.Fatalf("found %q, %v, want %q", b, err, want)
	}
}

func (p *process) signal(s unix.Signal) {
	p.t.Helper()
	if err := p.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// stop stops the process, and returns when all its threads stand still.
func (p *process) stop() {
	p.t.Helper()
	p.signal(unix.SIGSTOP)
	eventually(p.t, "the process is stopped", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.Process.Pid))
		if err != nil {
			p.t.Fatal(err)
		}
		for _, path := range threads {
			if b, err := os.ReadFile(path); err == nil && !strings.Contains(string(b), ") T ") {
				return false
			}
		}
		return true
	})
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// socketPath returns one that is short enough.
func socketPath(t *testing.T) string {
	t.Helper()
	nettest.NeedRoot(t)
	dir, err := os.MkdirTemp("", "worker")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "w.sock")
}

// serve runs a worker in this process until stop.
func serve(t *testing.T, w *Worker) (socket string, stop func()) {
	t.Helper()
	return serveFor(t, w, time.Millisecond)
}

// serveFor is serve, but for the time that calls have when the worker is stopped.
func serveFor(t *testing.T, w *Worker, drain time.Duration) (socket string, stop func()) {
	t.Helper()
	socket = socketPath(t)
	s := server.New(server.Options{Socket: socket, Handle: w.Serve, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), DrainTime: drain})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	eventually(t, "it serves", func() bool { return s.State() == server.Serving })
	return socket, stop
}

// acceptTime is that of the calls of tests, which is more than enough on a machine that does much else.
var acceptTime = patience

func clientOf(socket string) *client.Client {
	return &client.Client{Socket: socket, Binary: protocol.Own, AcceptTime: acceptTime}
}

// Call has a worker do a call for this process, which is of its build.
func Call(socket string, environ []string, stdin []byte) (client.Answer, bool) {
	return clientOf(socket).Call(environ, stdin)
}

func Ping(socket string) error { return clientOf(socket).Ping() }

// place is where this process is.
func place(namespace string) string { return protocol.Place(protocol.Own, namespace) }

// encode returns the bytes of a message.
func encode(texts ...string) []byte {
	var b bytes.Buffer
	_ = protocol.Send(&b, texts...)
	return b.Bytes()
}

// of returns a worker whose plugin is the same for all.
func of(p cni.Plugin) *Worker { return &Worker{Plugin: func(Caller) cni.Plugin { return p }} }

// patience is for things that take a moment, on a machine that does much else.
const patience = time.Minute

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not true: %s", what)
		}
	}
}

// environ is the environment of a call about a container.
func environ(command, container, netns string, more ...string) []string {
	return append([]string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + container, "CNI_NETNS=" + netns, "CNI_IFNAME=eth0", "CNI_PATH=/opt/cni/bin", "SECRET=1",
	}, more...)
}

const config = `{"cniVersion":"1.1.0","name":"n","type":"braid"}`

// direct is what a plugin process answers by itself.
func direct(p cni.Plugin, environ []string, stdin string) (a client.Answer) {
	var stdout, stderr strings.Builder
	env := func(name string) string {
		for _, e := range environ {
			if n, value, _ := strings.Cut(e, "="); n == name {
				return value
			}
		}
		return ""
	}
	a.ExitCode = cni.Run(context.Background(), p, "", cni.Process{Env: env, Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr})
	a.Stdout, a.Stderr = stdout.String(), stderr.String()
	return a
}

func dialRaw(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

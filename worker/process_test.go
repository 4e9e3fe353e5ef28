package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/node/server"
	"github.com/braid-cni/braid/worker/protocol"
)

var roles = map[string]func(args []string) error{
	// It says what it is called for. A container named hang keeps it at work.
	"worker": func(args []string) error {
		ctx, stop := context.WithCancel(context.Background())
		w := &Worker{
			Plugin: func(Caller) cni.Plugin {
				return &cnitest.Fake{On: func(ctx context.Context, command string, req *cni.Request) error {
					fmt.Println(command, req.ContainerID)
					if req.ContainerID == "hang" {
						<-ctx.Done()
					}
					return context.Cause(ctx)
				}}
			},
			Outdated: func() { fmt.Println("outdated"); stop() },
		}
		return server.New(server.Options{Socket: args[0], Handle: w.Serve, Log: slog.New(slog.DiscardHandler)}).Run(ctx)
	},
	// It answers whatever it is asked.
	"impostor": func(args []string) error {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", args[0])
		if err != nil {
			return err
		}
		fmt.Println("listening")
		for {
			conn, err := l.Accept()
			if err != nil {
				return err
			}
			_, _ = protocol.Receive(conn)
			_ = protocol.Send(conn, protocol.Answered, "0", "out", "err")
			conn.Close()
		}
	},
	// It finds everything, whether the worker is one for it or not.
	"caller": func(args []string) error {
		if _, err := os.Stat(args[3]); err != nil {
			return err
		}
		if err := Ping(args[0]); err != nil {
			return err
		}
		config := config
		if len(args) > 4 {
			config = args[4]
		}
		_, done := Call(args[0], environ(args[1], args[2], args[3]), []byte(config))
		fmt.Println("done:", done)
		return nil
	},
}

// workerProcess starts a worker in a process of its own.
func workerProcess(t *testing.T, binary string) (p *process, socket string) {
	t.Helper()
	socket = socketPath(t)
	p = child(t, binary, "worker", socket).start()
	eventually(t, "the worker serves", func() bool { return Ping(socket) == nil })
	return p, socket
}

// calling begins a call, and returns how to learn whether it is done.
func calling(socket string, environ []string) (done func() bool) {
	result := make(chan bool, 1)
	go func() {
		_, d := Call(socket, environ, []byte(config))
		result <- d
	}()
	return func() bool { return <-result }
}

func TestWorkerProcess(t *testing.T) {
	p, socket := workerProcess(t, self(t))
	done := calling(socket, environ("ADD", "c1", nettest.NewNS(t).Path()))
	p.says("ADD c1")
	if !done() {
		t.Error("it is not done")
	}
}

func TestWorkerThatIsKilled(t *testing.T) {
	netns := nettest.NewNS(t).Path()
	t.Run("at work", func(t *testing.T) {
		p, socket := workerProcess(t, self(t))
		done := calling(socket, environ("ADD", "hang", netns))
		p.says("ADD hang")
		p.signal(unix.SIGKILL)
		if done() {
			t.Error("a call is done whose worker was killed")
		}
	})
	t.Run("before it accepts", func(t *testing.T) {
		p, socket := workerProcess(t, self(t))
		p.stop()
		done := calling(socket, environ("ADD", "c1", netns))
		p.signal(unix.SIGKILL)
		if done() {
			t.Error("a call is done that nobody has heard of")
		}
	})
}

// One that does not run keeps no call waiting. When it does, it does not do what others have done meanwhile.
func TestWorkerThatIsStopped(t *testing.T) {
	netns := nettest.NewNS(t).Path()
	p, socket := workerProcess(t, self(t))
	p.stop()
	acceptTime = 100 * time.Millisecond
	if calling(socket, environ("ADD", "c1", netns))() {
		t.Error("a call is done that nobody has heard of")
	}
	acceptTime = patience
	conn := dialRaw(t, socket) // and one that does not wait at all
	if err := protocol.Send(conn, append([]string{place(netns), config}, environ("ADD", "c2", netns)...)...); err != nil {
		t.Fatal(err)
	}
	conn.Close()
	p.signal(unix.SIGCONT)
	done := calling(socket, environ("ADD", "c3", netns))
	p.says("ADD c3")
	if !done() {
		t.Error("it is not done")
	}
}

// A caller that is killed ends what is done for it.
func TestCallerThatIsKilled(t *testing.T) {
	netns := nettest.NewNS(t).Path()
	for name, end := range map[string]func(ctx context.Context, c Caller) error{
		"while": func(ctx context.Context, c Caller) error {
			<-ctx.Done()
			return errors.Join(context.Cause(ctx), c.Waits())
		},
		// What was done just before cannot be handed over.
		"at the end": func(ctx context.Context, _ Caller) error {
			<-ctx.Done()
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			begun := make(chan struct{})
			added, deleted := make(chan error, 1), make(chan error, 1)
			socket, stop := serve(t, &Worker{Plugin: func(c Caller) cni.Plugin {
				return &cnitest.Fake{On: func(ctx context.Context, command string, _ *cni.Request) error {
					if command == "DEL" {
						deleted <- errors.Join(context.Cause(ctx), c.Waits())
						return nil
					}
					if err := c.Waits(); err != nil {
						t.Errorf("while it waits: %v", err)
					}
					close(begun)
					err := end(ctx, c)
					if c.Waits() == nil || !errors.Is(context.Cause(ctx), errGone) {
						t.Errorf("when it is gone: %v, %v", c.Waits(), context.Cause(ctx))
					}
					added <- err
					return err
				}}
			}})
			p := child(t, self(t), "caller", socket, "ADD", "c1", netns).start()
			<-begun
			p.signal(unix.SIGKILL)
			if err := <-added; err == nil { // the plugin has to undo it, and must not find that nobody waits for that
				if err := <-deleted; err != nil {
					t.Errorf("what is undone ends: %v", err)
				}
			}
			stop()
			if len(deleted) > 0 {
				t.Error("what has failed is undone once more")
			}
			if b, err := io.ReadAll(p.out); err != nil || len(b) > 0 {
				t.Errorf("the caller says %q, %v", b, err)
			}
		})
	}
}

// What a plugin process sees that is of another build, or protocol.Elsewhere, is not what the worker sees.
func TestCallerElsewhere(t *testing.T) {
	var fake cnitest.Fake
	socket, stop := serve(t, of(&fake))
	pod := nettest.NewNS(t)
	run := func(p *process, want string) {
		t.Helper()
		p.start().says(want)
	}
	args := []string{socket, "ADD", "c1", pod.Path()}
	t.Run("here", func(t *testing.T) { run(child(t, self(t), "caller", args...), "done: true") })
	t.Run("another build", func(t *testing.T) {
		run(child(t, copyOf(t, self(t), filepath.Join(t.TempDir(), "other")), "caller", args...), "done: false")
	})
	t.Run("another network", func(t *testing.T) {
		other, p := nettest.NewNS(t), child(t, self(t), "caller", args...)
		other.Do(t, func() { p.start() })
		p.says("done: false")
	})
	t.Run("other processes", func(t *testing.T) {
		p := child(t, self(t), "caller", args...)
		p.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
		run(p, "done: false")
	})
	t.Run("fewer processes", func(t *testing.T) { // than the caller, to whom the worker is one among others
		socket := socketPath(t)
		p := child(t, self(t), "worker", socket)
		p.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
		p.start()
		eventually(t, "the worker serves", func() bool { return Ping(socket) == nil })
		if calling(socket, environ("ADD", "c1", pod.Path()))() {
			t.Error("a call is done by a worker that does not see the caller")
		}
	})
	t.Run("other files", func(t *testing.T) {
		// All is there, from the binary to the namespace.
		root := nettest.Root(t)
		p := child(t, self(t), "caller", args...)
		p.SysProcAttr.Chroot, p.Dir = root, "/"
		run(p, "done: true") // the same files at another path
		root = nettest.EmptyFolder(t)
		bindAll(t, root)
		p = child(t, self(t), "caller", args...)
		p.SysProcAttr.Chroot, p.Dir = root, "/"
		run(p, "done: false")
	})
	stop()
	wantCalls(t, &fake, "ADD eth0", "ADD eth0")
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Error(err)
	}
}

// bindAll shows all that is in the root in another folder.
func bindAll(t *testing.T, to string) {
	t.Helper()
	list, err := os.ReadDir("/")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		from, at := filepath.Join("/", e.Name()), filepath.Join(to, e.Name())
		if target, err := os.Readlink(from); err == nil {
			if err := os.Symlink(target, at); err != nil {
				t.Fatal(err)
			}
		} else if !e.IsDir() {
			continue
		} else if err := os.Mkdir(at, 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { remove(t, at) })
		if e.IsDir() {
			nettest.Bind(t, from, at)
		}
	}
}

func copyOf(t *testing.T, from, to string) string {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// A worker learns from who comes that its binary was replaced, and from nothing else.
func TestOutdated(t *testing.T) {
	dir := t.TempDir()
	installed := copyOf(t, self(t), filepath.Join(dir, "braid"))
	p, socket := workerProcess(t, installed) // which was asked already
	if calling(socket, environ("ADD", "c1", nettest.NewNS(t).Path()))() {
		t.Error("a call of another build is done")
	}
	if err := Ping(socket); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(copyOf(t, self(t), filepath.Join(dir, "new")), installed); err != nil {
		t.Fatal(err)
	}
	_ = Ping(socket)
	p.says("outdated")
	if err := p.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}

// A binary that is not there now is not another one: while files are renamed there may be none.
func TestNotOutdated(t *testing.T) {
	installed := copyOf(t, self(t), filepath.Join(t.TempDir(), "braid"))
	p, socket := workerProcess(t, installed)
	if err := os.Remove(installed); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := Ping(socket); err != nil {
			t.Error(err)
		}
	}
	p.signal(unix.SIGTERM) // it has said nothing
	if b, err := io.ReadAll(p.out); err != nil || len(b) > 0 {
		t.Errorf("it says %q, %v", b, err)
	}
}

// Who is not root cannot do what a worker does, and is not believed.
func TestImpostor(t *testing.T) {
	for _, uid := range []uint32{0, 65534} {
		socket := socketPath(t)
		dir := filepath.Dir(socket)
		if err := os.Chmod(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		p := child(t, copyOf(t, self(t), filepath.Join(dir, "self")), "impostor", socket)
		if err := os.Chmod(p.Path, 0o755); err != nil {
			t.Fatal(err)
		}
		p.Dir, p.SysProcAttr.Credential = "/", &syscall.Credential{Uid: uid, Gid: uid}
		p.start().says("listening")
		if err := Ping(socket); (err == nil) != (uid == 0) {
			t.Errorf("user %d: found %v", uid, err)
		}
		if _, done := Call(socket, environ("ADD", "c1", ""), []byte(config)); done != (uid == 0) {
			t.Errorf("user %d: it counts as done: %t", uid, done)
		}
	}
}

func TestNobody(t *testing.T) {
	if _, done := Call(socketPath(t), environ("ADD", "c1", ""), []byte(config)); done {
		t.Error("nobody has done it")
	}
}

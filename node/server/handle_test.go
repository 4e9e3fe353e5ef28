package server_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/braid-cni/braid/node/server"
)

func connect(t *testing.T, socket string) *net.UnixConn {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Connections can be served in another way, with the same bounds. An error or a panic ends one of them.
func TestHandle(t *testing.T) {
	o := server.Options{Socket: socketPath(t), Handle: func(_ context.Context, conn *net.UnixConn) error {
		b := make([]byte, 5)
		if _, err := io.ReadFull(conn, b); err != nil {
			return err
		}
		switch string(b) {
		case "panic":
			panic("as the test wants")
		case "error":
			return errors.New("as the test wants")
		}
		_, err := conn.Write(b)
		return err
	}}
	serving(t, o)
	for text, want := range map[string]string{"hello": "hello", "panic": "", "error": "", "hi": ""} {
		conn := connect(t, o.Socket)
		if _, err := io.WriteString(conn, text); err != nil {
			t.Error(err)
		}
		_ = conn.CloseWrite()
		if b, err := io.ReadAll(conn); err != nil || string(b) != want {
			t.Errorf("%s: found %q, %v, want %q and the end", text, b, err, want)
		}
	}
}

// Who is not root does not get to it.
func TestHandleOnlyRoot(t *testing.T) {
	var handled atomic.Int32
	o := server.Options{Socket: socketPath(t), Handle: func(context.Context, *net.UnixConn) error {
		handled.Add(1)
		return nil
	}}
	serving(t, o)
	dir := filepath.Dir(filepath.Dir(o.Socket))
	for path, mode := range map[string]os.FileMode{dir: 0o755, filepath.Dir(o.Socket): 0o755, o.Socket: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	self := filepath.Join(dir, "self") // the folder of the test binary is closed to others
	if err := os.WriteFile(self, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env, cmd.Dir = []string{clientEnv + "=" + o.Socket}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "only root may") || handled.Load() > 0 {
		t.Errorf("found %s, %v; %d connections are handled", out, err, handled.Load())
	}
	if _, err := io.ReadAll(connect(t, o.Socket)); err != nil || handled.Load() != 1 {
		t.Errorf("root: %v; %d connections are handled", err, handled.Load())
	}
}

// When the server ends it reads no more, then the context ends, and then the connection. One that does not look at any of that is
// not waited for.
func TestHandleEnds(t *testing.T) {
	const none = "none of them"
	for _, until := range []string{"reading", "context", "connection", none} {
		t.Run(until, func(t *testing.T) {
			begun, forever := make(chan struct{}), make(chan struct{})
			ended := make(chan error, 1)
			o := server.Options{Socket: socketPath(t), DrainTime: time.Millisecond, Handle: func(ctx context.Context, conn *net.UnixConn) error {
				close(begun)
				if until == none {
					<-forever
					return nil
				}
				_, err := conn.Read(make([]byte, 1))
				if until != "reading" {
					<-ctx.Done()
					err = context.Cause(ctx)
				}
				if until == "connection" {
					_ = conn.SetReadDeadline(time.Time{})
					_, err = conn.Read(make([]byte, 1))
				}
				ended <- err
				return err
			}}
			_, stop := serving(t, o)
			conn := connect(t, o.Socket)
			<-begun
			stop()
			close(forever)
			switch until {
			case "reading":
				if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("reading ends with %v", err)
				}
			case "context":
				if err := <-ended; err == nil || err.Error() != "braidd is ending" {
					t.Errorf("the context ends with %v", err)
				}
			case "connection":
				if err := <-ended; !errors.Is(err, net.ErrClosed) {
					t.Errorf("the connection ends with %v", err)
				}
			}
			if b, err := io.ReadAll(conn); err != nil || len(b) > 0 {
				t.Errorf("the client gets %q, %v", b, err)
			}
		})
	}
}

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/worker/protocol"
)

// listenAs listens as another user does.
func listenAs(uid uintptr, socket string) (l net.Listener, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // which ends with this goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uid, ^uintptr(0)); errno != 0 {
			err = errno
			return
		}
		l, err = net.Listen("unix", socket)
	}()
	<-done
	return l, err
}

// TestImpostor: who is not root cannot do what a worker does, and is told nothing.
func TestImpostor(t *testing.T) {
	n := newNode(t)
	if err := os.Chmod(n.dir, 0o777); err != nil {
		t.Fatal(err)
	}
	l, err := listenAs(65534, filepath.Join(n.dir, "i.worker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const last = "last"
	told := make(chan []string, 8)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if m, err := protocol.Receive(conn); err == nil {
				told <- m
			}
			conn.Close()
		}
	}()
	cmd := n.command("ADD", "")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"daemonSocket": %q}`, filepath.Join(n.dir, "i.sock")))
	n.braid(cmd, n.run(cmd))
	conn, err := net.Dial("unix", l.Addr().String())
	if err == nil {
		err = protocol.Send(conn, last)
	}
	if err != nil {
		t.Fatal(err)
	}
	if m := <-told; len(m) != 1 || m[0] != last {
		t.Errorf("it is told %q", m)
	}
}

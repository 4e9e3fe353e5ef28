//go:build (amd64 || arm64) && !race

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/edge"
	"github.com/braid-cni/braid/worker/client"
	"github.com/braid-cni/braid/worker/protocol"
)

// worker listens beside the node's own, and serves connections, of which it gets the message and the number of threads that the plugin
// process has then. It returns a configuration.
func (n *node) worker(serve func(conn *net.UnixConn, m []string, threads int)) (config string) {
	n.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(n.dir, "e.worker.sock"), Net: "unix"})
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			m, err := protocol.Receive(conn)
			if err != nil {
				n.Error(err)
			} else {
				serve(conn, m, threads(n, conn))
			}
			conn.Close()
		}
	}()
	return fmt.Sprintf(`{"daemonSocket": %q}`, filepath.Join(n.dir, "e.sock"))
}

// threads returns how many the process at the other end has.
func threads(n *node, conn *net.UnixConn) int {
	raw, err := conn.SyscallConn()
	if err != nil {
		n.Error(err)
		return 0
	}
	var peer *unix.Ucred
	control := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(control, err); err != nil {
		n.Error(err)
		return 0
	}
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", peer.Pid))
	if err != nil {
		n.Error(err)
	}
	return len(tasks)
}

// TestEarly: the usual call is done without a runtime, any other with it, and nobody sees a difference.
func TestEarly(t *testing.T) {
	for _, tt := range []struct {
		name          string
		env           []string
		stdin, answer int // bytes
		early         bool
	}{
		{"usual", nil, 1000, 2000, true},
		{"no answer", nil, 1000, 0, true},
		{"DEL of a namespace that is gone", []string{"CNI_COMMAND=DEL", "CNI_NETNS="}, 1000, 0, true},
		{"CHECK", []string{"CNI_COMMAND=CHECK"}, 1000, 0, true},
		{"namespace", []string{"CNI_NETNS=/proc/self/ns/net", "CNI_PATH=/a:/b", "TRACEPARENT=t"}, 1000, 2000, true},
		{"as much input as fits", nil, maxStdin - 1, 2000, true},
		{"a byte more", nil, maxStdin, 2000, false},
		{"much more", nil, 10 * maxStdin, 2000, false},
		{"as many arguments as fit", []string{"CNI_ARGS=" + strings.Repeat("a", room-stdinAt-1000-(4+len("CNI_ARGS="))-
			(4+len("CNI_COMMAND=ADD"))-(4+len(edge.CallEnv)+1+nameSize))}, 1000, 0, true},
		{"a byte more", []string{"CNI_ARGS=" + strings.Repeat("a", room-stdinAt-1000-(4+len("CNI_ARGS="))-
			(4+len("CNI_COMMAND=ADD"))-(4+len(edge.CallEnv)+1+nameSize)+1)}, 1000, 0, false},
		{"a larger answer", nil, 1000, room, true}, // so far
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			answer := strings.Repeat("0123456789", tt.answer/10+1)[:tt.answer]
			var got []string
			var alone int
			config := n.worker(func(conn *net.UnixConn, m []string, threads int) {
				got, alone = m, threads
				if err := protocol.Send(conn, protocol.Answered, "3", answer, "a remark"); err != nil {
					t.Error(err)
				}
			})
			config += strings.Repeat(" ", tt.stdin-len(config))
			cmd := n.command("ADD", "")
			cmd.Env = append(cmd.Env, tt.env...)
			cmd.Stdin = strings.NewReader(config)
			if o := n.run(cmd); o.Exit != 3 || o.Stdout != answer || o.Stderr != "a remark" {
				t.Errorf("found exit code %d, %d bytes, %q", o.Exit, len(o.Stdout), o.Stderr)
			}
			if len(got) < 3 || got[1] != config || (alone == 1) != tt.early {
				t.Fatalf("%d threads have sent %d texts", alone, len(got))
			}
			for _, e := range tt.env {
				if name, v, _ := strings.Cut(e, "="); value(got[2:], name) != v {
					t.Errorf("%s has another value", name)
				}
			}
			if value(got[2:], "OF_THE_RUNTIME") != "" || value(got[2:], edge.CallEnv) == "" || value(got[2:], edge.CallEnv) == "of another" {
				t.Errorf("found %q", got[2:])
			}
			if want := protocol.Place(filepath.Join(n.dir, "braid"), value(got[2:], "CNI_NETNS")); got[0] != want {
				t.Errorf("the place is %x, want %x", got[0], want)
			}
		})
	}
}

// A call that takes its time, comes in parts, or does not come to its end.
func TestResumed(t *testing.T) {
	message := new(bytes.Buffer)
	if err := protocol.Send(message, protocol.Answered, "0", "an answer", "a remark"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		parts    []int // bytes of the answer that are sent
		pause    time.Duration
		answered bool
	}{
		{"in parts", []int{2, 7, 11, message.Len() - 20}, 10 * time.Millisecond, true},
		{"late", []int{2, message.Len() - 2}, patience*time.Second + 300*time.Millisecond, true},
		{"not at all", nil, 0, false},
		{"in part", []int{9}, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			var name string
			config := n.worker(func(conn *net.UnixConn, m []string, threads int) {
				if name != "" {
					t.Error("the call has come twice")
				}
				name = value(m[2:], edge.CallEnv)
				if threads != 1 {
					t.Errorf("%d threads", threads)
				}
				rest := message.Bytes()
				for _, size := range tt.parts {
					time.Sleep(tt.pause)
					if _, err := conn.Write(rest[:size]); err != nil {
						t.Error(err)
					}
					rest = rest[size:]
				}
			})
			cmd := n.command("ADD", "")
			cmd.Stdin = strings.NewReader(config)
			o := n.run(cmd)
			if tt.answered {
				if o != (outcome{0, "an answer", "a remark"}) {
					t.Errorf("found %+v", o)
				}
			} else if r := n.braid(cmd, o); r.Stdin != len(config) || value(r.Environ, edge.CallEnv) != name {
				t.Errorf("braid has %+v, the worker had %q", r, name)
			}
		})
	}
}

// A worker that accepts nothing is not waited for long, and does not get the call later.
func TestStandsStill(t *testing.T) {
	n := newNode(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(n.dir, "e.worker.sock"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := n.command("ADD", "")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"daemonSocket": %q}`, filepath.Join(n.dir, "e.sock")))
	n.braid(cmd, n.run(cmd))
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	control := raw.Control(func(fd uintptr) {
		if ended, err := protocol.Poll(int(fd), unix.POLLRDHUP, 0); err != nil || !ended {
			t.Errorf("it still waits: %v", err)
		}
	})
	if control != nil {
		t.Error(control)
	}
}

// Whoever writes slowly, into a pipe that does not wait, is read to the end.
func TestSlowWriter(t *testing.T) {
	n := newNode(t)
	config := n.config(maxStdin / 2)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(p[0]), "read"), os.NewFile(uintptr(p[1]), "write")
	cmd := n.command("ADD", "exit=0")
	cmd.Stdin = r
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	err := cmd.Start()
	if flags, err := unix.FcntlInt(uintptr(p[0]), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("the pipe waits: %v", err)
	}
	r.Close()
	for i := 0; i < len(config) && err == nil; i += maxStdin / 8 {
		_, err = io.WriteString(w, config[i:min(i+maxStdin/8, len(config))])
		time.Sleep(5 * time.Millisecond)
	}
	w.Close()
	if err := errors.Join(err, cmd.Wait()); err != nil || stdout.String() != "an answer" {
		t.Errorf("found %q, %v", stdout.String(), err)
	}
	n.wantCalls(fmt.Sprint("ADD ", len(config)))
}

// What does not go into a pipe at once goes into it once.
func TestPrintedInPart(t *testing.T) {
	n := newNode(t)
	n.stdout = strings.Repeat("0123456789", 3000)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(p[0]), "read"), os.NewFile(uintptr(p[1]), "write")
	defer r.Close()
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 8192); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetNonblock(p[1], true); err != nil { // which Fd has changed
		t.Fatal(err)
	}
	cmd := n.command("ADD", "exit=0")
	cmd.Stdin, cmd.Stdout = strings.NewReader(n.config(0)), w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	time.Sleep(10 * time.Millisecond) // the pipe is full by now
	if b, err := io.ReadAll(r); err != nil || string(b) != n.stdout {
		t.Errorf("found %d bytes, %v, want %d", len(b), err, len(n.stdout))
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// FuzzAnswer: what is taken for an answer is what everybody else takes for one; and nothing is allocated, which early cannot.
func FuzzAnswer(f *testing.F) {
	for _, m := range [][]string{
		{protocol.Answered, "0", "an answer", ""}, {protocol.Answered, "12", "", ""}, {protocol.Elsewhere},
		{protocol.Execute, "0", "", ""}, {protocol.Answered, "0", "", "", ""}, {protocol.Answered, "", "", ""}, {}, {protocol.Answered, "0"},
	} {
		var b bytes.Buffer
		if err := protocol.Send(&b, m...); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		if !isWhole(message) {
			return
		}
		var code uintptr
		var stdout, stderr []byte
		var ok bool
		if allocated := testing.AllocsPerRun(1, func() { code, stdout, stderr, ok = answer(message) }); allocated > 0 {
			t.Errorf("%v allocations", allocated)
		}
		r := bytes.NewReader(message)
		m, err := protocol.Receive(r)
		want := err == nil && r.Len() == 0 && len(m) == 4 && m[0] == protocol.Answered && len(m[1]) == 1 && strings.Contains("0123456789", m[1])
		if ok != want || ok && !slices.Equal(m[1:], []string{fmt.Sprint(code), string(stdout), string(stderr)}) {
			t.Errorf("found %d, %q, %q, %t, want %q, %v", code, stdout, stderr, ok, m, err)
		}
	})
}

// FuzzEnviron: whatever the variables are, the worker gets those that main would give it, and nothing panics or is allocated.
func FuzzEnviron(f *testing.F) {
	f.Add("CNI_COMMAND=ADD\x00CNI_NETNS=/a\x00CNI_PATH=/a:/b\x00TRACEPARENT=x\x00" + edge.CallEnv + "=y\x00A\x00=\x00CNI_\x00")
	f.Add("CNI_COMMAND=DEL\x00CNI_NETNS=\x00CNI_NETNS=/\x00CNI_PATH=:")
	f.Add("CNI_COMMAND=CHECK\x00CNI_ARGS=" + strings.Repeat("a", room-stdinAt-100))
	saved, stack := begun, new([1 << 20]*byte)
	f.Cleanup(func() { begun = saved })
	f.Fuzz(func(t *testing.T, environ string) {
		want := []string{}
		variables := strings.Split(environ, "\x00")
		for i, v := range variables {
			stack[2+i] = &append([]byte(v), 0)[0]
			if name, _, ok := strings.Cut(v, "="); ok && client.IsPassed(name) && name != edge.CallEnv {
				want = append(want, v)
			}
		}
		stack[2+len(variables)] = nil
		var added bool
		allocated := testing.AllocsPerRun(1, func() {
			begun.size, added = stdinAt, false
			if _, ok := usual(stack, 2); ok {
				added = addEnviron(stack, 2)
			}
		})
		if allocated > 0 {
			t.Errorf("%v allocations", allocated)
		}
		if !added {
			return
		}
		message := begun.message[stdinAt:begun.size]
		for _, w := range append(want, string(begun.name[:])) {
			text, rest, ok := cutText(message)
			if !ok || string(text) != w {
				t.Fatalf("found %q, want %q", text, w)
			}
			message = rest
		}
		if len(message) > 0 {
			t.Errorf("there is more: %q", message)
		}
	})
}

// TestAllocatesNothing: early has no memory but that of the program and of the stack.
func TestAllocatesNothing(t *testing.T) {
	variables := []string{"CNI_COMMAND=ADD", "CNI_PATH=/a:/b", "OTHER=", "CNI_NETNS=/proc/self/ns/net", "CNI_IFNAME=eth0"}
	stack := new([1 << 20]*byte)
	for i, v := range variables {
		stack[2+i] = &append([]byte(v), 0)[0]
	}
	config := []byte(`{"a": [{"daemonSocket": "/b"}, "\""], "daemonSocket": "/run/` + strings.Repeat("long/", 20) + `.sock"}`)
	saved := begun
	defer func() { begun = saved }()
	allocated := testing.AllocsPerRun(10, func() {
		begun.stdin = copy(begun.message[stdinAt:], config)
		namespace, ok := usual(stack, 2)
		socket, found := daemonSocket(begun.message[stdinAt:][:begun.stdin])
		place(namespace) // there is no braid beside this binary
		if !ok || !found || !addEnviron(stack, 2) || handOver(socket) {
			t.Error("not as usual")
		}
	})
	if allocated > 0 {
		t.Errorf("%v allocations", allocated)
	}
}

// TestClosedFiles: where a standard file should be is no connection. The runtime puts /dev/null there.
func TestClosedFiles(t *testing.T) {
	for _, closed := range []string{">&-", "2>&-", ">&- 2>&-"} {
		n := newNode(t)
		var after []byte // the call
		var err error
		config := n.worker(func(conn *net.UnixConn, _ []string, threads int) {
			if threads == 1 {
				t.Error("it is early")
			}
			if err = protocol.Send(conn, protocol.Answered, "0", "an answer", "a remark"); err == nil {
				after, err = io.ReadAll(conn)
			}
		})
		shim := n.command("ADD", "")
		cmd := exec.Command("/bin/sh", "-c", `exec "$0" `+closed, shim.Path)
		cmd.Env, cmd.Stdin = shim.Env, strings.NewReader(config)
		if o := n.run(cmd); o.Exit != 0 || err != nil || len(after) > 0 {
			t.Errorf("%s: found %+v, and the worker %q, %v", closed, o, after, err)
		}
	}
}

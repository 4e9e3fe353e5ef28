package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/edge"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/worker/protocol"
)

// Under the name braid this test binary says how it was called.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "braid" {
		stdin, err := io.ReadAll(io.MultiReader(bytes.NewReader(begun.message[stdinAt:][:begun.stdin]), os.Stdin)) // it has early too
		var st unix.Stat_t
		err = errors.Join(err, unix.Fstat(0, &st))
		b, _ := json.Marshal(run{os.Getpid(), os.Getenv("CNI_COMMAND"), len(stdin), st.Mode, os.Environ(), os.Args[1:], fmt.Sprint(err)})
		fmt.Fprintln(os.Stderr, string(b))
		fmt.Print("of braid")
		os.Exit(4)
	}
	os.Exit(nettest.MainWithBinaries(m, func(bin string) error { return nettest.GoBuild(bin, ".") }))
}

// A run is how braid was executed.
type run struct {
	PID     int
	Command string
	Stdin   int    // bytes
	Mode    uint32 // of it
	Environ []string
	Args    []string
	Err     string
}

// A node has a folder with the shim and braid, and a worker that is of this test binary.
type node struct {
	*testing.T
	dir    string
	mu     sync.Mutex
	calls  []string // of the worker: command and size of standard input
	names  []string // of these calls
	dies   bool     // it ends in the middle of a call
	stdout string   // what it answers
}

func newNode(t *testing.T) *node {
	t.Helper()
	nettest.NeedRoot(t)
	dir, err := os.MkdirTemp("", "shim") // whose path is short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &node{T: t, dir: dir, stdout: "an answer"}
	n.copy(filepath.Join(nettest.Binaries(), "braid-shim"), "braid-shim")
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(dir, "braid"))
	}
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", filepath.Join(dir, "d.worker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { l.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n.serve(conn)
			conn.Close()
		}
	})
	return n
}

// copy copies a binary. Not in this process: what another test starts meanwhile would have the file open for writing until it is
// executed, and so long nobody can execute the copy.
func (n *node) copy(from, to string) {
	n.Helper()
	if out, err := exec.Command("cp", from, filepath.Join(n.dir, to)).CombinedOutput(); err != nil {
		n.Fatalf("%v: %s", err, out)
	}
}

// serve does a call if CNI_ARGS has an exit code for it.
func (n *node) serve(conn net.Conn) {
	m, err := protocol.Receive(conn)
	if err != nil || len(m) < 2 || m[0] != protocol.Place(protocol.Own, "") {
		_ = protocol.Send(conn, protocol.Elsewhere)
		return
	}
	env := func(name string) string { return value(m[2:], name) }
	n.mu.Lock()
	n.calls = append(n.calls, fmt.Sprintf("%s %d", env("CNI_COMMAND"), len(m[1])))
	n.names = append(n.names, env(edge.CallEnv))
	n.mu.Unlock()
	var code int
	if _, err := fmt.Sscanf(env("CNI_ARGS"), "exit=%d", &code); n.dies {
		return
	} else if err != nil {
		_ = protocol.Send(conn, protocol.Elsewhere)
		return
	}
	_ = protocol.Send(conn, protocol.Answered, fmt.Sprint(code), n.stdout, "a remark\n")
}

// value returns that of a variable, which must not be there twice.
func value(environ []string, name string) (found string) {
	for i, e := range environ {
		if n, v, _ := strings.Cut(e, "="); n == name {
			if found = v; slices.ContainsFunc(environ[i+1:], func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
				return "more than one"
			}
		}
	}
	return found
}

// config is one of this node, padded to a size.
func (n *node) config(size int) string {
	c := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"n","type":"braid-shim","daemonSocket":%q}`, filepath.Join(n.dir, "d.sock"))
	return c + strings.Repeat(" ", max(0, size-len(c)))
}

func (n *node) command(command, args string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(n.dir, "braid-shim"))
	cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_ARGS=" + args, "OF_THE_RUNTIME=kept", edge.CallEnv + "=of another"}
	return cmd
}

// An outcome is what a process leaves.
type outcome struct {
	Exit           int
	Stdout, Stderr string
}

func (n *node) run(cmd *exec.Cmd) (o outcome) {
	n.Helper()
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	cmd.Stderr = &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		n.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// braid checks that a process has become braid, and returns how.
func (n *node) braid(cmd *exec.Cmd, o outcome) (r run) {
	n.Helper()
	if err := json.Unmarshal([]byte(o.Stderr), &r); err != nil || o.Exit != 4 || o.Stdout != "of braid" {
		n.Fatalf("found %+v, %v, want what braid says", o, err)
	}
	if r.PID != cmd.Process.Pid || value(r.Environ, "OF_THE_RUNTIME") != "kept" || value(r.Environ, "CNI_COMMAND") != r.Command || len(r.Args) > 0 {
		n.Errorf("process %d has become %+v", cmd.Process.Pid, r)
	}
	return r
}

func (n *node) wantCalls(want ...string) {
	n.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if diff := cmp.Diff(append([]string{}, want...), append([]string{}, n.calls...)); diff != "" {
		n.Errorf("calls of the worker (-want +got):\n%s", diff)
	}
}

func TestHandedOver(t *testing.T) {
	for _, tt := range []struct {
		command string
		code    int
		size    int
	}{
		{"ADD", 0, 0}, {"DEL", 0, 0}, {"CHECK", 3, 0}, {"ADD", 1, 0}, {"ADD", 0, edge.MaxStdin},
	} {
		t.Run(fmt.Sprint(tt.command, tt.code, tt.size), func(t *testing.T) {
			n := newNode(t)
			config := n.config(tt.size)
			cmd := n.command(tt.command, fmt.Sprint("exit=", tt.code))
			cmd.Stdin = strings.NewReader(config)
			if diff := cmp.Diff(outcome{tt.code, "an answer", "a remark\n"}, n.run(cmd)); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			n.wantCalls(fmt.Sprint(tt.command, " ", len(config)))
			if name := n.names[0]; name == "" || name == "of another" || name == "more than one" {
				t.Errorf("the call has the name %q", name)
			}
		})
	}
}

// What a worker does not do, or does not come to the end of, braid does, under the same name.
func TestDeclined(t *testing.T) {
	for _, dies := range []bool{false, true} {
		for _, command := range []string{"ADD", "DEL", "CHECK"} {
			n := newNode(t)
			n.dies = dies
			config := n.config(100_000)
			cmd := n.command(command, "")
			cmd.Stdin = strings.NewReader(config)
			r := n.braid(cmd, n.run(cmd))
			n.wantCalls(fmt.Sprint(command, " ", len(config)))
			if sealed, err := unix.MemfdCreate("", unix.MFD_NOEXEC_SEAL); err == nil { // which kernels before 6.3 do not know
				unix.Close(sealed)
				if r.Mode&0o111 != 0 {
					t.Errorf("standard input can be executed: %o", r.Mode)
				}
			}
			if r.Command != command || r.Stdin != len(config) || value(r.Environ, edge.CallEnv) != n.names[0] {
				t.Errorf("%s, dies %t: braid has %+v, the worker had %q", command, dies, r, n.names)
			}
		}
	}
}

// What is not for a worker, it does not hear of.
func TestNotAsked(t *testing.T) {
	n := newNode(t)
	other := fmt.Sprintf(`{"daemonSocket": %q}`, filepath.Join(n.dir, "none.sock"))
	for _, tt := range []struct {
		command, stdin string
		read           int
	}{
		{"GC", n.config(0), len(n.config(0))},
		{"STATUS", n.config(0), len(n.config(0))},
		{"VERSION", "", 0},
		{"", n.config(3 * edge.MaxStdin), 3 * edge.MaxStdin},
		{"UPDATE", n.config(0), len(n.config(0))},
		{"GC", n.config(3 * edge.MaxStdin), 3 * edge.MaxStdin},
		{"ADD", n.config(edge.MaxStdin + 1), edge.MaxStdin + 1}, // too much
		{"ADD", n.config(3 * edge.MaxStdin), edge.MaxStdin + 1}, // of which it is enough to know that
		{"ADD", other, len(other)},
		{"ADD", "{", 1},
		{"DEL", "", 0},
	} {
		cmd := n.command(tt.command, "exit=0")
		cmd.Stdin = strings.NewReader(tt.stdin)
		if r := n.braid(cmd, n.run(cmd)); r.Command != tt.command || r.Stdin != tt.read || r.Err != "<nil>" {
			t.Errorf("%s of %d bytes: braid has %+v", tt.command, len(tt.stdin), r)
		}
	}
	n.wantCalls()
}

// What cannot be read is no call, for nobody.
func TestUnreadable(t *testing.T) {
	n := newNode(t)
	folder, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	cmd := n.command("ADD", "exit=0")
	cmd.Stdin = folder
	if r := n.braid(cmd, n.run(cmd)); !strings.Contains(r.Err, "is a directory") {
		t.Errorf("braid has %+v", r)
	}
	n.wantCalls()
}

// A worker of another file than the braid beside the shim is not asked, whatever it is called.
func TestAnotherBuild(t *testing.T) {
	n := newNode(t)
	self, err := filepath.EvalSymlinks(filepath.Join(n.dir, "braid"))
	if err == nil {
		err = os.Remove(filepath.Join(n.dir, "braid"))
	}
	if err != nil {
		t.Fatal(err)
	}
	n.copy(self, "braid")
	cmd := n.command("ADD", "exit=0")
	cmd.Stdin = strings.NewReader(n.config(0))
	n.braid(cmd, n.run(cmd))
	n.wantCalls()

	// One file by two names is one build.
	if err := errors.Join(os.Remove(filepath.Join(n.dir, "braid")), os.Link(self, filepath.Join(n.dir, "braid"))); err != nil {
		t.Fatal(err)
	}
	cmd = n.command("DEL", "exit=0")
	cmd.Stdin = strings.NewReader(n.config(0))
	n.run(cmd)
	n.wantCalls(fmt.Sprint("DEL ", len(n.config(0))))
}

// The shim is where its file is, whatever link has led there, and also when another one has taken its place.
func TestLinkToShim(t *testing.T) {
	n := newNode(t)
	link := filepath.Join(t.TempDir(), "braid-shim")
	if err := os.Symlink(filepath.Join(n.dir, "braid-shim"), link); err != nil {
		t.Fatal(err)
	}
	cmd := n.command("GC", "")
	cmd.Path, cmd.Args = link, []string{link}
	n.braid(cmd, n.run(cmd))

	cmd = n.command("DEL", "")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(n.dir, "braid-shim")); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(stdin, n.config(0))
	stdin.Close()
	_ = cmd.Wait()
	n.braid(cmd, outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()})
}

// A shim alone is an error that says what is missing.
func TestWithoutBraid(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"no such file or directory": func(string) error { return nil },
		"permission denied":         func(path string) error { return os.WriteFile(path, []byte("#!/bin/true\n"), 0o600) },
		"exec format error":         func(path string) error { return os.WriteFile(path, []byte("nothing"), 0o700) },
		"is a directory":            nil,
	} {
		n := newNode(t)
		braid := filepath.Join(n.dir, "braid")
		if err := os.Remove(braid); err != nil {
			t.Fatal(err)
		}
		if spoil == nil {
			name, spoil = "permission denied", func(path string) error { return os.Mkdir(path, 0o700) }
		}
		if err := spoil(braid); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"ADD", "DEL", "STATUS", "VERSION"} {
			cmd := n.command(command, "exit=0")
			cmd.Stdin = strings.NewReader(n.config(0))
			got := n.run(cmd)
			var e struct {
				CNIVersion, Msg string
				Code            uint
			}
			if err := json.Unmarshal([]byte(got.Stdout), &e); err != nil || got.Exit != 1 || e.Code != 50 || e.CNIVersion == "" ||
				!strings.Contains(e.Msg, braid) || !strings.Contains(e.Msg, name) || !strings.Contains(e.Msg, "braidd install") {
				t.Errorf("%s, %s: found %+v, %v", name, command, got, err)
			}
		}
		n.wantCalls()
	}
}

// TestBeingWritten: braid's file that somebody still writes is waited for.
func TestBeingWritten(t *testing.T) {
	n := newNode(t)
	braid := filepath.Join(n.dir, "braid")
	self, err := filepath.EvalSymlinks(braid)
	if err == nil {
		err = os.Remove(braid)
	}
	if err != nil {
		t.Fatal(err)
	}
	n.copy(self, "braid")
	f, err := os.OpenFile(braid, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(250*time.Millisecond, func() { f.Close() })
	for _, command := range []string{"ADD", "VERSION"} {
		cmd := n.command(command, "")
		cmd.Stdin = strings.NewReader(n.config(0))
		n.braid(cmd, n.run(cmd))
	}
}

func TestQuote(t *testing.T) {
	const text = "a \"b\" \\ \x00\x1b[2J\u202e\xff ü"
	var got string
	if err := json.Unmarshal([]byte(quote(text)), &got); err != nil || got != "a \"b\" \\ ??[2J?\ufffd ü" {
		t.Errorf("found %q, %v", got, err)
	}
}

// A result that nobody takes is undone. Other answers leave nothing that had to be.
func TestAnswersNobody(t *testing.T) {
	for _, tt := range []struct {
		command, args string
		exit          int
		undone        bool
	}{
		{"ADD", "exit=0", 1, true},
		{"ADD", "exit=1", 1, false},
		{"DEL", "exit=0", 0, false},
		{"CHECK", "exit=0", 0, false},
	} {
		t.Run(tt.command+tt.args, func(t *testing.T) {
			n := newNode(t)
			cmd := n.command(tt.command, tt.args)
			cmd.Stdin = strings.NewReader(n.config(0))
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			cmd.Stdout = w
			got := n.run(cmd)
			undone := false
			for line := range strings.Lines(got.Stderr) {
				var r run
				if json.Unmarshal([]byte(line), &r) == nil {
					undone = r.Command == "DEL" && value(r.Environ, "CNI_COMMAND") == "DEL" && r.Stdin == len(n.config(0)) && value(r.Environ, edge.CallEnv) == ""
				}
			}
			if got.Exit != tt.exit || undone != tt.undone || strings.Contains(got.Stderr, syscall.EPIPE.Error()) != tt.undone {
				t.Errorf("found %+v, want exit code %d, undone: %t", got, tt.exit, tt.undone)
			}
		})
	}
}

// Whoever reads slowly, from a pipe that does not wait, gets all.
func TestSlowReader(t *testing.T) {
	n := newNode(t)
	n.stdout = strings.Repeat("0123456789abcdef", 1<<16)
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(p[0]), "read"), os.NewFile(uintptr(p[1]), "write")
	defer r.Close()
	cmd := n.command("ADD", "exit=0")
	cmd.Stdin, cmd.Stdout = strings.NewReader(n.config(0)), w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	time.Sleep(10 * time.Millisecond) // the pipe is full by now
	b, err := io.ReadAll(r)
	if err != nil || string(b) != n.stdout {
		t.Errorf("found %d bytes, %v, want %d", len(b), err, len(n.stdout))
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

//go:build (amd64 || arm64) && !race

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/internal/edge"
	"github.com/braid-cni/braid/worker/protocol"
)

// A script is what a worker answers, and when.
type script struct {
	mu      sync.Mutex
	answer  []byte
	parts   int // in which it comes
	heard   [][]string
	strange []error
}

func (s *script) serve(conn net.Conn) {
	defer conn.Close()
	m, err := protocol.Receive(conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.heard = append(s.heard, m)
	case !errors.Is(err, io.EOF):
		s.strange = append(s.strange, err)
	}
	for part := range s.parts {
		from, to := part*len(s.answer)/s.parts, (part+1)*len(s.answer)/s.parts
		if _, err := conn.Write(s.answer[from:to]); err != nil {
			return // who has heard enough
		}
		if s.parts > 1 {
			time.Sleep(time.Millisecond)
		}
	}
}

// message encodes what a worker says.
func message(texts ...string) []byte {
	var b bytes.Buffer
	_ = protocol.Send(&b, texts...)
	return b.Bytes()
}

// A trial is one call of one braid-shim.
type trial struct {
	env    []string
	stdin  string
	input  string // "" if that is a file, "|" for a pipe, "-" for none, or the path of something else
	stdout string // path, or "" for a file, "-" for none, "|" for a pipe that nobody reads
	noErr  bool   // there is no standard error
	answer []byte
	parts  int
}

// A result is what somebody else sees of a call.
type result struct {
	Exit           string
	Stdout, Stderr string
	Heard          [][]string
	Strange        []error
}

var (
	ofProcess = regexp.MustCompile(`"PID":\d+`)
	ofCall    = regexp.MustCompile(edge.CallEnv + `=[0-9a-z]+`)
)

// try does not take package os/exec, which would mend the environment.
func (s *script) try(t *testing.T, shim string, c trial) (r result) {
	t.Helper()
	s.mu.Lock()
	s.answer, s.parts, s.heard, s.strange = c.answer, c.parts, nil, nil
	s.mu.Unlock()
	dir := t.TempDir()
	file := func(name, text string) *os.File {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	files := []*os.File{file("stdin", c.stdin), file("stdout", ""), file("stderr", "")}
	defer func() {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	}()
	var writing sync.WaitGroup
	if c.input == "|" {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, files[0])
		files[0] = r
		writing.Go(func() {
			defer w.Close()
			for rest := c.stdin; rest != ""; {
				n := min(len(rest), 20_000)
				if _, err := io.WriteString(w, rest[:n]); err != nil {
					return // it is too much
				}
				rest = rest[n:]
			}
		})
	}
	given := []*os.File{files[0], files[1], files[2]}
	switch c.input {
	case "", "|":
	case "-":
		given[0] = nil
	default:
		f, err := os.Open(c.input)
		if err != nil {
			t.Fatal(err)
		}
		given[0], files = f, append(files, f)
	}
	switch c.stdout {
	case "":
	case "-":
		given[1] = nil
	case "|":
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		given[1], files = w, append(files, w)
	default:
		f, err := os.OpenFile(c.stdout, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		given[1], files = f, append(files, f)
	}
	if c.noErr {
		given[2] = nil
	}
	p, err := os.StartProcess(shim, []string{"braid-shim"}, &os.ProcAttr{Env: c.env, Files: given})
	if err != nil {
		t.Fatal(err)
	}
	state, err := p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	files[0].Close() // whoever still writes there has an end
	writing.Wait()
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return ofCall.ReplaceAllString(ofProcess.ReplaceAllString(string(b), "PID"), "NAME")
	}
	r = result{Exit: state.String(), Stdout: read("stdout"), Stderr: read("stderr")}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.heard {
		var named []string
		names := make(map[string]bool)
		for i, text := range m {
			name, _, _ := strings.Cut(text, "=")
			if i < 2 || !names[name] { // the worker takes the first one
				named = append(named, ofCall.ReplaceAllString(text, "NAME"))
				names[name] = i >= 2
			}
		}
		r.Heard = append(r.Heard, named)
	}
	r.Strange = s.strange
	return r
}

// TestAlone: whatever comes, with early there is no difference to main alone, in what the worker gets, how often, and what is left.
func TestAlone(t *testing.T) {
	n := newNode(t)
	alone := filepath.Join(n.dir, "alone")
	build(t, alone, "-ldflags", "-E _rt0_"+runtime.GOARCH) // where package runtime begins
	l, err := net.Listen("unix", filepath.Join(n.dir, "s.worker.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := new(script)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.serve(conn)
		}
	}()
	socket := filepath.Join(n.dir, "s.sock")
	random := rand.New(rand.NewPCG(6, 26))
	handed, declined := 0, 0
	for i := range 200 {
		c := anyTrial(random, socket)
		want := s.try(t, alone, c)
		got := s.try(t, filepath.Join(n.dir, "braid-shim"), c)
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b error) bool { return fmt.Sprint(a) == fmt.Sprint(b) })); diff != "" {
			t.Errorf("trial %d, environment %.100q, standard input %q of %d bytes %.100q, standard output %q, answer of %d bytes %.60q in %d parts: (-main +early):\n%.2000s",
				i, c.env, c.input, len(c.stdin), c.stdin, c.stdout, len(c.answer), c.answer, c.parts, diff)
		}
		if len(got.Heard) > 0 {
			handed++
		} else {
			declined++
		}
		if len(got.Heard) > 1 {
			t.Errorf("trial %d: the worker has heard it %d times", i, len(got.Heard))
		}
	}
	if handed < 50 || declined < 20 {
		t.Errorf("%d calls for the worker, and %d others, are too few of one", handed, declined)
	}
}

// anyTrial makes one that is mostly as usual, with some of what is not.
func anyTrial(random *rand.Rand, socket string) (c trial) {
	rarely := func(often int) bool { return random.IntN(often) == 0 }
	pick := func(of ...string) string { return of[random.IntN(len(of))] }

	c.env = []string{"CNI_COMMAND=" + pick("ADD", "ADD", "DEL", "CHECK"), "CNI_NETNS=/proc/self/ns/net", "CNI_PATH=/a:/b", "CNI_IFNAME=eth0", "OTHER=x"}
	for rarely(2) {
		odd := pick("CNI_COMMAND=ADD", "CNI_COMMAND=GC", "CNI_COMMAND=", "CNI_COMMAND", "CNI_COMMAND=ADD ", "cni_command=ADD",
			"CNI_NETNS=", "CNI_NETNS", "CNI_NETNS=/gone", "CNI_NETNS=gone", "CNI_NETNS=/"+strings.Repeat("long/", 1000),
			"CNI_PATH=", "CNI_PATH", "CNI_PATH=/a:", "CNI_PATH=:/a", "CNI_PATH=a", "CNI_PATH=/a::/b", "CNI_PATH=:",
			"CNI_ARGS=K8S_POD_NAME=a", "CNI_ARGS", "CNI_ARGS=", "CNI_ARGS=two", "CNI_ARGS="+strings.Repeat("a", 62<<10),
			"", "=", "=x", "==", "A", "CNI_", "CNI_=", "CNI_\xff=\xfe", "CNI", "TRACEPARENT=t", "TRACEPARENT", "GODEBUG=",
			edge.CallEnv+"=of another", edge.CallEnv, edge.CallEnv+"S=1", edge.CallEnv+"=", strings.Repeat("A", 100_000)+"=")
		switch at := random.IntN(len(c.env) + 1); {
		case rarely(3) && at < len(c.env):
			c.env[at] = odd
		default:
			c.env = append(c.env[:at:at], append([]string{odd}, c.env[at:]...)...)
		}
	}
	if rarely(50) {
		c.env = nil
	}

	c.stdin = fmt.Sprintf(`{"name": "n", "daemonSocket": %q}`, socket)
	if rarely(4) {
		c.stdin = pick("", "{", "{}", "\x00", `{"daemonSocket": "`+socket+"\x00"+`"}`, "{\"daemon\u017focket\": \"/a\", \"daemonSocket\": \""+socket+`"}`,
			`{"daemonSocket": "/`+strings.Repeat("a", 87)+`.sock"}`, `{"daemonSocket": "/`+strings.Repeat("a", 200)+`"}`,
			`{"daemonSocket": "`+strings.TrimSuffix(socket, ".sock")+`"}`, strings.Repeat("[", 30_000), strings.Repeat("\"\\", 10_000), "\"\xff\xf0\": \xff")
	}
	if rarely(4) {
		size := []int{maxStdin - 1, maxStdin, maxStdin + 1, room - stdinAt, room, room + 1, edge.MaxStdin + 1}[random.IntN(7)]
		c.stdin += strings.Repeat(" ", max(0, size-len(c.stdin)))
	}
	c.input = pick("", "", "", "|", "|")
	if rarely(20) {
		c.input = pick("-", "/", "/dev/null")
	}

	if rarely(4) {
		c.stdout = pick("-", "|", "/dev/full", "/dev/null")
	}
	c.noErr = rarely(10)

	long := random.IntN(100)
	if rarely(4) { // which is there with the lengths and the rest of its message is as much as fits, or a byte less or more
		long = room - len(message(protocol.Answered, "0", "", "a remark")) + random.IntN(3) - 1
	}
	c.answer = message(protocol.Answered, pick("0", "0", "0", "1", "9"), strings.Repeat("a", long), "a remark")
	if rarely(3) {
		odd := [][]byte{
			nil, {0}, {0, 0, 0, 0}, {0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 1, 0}, {0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff}, []byte("garbage, and more of it"),
			message(protocol.Elsewhere), message(protocol.Elsewhere, ""), message(""), message("answer", "0", "", ""),
			message(protocol.Answered), message(protocol.Answered, "0", "out"), message(protocol.Answered, "0", "out", "err", "more"),
			message(protocol.Answered, "", "out", "err"), message(protocol.Answered, "x", "out", "err"), message(protocol.Answered, "10", "out", "err"),
			message(protocol.Answered, "-1", "out", "err"), message(protocol.Answered, "+1", "out", "err"), message(protocol.Answered, "0", "", ""),
			append(message(protocol.Kill), c.answer...), append(message(protocol.Elsewhere), c.answer...), append(bytes.Clone(c.answer), c.answer...),
			append(bytes.Clone(c.answer), 0), c.answer[:len(c.answer)-1], c.answer[:len(c.answer)/2], message(protocol.Execute),
		}
		c.answer = odd[random.IntN(len(odd))]
	}
	c.parts = []int{1, 1, 1, 2, 5}[random.IntN(5)]
	return c
}

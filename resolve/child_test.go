package resolve_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/resolve"
)

// TestMain lets the test binary be the program that a Child runs, and the process that has a Child.
func TestMain(m *testing.M) {
	role := os.Getenv("RESOLVE_TEST_ROLE")
	if role == "" {
		os.Exit(m.Run())
	}
	if err := roles[role](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

var roles = map[string]func() error{
	"serve": func() error {
		return resolve.Serve(context.Background(), os.Stdin, os.Stdout, fake{}, nil)
	},
	"refuse": func() error {
		return errors.New("no such kubeconfig")
	},
	"leave": func() error { return nil },
	"hang": func() error {
		time.Sleep(time.Hour)
		return nil
	},
	"garbage": afterRequest(func() { fmt.Println("Hello, world") }),
	"other":   afterRequest(func() { fmt.Println(`{"reported":true}`) }),
	"tear":    afterRequest(func() { fmt.Print(`{"answer":{`) }),
	"huge": afterRequest(func() {
		w := bufio.NewWriter(os.Stdout)
		for w.WriteByte('x') == nil {
		}
	}),
	"die": afterRequest(func() { syscall.Kill(os.Getpid(), syscall.SIGKILL) }),
	// A program that forks one that holds its pipes, out of reach of a signal to the group.
	"fork": afterRequest(func() {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "RESOLVE_TEST_ROLE=linger")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}),
	"linger": func() error {
		time.Sleep(3 * time.Second)
		return nil
	},
	// A process that waits for a Child when it is killed.
	"parent": func() error {
		c := &resolve.Child{Path: os.Args[0], Env: env("serve")}
		_, err := c.Resolve(context.Background(), &resolve.Query{Pod: resolve.Pod{Name: "wait"}})
		return err
	},
}

func afterRequest(do func()) func() error {
	return func() error {
		_, err := bufio.NewReader(os.Stdin).ReadBytes('\n')
		do()
		return err
	}
}

func env(role string) []string { return append(os.Environ(), "RESOLVE_TEST_ROLE="+role) }

// fake answers by the name of the pod.
type fake struct{}

func (fake) Resolve(ctx context.Context, q *resolve.Query) (*resolve.Answer, error) {
	switch q.Pod.Name {
	case "gone":
		return nil, &resolve.Error{Reason: resolve.NotFound, Message: "pod is gone"}
	case "wait":
		fmt.Fprintln(os.Stderr, "waiting", os.Getpid())
		<-ctx.Done()
		time.Sleep(10 * time.Millisecond)
		return nil, fmt.Errorf("get pod: %w", ctx.Err())
	case "large":
		return &resolve.Answer{Annotations: map[string]string{"a": strings.Repeat("x", 8<<20)}}, nil
	case "too-large":
		return &resolve.Answer{Annotations: map[string]string{"a": strings.Repeat("x", 33<<20)}}, nil
	case "deadline":
		deadline, _ := ctx.Deadline()
		return &resolve.Answer{Annotations: map[string]string{"left": time.Until(deadline).String()}}, nil
	case "stubborn":
		time.Sleep(time.Hour)
	}
	pod := q.Pod
	pod.UID = strconv.Itoa(os.Getpid())
	return &resolve.Answer{Pod: pod, Networks: map[string]resolve.Network{"a/b": {Config: "line\nbreak"}}}, nil
}

func (fake) Report(_ context.Context, r *resolve.Report) error {
	if r.Pod.Name == "gone" {
		return errors.New("plain error")
	}
	return nil
}

func newChild(t *testing.T, role string) *resolve.Child {
	t.Helper()
	c := &resolve.Child{Path: os.Args[0], Env: env(role), Stderr: io.Discard}
	t.Cleanup(func() { c.Close() })
	return c
}

func query(name string) *resolve.Query {
	return &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: name}}
}

// wantError checks an error's reason and a part of its message.
func wantError(t *testing.T, err error, reason, message string) {
	t.Helper()
	var e *resolve.Error
	if !errors.As(err, &e) {
		t.Fatalf("found error %v of type %T, want a *resolve.Error", err, err)
	}
	if e.Reason != reason || !strings.Contains(e.Message, message) {
		t.Errorf("found error %s: %q, want %s: %q", e.Reason, e.Message, reason, message)
	}
}

func TestOneChildServesAllRequests(t *testing.T) {
	c := newChild(t, "serve")
	first, err := c.Resolve(t.Context(), query("web"))
	if err != nil {
		t.Fatal(err)
	}
	want := &resolve.Answer{
		Pod:      resolve.Pod{Namespace: "default", Name: "web", UID: first.Pod.UID},
		Networks: map[string]resolve.Network{"a/b": {Config: "line\nbreak"}},
	}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	if err := c.Report(t.Context(), &resolve.Report{Pod: first.Pod, Status: []byte("[\n{}\n]")}); err != nil {
		t.Errorf("report: %v", err)
	}
	_, err = c.Resolve(t.Context(), query("gone"))
	wantError(t, err, resolve.NotFound, "pod is gone")
	wantError(t, c.Report(t.Context(), &resolve.Report{Pod: resolve.Pod{Name: "gone"}}), resolve.Invalid, "plain error")
	if large, err := c.Resolve(t.Context(), query("large")); err != nil || len(large.Annotations["a"]) != 8<<20 {
		t.Errorf("large answer: %v", err)
	}
	_, err = c.Resolve(t.Context(), query("too-large"))
	wantError(t, err, resolve.Invalid, "exceed the limit")

	last, err := c.Resolve(t.Context(), query("web"))
	if err != nil {
		t.Fatal(err)
	}
	if last.Pod.UID != first.Pod.UID {
		t.Errorf("process %s answered the first request, %s the last one", first.Pod.UID, last.Pod.UID)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if running(t, first.Pod.UID) {
		t.Errorf("process %s is there after Close", first.Pod.UID)
	}
}

func TestChildIsSafeForConcurrentUse(t *testing.T) {
	c := newChild(t, "serve")
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			name := fmt.Sprint("pod", i)
			if a, err := c.Resolve(t.Context(), query(name)); err != nil || a.Pod.Name != name {
				t.Errorf("asked for %s: found %v, %v", name, a, err)
			}
		})
	}
	wg.Wait()
}

func TestRequestTooLarge(t *testing.T) {
	c := newChild(t, "serve")
	_, err := c.Resolve(t.Context(), query(strings.Repeat("x", 1<<20)))
	wantError(t, err, resolve.Invalid, "exceed the limit of 1048576")
	if _, err := c.Resolve(t.Context(), query("web")); err != nil {
		t.Errorf("the child is of no use any more: %v", err)
	}
}

func TestDeadlineTravels(t *testing.T) {
	c := newChild(t, "serve")
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	for _, tt := range []struct {
		ctx      context.Context
		min, max time.Duration
	}{
		{t.Context(), 20 * time.Second, 30 * time.Second}, // the default
		{ctx, 4 * time.Minute, 5 * time.Minute},           // the bound
	} {
		a, err := c.Resolve(tt.ctx, query("deadline"))
		if err != nil {
			t.Fatal(err)
		}
		if left, err := time.ParseDuration(a.Annotations["left"]); err != nil || left < tt.min || left > tt.max {
			t.Errorf("found %s left, want %s to %s", a.Annotations["left"], tt.min, tt.max)
		}
	}
	// The other side stops first, and says what it waited for.
	short, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := c.Resolve(short, query("wait"))
	wantError(t, err, resolve.Unavailable, "get pod: context deadline exceeded")
}

func TestChildThatFails(t *testing.T) {
	for _, tt := range []struct{ role, reason, message string }{
		{"refuse", resolve.Invalid, `exit status 1; standard error: "no such kubeconfig"`},
		{"leave", resolve.Invalid, "ended without an answer: exit status 0"},
		{"die", resolve.Unavailable, "ended without an answer: signal: killed"},
		{"garbage", resolve.Invalid, `no answer, but "Hello, world"`},
		{"other", resolve.Invalid, "a response to another request"},
		{"tear", resolve.Unavailable, "unexpected EOF"},
		{"huge", resolve.Invalid, "more than 33554432 bytes"},
	} {
		t.Run(tt.role, func(t *testing.T) {
			t.Parallel()
			c := newChild(t, tt.role)
			_, err := c.Resolve(t.Context(), query("web"))
			wantError(t, err, tt.reason, tt.message)
			c.Env = env("serve")
			if _, err := c.Resolve(t.Context(), query("web")); err != nil {
				t.Errorf("the next request does not start the program again: %v", err)
			}
		})
	}
}

func TestChildThatCannotStart(t *testing.T) {
	c := &resolve.Child{Path: filepath.Join(t.TempDir(), "braidd")}
	_, err := c.Resolve(t.Context(), query("web"))
	wantError(t, err, resolve.Invalid, "no such file or directory")
}

func TestChildIsKilledWhenContextEnds(t *testing.T) {
	for _, role := range []string{"hang", "fork"} {
		t.Run(role, func(t *testing.T) {
			t.Parallel()
			c := newChild(t, role)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := c.Resolve(ctx, query("web"))
			wantError(t, err, resolve.Unavailable, "context deadline exceeded")
			_, err = c.Resolve(ctx, query("web"))
			wantError(t, err, resolve.Unavailable, "context deadline exceeded")
		})
	}
}

// A plugin that is killed must not leave a program behind that writes a status later.
func TestChildDiesWithParent(t *testing.T) {
	parent := exec.Command(os.Args[0])
	parent.Env = env("parent")
	stderr, err := parent.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stderr).ReadString('\n')
	pid, found := strings.CutPrefix(strings.TrimSpace(line), "waiting ")
	if err != nil || !found {
		t.Fatalf("read %q: %v", line, err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	parent.Wait()
	for deadline := time.Now().Add(10 * time.Second); running(t, pid); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %s survives its parent", pid)
		}
	}
}

// running tells if a process is there and no zombie.
func running(t *testing.T, pid string) bool {
	t.Helper()
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	_, state, _ := bytes.Cut(stat, []byte(") "))
	return state[0] != 'Z' && state[0] != 'X'
}

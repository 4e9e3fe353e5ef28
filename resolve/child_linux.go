package resolve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// A Child asks a program that serves its standard input and output, as `braidd resolve` does. The program starts with
// the first request, and serves all that follow: it has to read credentials and to shake hands with the API server once
// per ADD only. Requests are answered one after the other.
//
// When the context of a request ends before the answer is there, the program and what it forked are killed; the next
// request starts it again. It does not survive this process either, not even when that is killed.
type Child struct {
	Path string
	Args []string // without the name of the program
	Env  []string // nil means the environment of this process

	// Stderr is where the standard error of the program goes; nil means that of this process.
	Stderr io.Writer

	mu      sync.Mutex // held from a request until its answer
	process *process   // nil until it is needed, and after it ended
}

var _ Resolver = (*Child)(nil)

// Resolve implements [Resolver].
func (c *Child) Resolve(ctx context.Context, q *Query) (*Answer, error) {
	return askToResolve(ctx, c.exchange, q)
}

// Report implements [Resolver].
func (c *Child) Report(ctx context.Context, r *Report) error {
	return askToReport(ctx, c.exchange, r)
}

// Close kills the program, which has nothing to do between requests, and returns when it is gone.
func (c *Child) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		_ = c.process.end(0)
		c.process = nil
	}
	return nil
}

func (c *Child) exchange(ctx context.Context, req *request) (_ *response, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		if c.process, err = c.start(); err != nil {
			return nil, errorf(Invalid, "start %s: %v", c.Path, err)
		}
	}
	resp, err := c.process.stream.exchange(ctx, req)
	if _, typed := errors.AsType[*Error](err); err == nil || typed {
		return resp, err
	}
	failure := c.process.failure(ctx, err)
	c.process = nil
	return nil, errorf(failure.Reason, "%s: %s", c.Path, failure.Message)
}

const (
	waitStderr = time.Second // for what a process that the program left behind still could write
	waitExit   = time.Second // for a program that has closed its pipes
	maxExcerpt = 512         // bytes of standard error in a message
)

// A process is a running program.
type process struct {
	stream        *stream
	stdin, stdout *os.File // our ends
	stderr        *tail
	cancel        context.CancelFunc
	exited        chan error // receives what Wait returned
}

func (c *Child) start() (p *process, err error) {
	stdin, toStdin, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdin.Close()
	fromStdout, stdout, err := os.Pipe()
	if err != nil {
		toStdin.Close()
		return nil, err
	}
	defer stdout.Close()

	ctx, cancel := context.WithCancel(context.Background())
	p = &process{stdin: toStdin, stdout: fromStdout, stderr: &tail{forward: c.Stderr}, cancel: cancel, exited: make(chan error, 1)}
	if p.stderr.forward == nil {
		p.stderr.forward = os.Stderr
	}
	p.stream = newStream(fromStdout, toStdin, p.abort)

	cmd := exec.CommandContext(ctx, c.Path, c.Args...)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Env, stdin, stdout, p.stderr
	cmd.WaitDelay = waitStderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	// The whole group: a kubeconfig can name a program that gets the credentials.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := p.run(cmd); err != nil {
		p.abort()
		return nil, err
	}
	return p, nil
}

// run starts the program, and waits for its end on a thread of its own: the kernel sends Pdeathsig when the thread ends
// that started the program, so that thread may do nothing else.
func (p *process) run(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.exited <- cmd.Wait()
		}
	}()
	return <-started
}

// abort kills the program, and lets go of pipes that what it left behind may hold.
func (p *process) abort() {
	p.cancel()
	p.stdin.Close()
	p.stdout.Close()
}

// end gives the program time to end by itself, or else kills it, and tells how it ended.
func (p *process) end(grace time.Duration) error {
	defer p.abort()
	select {
	case err := <-p.exited:
		return err
	case <-time.After(grace):
		p.abort()
		return <-p.exited
	}
}

// failure ends the program, and explains why there is no answer.
func (p *process) failure(ctx context.Context, err error) *Error {
	if ctx.Err() != nil {
		_ = p.end(0)
		return errorf(Unavailable, "no answer in time: %v", err)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) {
		_ = p.end(0)
		return errorf(reasonOf(err), "%v", err)
	}
	exit := p.end(waitExit)
	if exit == nil {
		exit = errors.New("exit status 0")
	}
	// What gives up would do so again. What was killed may have been in the way of something else.
	reason := Invalid
	if e, ok := errors.AsType[*exec.ExitError](exit); ok && !e.Exited() {
		reason = Unavailable
	}
	return errorf(reason, "ended without an answer: %v; standard error: %q", exit, bytes.TrimSpace(p.stderr.last))
}

// A tail passes on what is written, and remembers the end of it.
type tail struct {
	forward io.Writer
	last    []byte
}

func (t *tail) Write(b []byte) (int, error) {
	_, _ = t.forward.Write(b) // a log that cannot be written must not end the program
	t.last = append(t.last, b...)
	t.last = t.last[max(0, len(t.last)-maxExcerpt):]
	return len(b), nil
}

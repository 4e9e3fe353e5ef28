package resolve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
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
	Env  []string // nil means the environment of this process; of two values of one name the first counts

	// Stderr is where the standard error of the program goes, until it has ended; nil means that of this process.
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

// Close lets the program end, which has nothing to do between requests, and does not wait for that: it takes the kernel as
// long as ten system calls, and who ends after this is not to wait for it too. The program ends with this process at the
// latest. What is left of it then gets the reaper of orphans, as the shims of container runtimes do.
func (c *Child) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process != nil {
		c.process.closePipes()
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

// A process is a running program. Package os/exec would make sure first that the kernel has file descriptors of processes,
// by starting and ending another one.
type process struct {
	stream        *stream
	stdin, stdout *os.File // our ends
	stderr        *tail
	exited        chan syscall.WaitStatus

	pid  int
	mu   sync.Mutex
	gone bool // pid can be another process by now
}

func (c *Child) start() (_ *process, err error) {
	p := &process{stderr: &tail{forward: c.Stderr, ended: make(chan struct{})}, exited: make(chan syscall.WaitStatus, 1)}
	if p.stderr.forward == nil {
		p.stderr.forward = os.Stderr
	}
	var theirs [3]*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
		if err != nil {
			p.closePipes()
			p.stderr.from.Close()
		}
	}()
	if theirs[0], p.stdin, err = os.Pipe(); err != nil {
		return nil, err
	}
	if p.stdout, theirs[1], err = os.Pipe(); err != nil {
		return nil, err
	}
	if p.stderr.from, theirs[2], err = os.Pipe(); err != nil {
		return nil, err
	}
	if err := p.run(c, theirs); err != nil {
		return nil, err
	}
	p.stream = newStream(p.stdout, p.stdin, p.abort)
	go p.stderr.copy()
	return p, nil
}

// run starts the program, and waits for its end on a thread of its own: the kernel sends Pdeathsig when the thread ends
// that started the program, so that thread may do nothing else.
func (p *process) run(c *Child, files [3]*os.File) error {
	attr := &syscall.ProcAttr{Env: c.Env, Sys: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}}
	if attr.Env == nil {
		attr.Env = os.Environ()
	}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var err error
		p.pid, err = syscall.ForkExec(c.Path, append([]string{c.Path}, c.Args...), attr)
		started <- err
		if err == nil {
			p.exited <- p.wait()
		}
	}()
	return <-started
}

// wait waits for the end of the program. Until nobody can kill it any more, its number is no other's.
func (p *process) wait() (status syscall.WaitStatus) {
	const pPid = 1 // P_PID
	for errno := syscall.EINTR; errno == syscall.EINTR; {
		_, _, errno = syscall.Syscall6(syscall.SYS_WAITID, pPid, uintptr(p.pid), 0, syscall.WEXITED|syscall.WNOWAIT, 0, 0)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	for {
		if _, err := syscall.Wait4(p.pid, &status, 0, nil); err != syscall.EINTR {
			return status
		}
	}
}

// abort kills the program, and lets go of pipes that what it left behind may hold.
func (p *process) abort() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.gone {
		_ = syscall.Kill(-p.pid, syscall.SIGKILL) // the whole group: a kubeconfig can name a program that gets the credentials
	}
	p.closePipes()
}

func (p *process) closePipes() {
	p.stdin.Close()
	p.stdout.Close()
}

// end gives the program time to end by itself, or else kills it, and tells how it ended. Its standard error is complete
// then, unless what it left behind still could write for a second.
func (p *process) end(grace time.Duration) (status syscall.WaitStatus) {
	select {
	case status = <-p.exited:
	case <-time.After(grace):
		p.abort()
		status = <-p.exited
	}
	p.closePipes()
	p.stderr.end()
	return status
}

// failure ends the program, and explains why there is no answer.
func (p *process) failure(ctx context.Context, err error) *Error {
	if ctx.Err() != nil {
		p.end(0)
		return errorf(Unavailable, "no answer in time: %v", err)
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EPIPE) {
		p.end(0)
		return errorf(reasonOf(err), "%v", err)
	}
	status := p.end(waitExit)
	exit := fmt.Sprint("exit status ", status.ExitStatus())
	// What gives up would do so again. What was killed may have been in the way of something else.
	reason := Invalid
	if status.Signaled() {
		exit, reason = "signal: "+status.Signal().String(), Unavailable
	}
	return errorf(reason, "ended without an answer: %s; standard error: %q", exit, bytes.TrimSpace(p.stderr.last))
}

// A tail passes on what is written, and remembers the end of it.
type tail struct {
	from    *os.File
	forward io.Writer
	last    []byte        // to be read when ended is closed
	ended   chan struct{} // nobody writes any more
}

func (t *tail) copy() {
	defer close(t.ended)
	defer t.from.Close()
	_, _ = io.Copy(t, t.from)
}

// end waits until nobody writes any more, a second at most.
func (t *tail) end() {
	late := time.AfterFunc(waitStderr, func() { t.from.Close() })
	defer late.Stop()
	<-t.ended
}

func (t *tail) Write(b []byte) (int, error) {
	_, _ = t.forward.Write(b) // a log that cannot be written must not end the program
	t.last = append(t.last, b...)
	t.last = t.last[max(0, len(t.last)-maxExcerpt):]
	return len(b), nil
}

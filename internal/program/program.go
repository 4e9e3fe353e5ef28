// Package program runs the binaries of plugins, once each: it finds them, hands over environment and standard input, bounds what
// comes back, and kills what does not end. What a failure means is for others to say. Programs that have to start fast link it.
package program

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

const (
	maxStdout  = 1 << 20     // of a plugin, bytes: a result has some hundred, and the journal keeps it
	maxStderr  = 1 << 20     // of a plugin, bytes passed on
	waitOutput = time.Second // for output that a process the plugin left behind still could write
)

// Attempts to execute a file that is being written.
const (
	BusyRetry = 100 * time.Millisecond // between two of them
	BusyTries = 50
)

// A Program is one run of a binary.
type Program struct {
	Name string   // of the file
	Dirs []string // where it is looked up, in this order; an empty one is passed over
	Env  []string // what is to differ in the environment of this process, "NAME=value"

	Stdin []byte
	// Stderr is where its standard error goes; nil means that of this process. It must be safe for concurrent use.
	Stderr io.Writer

	// Timeout bounds the run; zero means that the context alone does.
	Timeout time.Duration
}

// ErrNotFound says that no folder has the binary.
var ErrNotFound = errors.New("not found")

// A NotStartedError tells that there is a binary, and that the kernel does not execute it.
type NotStartedError struct{ Err error }

func (e *NotStartedError) Error() string { return e.Err.Error() }
func (e *NotStartedError) Unwrap() error { return e.Err }

// A StoppedError tells that the binary and what it forked were killed, and why.
type StoppedError struct{ Cause error }

func (e *StoppedError) Error() string { return "stopped: " + e.Cause.Error() }
func (e *StoppedError) Unwrap() error { return e.Cause }

// A FailedError tells that the binary has ended by itself, but not with exit code 0.
type FailedError struct {
	State  string // "exit status 3"
	Exited bool   // not by a signal
	Stdout []byte
	Stderr []byte // the begin and the end of it
}

func (e *FailedError) Error() string { return e.State }

// A Runner runs a program as [Run] does.
type Runner func(ctx context.Context, p *Program) (stdout []byte, err error)

// Run runs a program in the network namespace of the caller, and returns its standard output. When the context ends, the binary and
// what it forked are killed. The error is [ErrNotFound], of one of the types above, or that of a pipe.
func Run(ctx context.Context, p *Program) (stdout []byte, err error) {
	path, err := Find(p.Name, p.Dirs)
	if err != nil {
		return nil, err
	}
	if p.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, p.Timeout, fmt.Errorf("not done in %s: %w", p.Timeout, context.DeadlineExceeded))
		defer cancel()
	}
	for try := 1; ; try++ {
		stdout, err := p.runFile(ctx, path)
		// An upgrade of the plugin is being written to its file. A new try needs a new exec.Cmd.
		if !errors.Is(err, syscall.ETXTBSY) || try == BusyTries || !sleep(ctx, BusyRetry) {
			return stdout, err
		}
	}
}

// Find returns the absolute path of a binary. The error is [ErrNotFound] if none of the folders has it.
func Find(name string, dirs []string) (string, error) {
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		// Absolute, or os/exec would look a relative name up in $PATH.
		path, err := filepath.Abs(filepath.Join(dir, name))
		if err != nil {
			return "", err
		}
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", ErrNotFound
}

// runFile runs a file once.
func (p *Program) runFile(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stdout := &bounded{left: maxStdout, overflow: cancel}
	stderr := &tee{forward: p.Stderr, left: maxStderr}
	if stderr.forward == nil {
		stderr.forward = os.Stderr
	}

	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), p.Env...) // os/exec lets the last of two win
	cmd.Stdin = bytes.NewReader(p.Stdin)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = waitOutput
	// A group of its own, so that what the plugin forked is killed with it. And it must not survive this process: it
	// would go on with an ADD while the DEL that follows thinks it over.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error {
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	// The kernel sends Pdeathsig when the thread ends that started the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, &StoppedError{context.Cause(ctx)}
	case err != nil && cmd.Process == nil:
		return nil, &NotStartedError{err}
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // exit code 0, though what it forked holds the pipes
		return stdout.data, nil
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, &FailedError{State: exit.Error(), Exited: exit.Exited(), Stdout: stdout.data, Stderr: stderr.kept}
	}
	return nil, err
}

// sleep waits, and reports whether it could do so to the end.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

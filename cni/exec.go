package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
)

const (
	maxStdout  = 1 << 20                // of a plugin, bytes: a result has some hundred, and the journal keeps it
	maxStderr  = 1 << 20                // of a plugin, bytes passed on
	waitOutput = time.Second            // for output that a process the plugin left behind still could write
	busyRetry  = 100 * time.Millisecond // between attempts to execute a file that is being written
	busyTries  = 50
)

// Exec is a third-party binary as a [Plugin]. It is looked up in the Path of each request, and runs in the network
// namespace of the caller with the environment of this process, changed in the parameters of the protocol only.
//
// When the context ends, the binary and what it forked are killed. An Add that fails may have left something, unlike
// that of other plugins: many binaries do not undo, and one that is killed cannot. So call Del after it, if the interface
// name was free before.
//
// An error of the binary keeps its code, message and details in a [types.Error]; a binary that does not exist is a
// [NotFoundError], one that cannot be executed a [NotStartedError]: such an Add has left nothing.
type Exec struct {
	// Type names the binary: the "type" of a configuration. A name with a path separator is refused with code 7.
	Type string

	// Stderr is where the standard error of the binary goes; nil means that of this process. It must be safe for
	// concurrent use.
	Stderr io.Writer

	// Timeout bounds one run of the binary; zero means that the context alone does.
	Timeout time.Duration

	// Executor runs the binary in place of this process; nil means that this process does.
	Executor Executor
}

// An Executor does what [Exec.Run] does, in another process. Its errors are of the same types.
type Executor func(ctx context.Context, e Exec, command string, req *Request) (stdout []byte, err error)

var _ Plugin = Exec{}

// A NotFoundError tells that no directory of CNI_PATH has a binary for a type. It carries code 50: ADD requests for
// that network cannot be served.
type NotFoundError struct {
	Type string
	Path []string
}

func (e *NotFoundError) Error() string {
	return fmt.Sprintf("plugin %q not found in CNI_PATH %q", e.Type, strings.Join(e.Path, string(filepath.ListSeparator)))
}

// A NotStartedError tells that there is a binary, and that the kernel does not execute it.
type NotStartedError struct{ Err error }

func (e *NotStartedError) Error() string { return e.Err.Error() }
func (e *NotStartedError) Unwrap() error { return e.Err }

// Unwrap returns the error as the protocol has it.
func (e *NotFoundError) Unwrap() error {
	return types.NewError(types.ErrPluginNotAvailable, e.Error(), "")
}

// Add implements [Plugin]. A result of an older CNI version is converted.
func (e Exec) Add(ctx context.Context, req *Request) (*types100.Result, error) {
	confVersion, err := create.DecodeVersion(req.Config)
	if err != nil {
		return nil, decodingError("configuration", err)
	}
	stdout, err := e.Run(ctx, "ADD", req)
	if err != nil {
		return nil, err
	}
	res, err := unmarshalResult(stdout, confVersion)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w in result %s", e.Type, decodingError("result", err), excerpt(stdout))
	}
	return res, nil
}

// Del implements [Plugin].
func (e Exec) Del(ctx context.Context, req *Request) error {
	_, err := e.Run(ctx, "DEL", req)
	return err
}

// Check implements [Plugin]. It does nothing for a configuration older than 0.4.0, the version of which the
// specification says: "Introduce the CHECK command and passing prevResult on DEL".
func (e Exec) Check(ctx context.Context, req *Request) error {
	return e.runSince(ctx, "0.4.0", "CHECK", req)
}

// GC implements [Plugin]. It does nothing for a configuration older than 1.1.0, the version that introduced the
// command.
func (e Exec) GC(ctx context.Context, req *Request) error {
	return e.runSince(ctx, "1.1.0", "GC", req)
}

// Status implements [Plugin]. It does nothing for a configuration older than 1.1.0, the version that introduced the
// command.
func (e Exec) Status(ctx context.Context, req *Request) error {
	return e.runSince(ctx, "1.1.0", "STATUS", req)
}

// runSince runs the binary unless the configuration is of a version that does not know the command.
func (e Exec) runSince(ctx context.Context, since, command string, req *Request) error {
	confVersion, err := create.DecodeVersion(req.Config)
	if err != nil {
		return decodingError("configuration", err)
	}
	if !atLeast(confVersion, since) {
		return nil
	}
	_, err = e.Run(ctx, command, req)
	return err
}

// Run finds the binary, runs it for a command and returns its standard output.
func (e Exec) Run(ctx context.Context, command string, req *Request) ([]byte, error) {
	if e.Executor != nil {
		return e.Executor(ctx, e, command, req)
	}
	path, err := e.Find(req.Path)
	if err != nil {
		return nil, err
	}
	if e.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, e.Timeout, fmt.Errorf("not done in %s: %w", e.Timeout, context.DeadlineExceeded))
		defer cancel()
	}
	for try := 1; ; try++ {
		stdout, err := e.runFile(ctx, path, command, req)
		// An upgrade of the plugin is being written to its file. A new try needs a new exec.Cmd.
		if !errors.Is(err, syscall.ETXTBSY) || try == busyTries || !sleep(ctx, busyRetry) {
			if err != nil {
				err = fmt.Errorf("plugin %s: %w", e.Type, err)
			}
			return stdout, err
		}
	}
}

// Find returns the absolute path of the binary in dirs. The error is a [*NotFoundError], or of code 7 for a Type that
// is no file name.
//
// "type: Must not contain characters disallowed in file paths for the system (e.g. / or \)."
func (e Exec) Find(dirs []string) (string, error) {
	if e.Type == "" || e.Type == "." || e.Type == ".." || strings.ContainsAny(e.Type, "/\\\x00") {
		return "", types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("invalid plugin type %q: must be the name of a file, without a path", e.Type), "")
	}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		// Absolute, or os/exec would look a relative name up in $PATH.
		path, err := filepath.Abs(filepath.Join(dir, e.Type))
		if err != nil {
			return "", err
		}
		if fi, err := os.Stat(path); err == nil && fi.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", &NotFoundError{Type: e.Type, Path: dirs}
}

// runFile runs a file once.
func (e Exec) runFile(ctx context.Context, path, command string, req *Request) ([]byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stdout := &bounded{left: maxStdout, overflow: cancel}
	stderr := &tee{forward: e.Stderr, left: maxStderr}
	if stderr.forward == nil {
		stderr.forward = os.Stderr
	}

	cmd := exec.CommandContext(ctx, path)
	cmd.Env = environ(ctx, command, req)
	cmd.Stdin = bytes.NewReader(req.Config)
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
		return nil, fmt.Errorf("stopped during %s: %w", command, context.Cause(ctx))
	case err != nil && cmd.Process == nil:
		return nil, &NotStartedError{err}
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // exit code 0, though what it forked holds the pipes
		return stdout.data, nil
	default:
		return nil, failure(err, stdout.data, stderr.kept)
	}
}

// environ returns the environment of this process with the parameters of one call.
//
// "The delegated plugin must receive all the same environment variables that were passed in to the CNI plugin."
func environ(ctx context.Context, command string, req *Request) []string {
	// All six always, the empty ones too: os/exec lets the last of two win, so none is inherited.
	env := append(os.Environ(),
		"CNI_COMMAND="+command,
		"CNI_CONTAINERID="+req.ContainerID,
		"CNI_NETNS="+req.Netns,
		"CNI_IFNAME="+req.IfName,
		"CNI_ARGS="+req.Args,
		"CNI_PATH="+strings.Join(req.Path, string(filepath.ListSeparator)),
	)
	if t, ok := TraceParentOf(ctx); ok {
		env = append(env, "TRACEPARENT="+t.String())
	}
	return env
}

// failure makes an error of what a plugin left when it failed.
func failure(err error, stdout, stderr []byte) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if e := lastError(stdout); e != nil && exit.Exited() {
		return e
	}
	if len(bytes.TrimSpace(stderr)) > 0 {
		return fmt.Errorf("%w; standard error: %s", err, excerpt(stderr))
	}
	if len(bytes.TrimSpace(stdout)) > 0 {
		return fmt.Errorf("%w; no CNI error in standard output: %s", err, excerpt(stdout))
	}
	return fmt.Errorf("%w without a message", err)
}

// lastError returns the CNI error that standard output ends with. It need not be the only document: the reference
// implementation can print the result of an ADD and then an error.
func lastError(stdout []byte) (found *types.Error) {
	d := json.NewDecoder(bytes.NewReader(stdout))
	for {
		var e types.Error
		if err := d.Decode(&e); err == io.EOF {
			return found
		} else if err != nil {
			return nil
		}
		if e.Msg != "" || e.Code != 0 {
			found = &e
		}
	}
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

package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/braid-cni/braid/internal/program"
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

	// Executor runs the binary in place of this process; nil means that this process does, by [program.Run].
	Executor program.Runner
}

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
type NotStartedError = program.NotStartedError

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
	if err := e.checkType(); err != nil {
		return nil, err
	}
	run := program.Run
	if e.Executor != nil {
		run = e.Executor
	}
	stdout, err := run(ctx, &program.Program{
		Name: e.Type, Dirs: req.Path, Env: environ(ctx, command, req), Stdin: req.Config, Stderr: e.Stderr, Timeout: e.Timeout,
	})
	if err == nil {
		return stdout, nil
	}
	if errors.Is(err, program.ErrNotFound) {
		return nil, &NotFoundError{Type: e.Type, Path: req.Path}
	}
	if stopped, ok := errors.AsType[*program.StoppedError](err); ok {
		err = fmt.Errorf("stopped during %s: %w", command, stopped.Cause)
	} else if failed, ok := errors.AsType[*program.FailedError](err); ok {
		err = failure(failed)
	}
	return nil, fmt.Errorf("plugin %s: %w", e.Type, err)
}

// Find returns the absolute path of the binary in dirs. The error is a [*NotFoundError], or of code 7 for a Type that
// is no file name.
func (e Exec) Find(dirs []string) (string, error) {
	if err := e.checkType(); err != nil {
		return "", err
	}
	path, err := program.Find(e.Type, dirs)
	if errors.Is(err, program.ErrNotFound) {
		err = &NotFoundError{Type: e.Type, Path: dirs}
	}
	return path, err
}

// checkType refuses what is no name of a file.
//
// "type: Must not contain characters disallowed in file paths for the system (e.g. / or \)."
func (e Exec) checkType() error {
	if e.Type == "" || e.Type == "." || e.Type == ".." || strings.ContainsAny(e.Type, "/\\\x00") {
		return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("invalid plugin type %q: must be the name of a file, without a path", e.Type), "")
	}
	return nil
}

// environ returns the parameters of one call.
//
// "The delegated plugin must receive all the same environment variables that were passed in to the CNI plugin."
func environ(ctx context.Context, command string, req *Request) []string {
	// All six always, the empty ones too, so that none is inherited.
	env := []string{
		"CNI_COMMAND=" + command,
		"CNI_CONTAINERID=" + req.ContainerID,
		"CNI_NETNS=" + req.Netns,
		"CNI_IFNAME=" + req.IfName,
		"CNI_ARGS=" + req.Args,
		"CNI_PATH=" + strings.Join(req.Path, string(filepath.ListSeparator)),
	}
	if t, ok := TraceParentOf(ctx); ok {
		env = append(env, "TRACEPARENT="+t.String())
	}
	return env
}

// failure makes an error of what a plugin left when it failed.
func failure(f *program.FailedError) error {
	if e := lastError(f.Stdout); e != nil && f.Exited {
		return e
	}
	if len(bytes.TrimSpace(f.Stderr)) > 0 {
		return fmt.Errorf("%w; standard error: %s", f, excerpt(f.Stderr))
	}
	if len(bytes.TrimSpace(f.Stdout)) > 0 {
		return fmt.Errorf("%w; no CNI error in standard output: %s", f, excerpt(f.Stdout))
	}
	return fmt.Errorf("%w without a message", f)
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

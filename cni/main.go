package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/internal/edge"
	"github.com/braid-cni/braid/internal/undo"
)

// Main makes a binary of a plugin: it serves the one command that the environment and standard input ask for, and
// ends the process. About is one line for a person who runs the binary by hand: "CNI plugin bridge v1.0".
//
// SIGTERM and SIGINT cancel the context of the plugin, so that it undoes what it began; a second one ends the process
// at once. So may the first one before the plugin is called or, if that is [Late] and this is an ADD, before [Hear] has returned.
func Main(p Plugin, about string) {
	env := takeCallID()
	ctx, heard := hearSignals()
	os.Exit(Run(ctx, p, about, Process{Env: env, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, heard: heard}))
}

// hearSignals returns a context that SIGTERM and SIGINT cancel, and what is closed when they do. To listen is a quarter of a
// millisecond's work with other threads, and there is nothing to undo before the request has been read.
func hearSignals() (ctx context.Context, heard <-chan struct{}) {
	ctx, cancel := context.WithCancelCause(context.Background())
	listening := make(chan struct{})
	go func() {
		signalled, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
		context.AfterFunc(signalled, func() {
			stop()
			cancel(context.Cause(signalled))
		})
		surviveReader()
		close(listening)
	}()
	return ctx, listening
}

// takeCallID returns the environment, from which the name of the call goes then: plugins that are executed have calls of their own.
func takeCallID() (env func(string) string) {
	id := os.Getenv(edge.CallEnv)
	_ = os.Unsetenv(edge.CallEnv)
	return func(name string) string {
		if name == edge.CallEnv {
			return id
		}
		return os.Getenv(name)
	}
}

// surviveReader makes a runtime that is gone an error: it must not end the process before that has undone an ADD. Not by
// signal.Ignore: the plugins that are executed would inherit it.
func surviveReader() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }

// A Process is what the operating system gives a plugin binary.
type Process struct {
	Env    func(name string) string
	Stdin  io.Reader
	Stdout io.Writer // one JSON document, or nothing
	Stderr io.Writer // text for people

	heard <-chan struct{} // closed when signals cancel the context; nil if they need not
}

// Run is [Main] without the operating system. It returns the exit code.
//
// "A plugin must exit with a return code of 0 on success, and non-zero on failure. If the plugin encounters an error,
// it should output an error result structure." The first sentences of the specification send that to standard error,
// those on STATUS to standard output, and so does every plugin.
func Run(ctx context.Context, p Plugin, about string, proc Process) (exitCode int) {
	var err error
	protocol := version.Current()
	switch command := proc.Env("CNI_COMMAND"); command {
	case "":
		fmt.Fprintf(proc.Stderr, "%s\nCNI versions supported: %s\n", about, strings.Join(version.All.SupportedVersions(), ", "))
	case "VERSION":
		err = writeJSON(proc.Stdout, supported(ctx, proc.Stdin))
	default:
		if t, ok := ParseTraceParent(proc.Env("TRACEPARENT")); ok {
			ctx = WithTraceParent(ctx, t)
		}
		if id := proc.Env(edge.CallEnv); id != "" {
			ctx = WithCallID(ctx, id)
		}
		var c *call
		if c, err = readCall(ctx, command, proc); err == nil {
			protocol = c.version
			err = c.serve(hearing(ctx, command, p, proc.heard), p, proc)
		}
	}
	if err == nil {
		return 0
	}
	if writeErr := writeJSON(proc.Stdout, newErrorDocument(err, protocol)); writeErr != nil {
		fmt.Fprintln(proc.Stderr, err)
	}
	return 1
}

// serve has the plugin answer.
func (c *call) serve(ctx context.Context, p Plugin, proc Process) error {
	if c.command == "ADD" {
		return c.add(ctx, p, proc)
	}
	return guard(proc.Stderr, func() error {
		switch c.command {
		case "DEL":
			return p.Del(ctx, c.req)
		case "CHECK":
			return p.Check(ctx, c.req)
		case "GC":
			return p.GC(ctx, c.req)
		default:
			return p.Status(ctx, c.req)
		}
	})
}

// add prints the result, or leaves nothing behind.
func (c *call) add(ctx context.Context, p Plugin, proc Process) (err error) {
	ctx = WithNotices(ctx, func(notice string) { fmt.Fprintln(proc.Stderr, notice) })
	var u undo.Stack
	defer u.OnError(&err)
	del := func() error {
		return guard(proc.Stderr, func() error { return p.Del(context.WithoutCancel(ctx), c.req) })
	}

	var res *types100.Result
	err = guard(proc.Stderr, func() (err error) {
		res, err = p.Add(ctx, c.req)
		return err
	})
	// An Add that returns an error has left nothing; one that panicked may have.
	if _, panicked := err.(panicError); err == nil || panicked {
		u.Add("DEL", del)
	}
	if err != nil {
		return err
	}
	// "cniVersion: The same version supplied on input"
	doc, err := MarshalResult(res, c.version)
	if err != nil {
		return err
	}
	_, err = proc.Stdout.Write(append(doc, '\n'))
	return err
}

// supported answers VERSION.
//
// "cniVersion: The value of cniVersion specified on input"
func supported(ctx context.Context, stdin io.Reader) any {
	answer := struct {
		CNIVersion        string   `json:"cniVersion"`
		SupportedVersions []string `json:"supportedVersions"`
	}{version.Current(), version.All.SupportedVersions()}

	if f, ok := stdin.(*os.File); ok {
		if fi, err := f.Stat(); err != nil || fi.Mode()&os.ModeCharDevice != 0 {
			return answer // a person at a terminal types no document
		}
	}
	var in struct {
		CNIVersion string `json:"cniVersion"`
	}
	if doc, err := readBounded(ctx, stdin); err == nil && json.Unmarshal(doc, &in) == nil && in.CNIVersion != "" {
		answer.CNIVersion = in.CNIVersion
	}
	return answer
}

// guard turns a panic into an error, and prints the stack.
func guard(stderr io.Writer, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(stderr, "panic: %v\n\n%s", r, debug.Stack())
			err = panicError{r}
		}
	}()
	return f()
}

type panicError struct{ value any }

func (e panicError) Error() string { return fmt.Sprintf("panic: %v", e.value) }

type errorDocument struct {
	CNIVersion string `json:"cniVersion"`
	types.Error
}

// newErrorDocument makes the error result of an error: the code of the types.Error inside, and the whole message on
// one line.
func newErrorDocument(err error, cniVersion string) errorDocument {
	doc := errorDocument{CNIVersion: cniVersion, Error: types.Error{Code: types.ErrInternal}}
	message := err.Error()
	var inner *types.Error
	if errors.As(err, &inner) {
		if inner.Code != 0 {
			doc.Code = inner.Code
		}
		if rest, found := strings.CutSuffix(message, "; "+inner.Details); found {
			message, doc.Details = rest, Message(inner.Details)
		}
	}
	doc.Msg = Message(message)
	return doc
}

// writeJSON prints one document in one write.
func writeJSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetIndent("", "    ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

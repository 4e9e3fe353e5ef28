package protocol

import (
	"errors"
	"strconv"
	"time"

	"github.com/braid-cni/braid/internal/program"
)

// EncodeProgram returns the message by which a worker has a plugin process run a program.
func EncodeProgram(p *program.Program) []string {
	m := []string{Execute, p.Name, strconv.FormatInt(int64(p.Timeout), 10), string(p.Stdin), strconv.Itoa(len(p.Dirs))}
	return append(append(m, p.Dirs...), p.Env...)
}

// DecodeProgram returns the program of a message.
func DecodeProgram(m []string) (*program.Program, error) {
	const fixed = 5
	if len(m) < fixed {
		return nil, ErrMessage
	}
	timeout, err := strconv.ParseInt(m[2], 10, 64)
	dirs, dirsErr := strconv.Atoi(m[4])
	rest := m[fixed:]
	if err != nil || dirsErr != nil || dirs < 0 || dirs > len(rest) {
		return nil, ErrMessage
	}
	return &program.Program{
		Name: m[1], Timeout: time.Duration(timeout), Stdin: []byte(m[3]), Dirs: rest[:dirs], Env: rest[dirs:],
	}, nil
}

// What an execution ended with.
const (
	done       = "done"
	notFound   = "not found"
	notStarted = "not started"
	stopped    = "stopped"
	exited     = "exited"
	signalled  = "signalled"
	failed     = "failed"
)

// EncodeExecuted returns the message about what [program.Run] has returned.
func EncodeExecuted(stdout []byte, err error) []string {
	m := func(kind, text string, output ...[]byte) []string {
		m := []string{Executed, kind, text}
		for _, o := range output {
			m = append(m, string(o))
		}
		return m
	}
	if err == nil {
		return m(done, "", stdout)
	}
	if errors.Is(err, program.ErrNotFound) {
		return m(notFound, "")
	}
	if e, ok := errors.AsType[*program.NotStartedError](err); ok {
		return m(notStarted, e.Error())
	}
	if e, ok := errors.AsType[*program.StoppedError](err); ok {
		return m(stopped, e.Cause.Error())
	}
	if e, ok := errors.AsType[*program.FailedError](err); ok {
		kind := signalled
		if e.Exited {
			kind = exited
		}
		return m(kind, e.State, e.Stdout, e.Stderr)
	}
	return m(failed, err.Error())
}

// DecodeExecuted returns what [program.Run] has returned in the other process; of errors in others, the text only.
func DecodeExecuted(m []string) (stdout []byte, err error) {
	if len(m) < 3 {
		return nil, ErrMessage
	}
	text, output := m[2], m[3:]
	switch kind := m[1]; {
	case kind == done && len(output) == 1:
		return []byte(output[0]), nil
	case kind == notFound:
		return nil, program.ErrNotFound
	case kind == notStarted:
		return nil, &program.NotStartedError{Err: errors.New(text)}
	case kind == stopped:
		return nil, &program.StoppedError{Cause: errors.New(text)}
	case (kind == exited || kind == signalled) && len(output) == 2:
		return nil, &program.FailedError{State: text, Exited: kind == exited, Stdout: []byte(output[0]), Stderr: []byte(output[1])}
	case kind == failed:
		return nil, errors.New(text)
	}
	return nil, ErrMessage
}

package worker

import (
	"errors"
	"strconv"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/cni"
)

// What kind of error an execution ended with.
const (
	noError    = ""
	notFound   = "not found"
	notStarted = "not started"
	failed     = "failed"
)

// encodeError returns the kind of an error, its text, and the code, message and details of the error of CNI within it.
func encodeError(err error) []string {
	if err == nil {
		return []string{noError, "", "", "", ""}
	}
	kind := failed
	if _, ok := errors.AsType[*cni.NotFoundError](err); ok {
		kind = notFound
	} else if _, ok := errors.AsType[*cni.NotStartedError](err); ok {
		kind = notStarted
	}
	code, message, details := "", "", ""
	if e, ok := errors.AsType[*types.Error](err); ok {
		code, message, details = strconv.FormatUint(uint64(e.Code), 10), e.Msg, e.Details
	}
	return []string{kind, err.Error(), code, message, details}
}

// decodeExecuted returns what an execution has brought: what it has printed, or an error of the type that it had.
func decodeExecuted(e cni.Exec, req *cni.Request, m []string) ([]byte, error) {
	if len(m) != 6 {
		return nil, errMessage
	}
	stdout, kind, text := m[0], m[1], m[2]
	switch kind {
	case noError:
		return []byte(stdout), nil
	case notFound:
		return nil, &cni.NotFoundError{Type: e.Type, Path: req.Path}
	case notStarted:
		return nil, &failure{text, &cni.NotStartedError{Err: errors.New(text)}}
	}
	if m[3] == "" {
		return nil, errors.New(text)
	}
	code, err := strconv.ParseUint(m[3], 10, 0)
	if err != nil {
		return nil, errMessage
	}
	return nil, &failure{text, types.NewError(uint(code), m[4], m[5])}
}

// A failure is an error of another process, as it was there.
type failure struct {
	text  string
	inner error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.inner }

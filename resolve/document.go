package resolve

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

const (
	maxRequest  = 1 << 20          // bytes of a line
	maxResponse = 32 << 20         // bytes of a line: more than all that a pod may select
	maxTime     = 5 * time.Minute  // for a request
	defaultTime = 30 * time.Second // for a request that does not say
)

// A request is one of Resolve, Report and Observe. The last is not answered.
type request struct {
	TimeoutMillis int64        `json:"timeoutMillis,omitempty"`
	Resolve       *Query       `json:"resolve,omitempty"`
	Report        *Report      `json:"report,omitempty"`
	Observe       *Observation `json:"observe,omitempty"`
	// Unanswered says that nobody waits for an answer to Report.
	Unanswered bool `json:"unanswered,omitempty"`
}

// A response is one of Answer, Reported and Error.
type response struct {
	Answer   *Answer `json:"answer,omitempty"`
	Reported bool    `json:"reported,omitempty"`
	Error    *Error  `json:"error,omitempty"`
}

// answers reports whether the response is one to the request.
func (r *response) answers(req *request) bool {
	if r.Error != nil {
		return true
	}
	return req.Resolve != nil && r.Answer != nil || req.Report != nil && r.Reported
}

// setTimeout hands the deadline of a context over. The other side stops a little earlier, so that its error, which
// knows what it waited for, still arrives.
func (r *request) setTimeout(ctx context.Context) {
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		left -= min(left/10, 500*time.Millisecond)
		r.TimeoutMillis = max(1, left.Milliseconds())
	}
}

// timeout is the time that the request gives, within bounds.
func (r *request) timeout() time.Duration {
	if r.TimeoutMillis <= 0 {
		return defaultTime
	}
	return time.Duration(min(r.TimeoutMillis, maxTime.Milliseconds())) * time.Millisecond
}

// errTooLong tells that a document exceeds its bound.
var errTooLong = errors.New("document too long")

// marshalLine makes a line of a document.
func marshalLine(v any, limit int) ([]byte, error) {
	line, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(line) > limit {
		return nil, fmt.Errorf("%w: %d bytes exceed the limit of %d", errTooLong, len(line), limit)
	}
	return append(line, '\n'), nil
}

// readLine returns a line without its end; io.EOF if there is none, io.ErrUnexpectedEOF if it breaks off.
func readLine(r *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > limit+1 {
			return nil, fmt.Errorf("%w: more than %d bytes", errTooLong, limit)
		}
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// asError gives an error a reason.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return &Error{Reason: Unavailable, Message: err.Error()}
	}
	return &Error{Reason: Invalid, Message: err.Error()}
}

func errorf(reason, format string, args ...any) *Error {
	return &Error{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

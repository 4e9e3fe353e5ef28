package resolve

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// A Client asks a daemon over one connection. Requests are answered one after the other.
type Client struct {
	mu     sync.Mutex // held from a request until its answer
	stream *stream
	conn   net.Conn
	broken error // why the connection is of no use any more
}

var _ Resolver = (*Client)(nil)

// Dial connects to the socket of a daemon. Its errors are those of package net: with no daemon there is no file, or
// nobody listens (syscall.ENOENT, syscall.ECONNREFUSED).
func Dial(ctx context.Context, socket string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn, stream: newStream(conn, conn, func() { conn.Close() })}, nil
}

// Resolve implements [Resolver]. When ctx ends before the answer is there, the connection is closed.
func (c *Client) Resolve(ctx context.Context, q *Query) (*Answer, error) {
	return askToResolve(ctx, c.exchange, q)
}

// Report implements [Resolver]. When ctx ends before the answer is there, the connection is closed.
func (c *Client) Report(ctx context.Context, r *Report) error {
	return askToReport(ctx, c.exchange, r)
}

// sendTime is how long what nobody waits for may take to be sent.
const sendTime = 100 * time.Millisecond

// HandOver is Report for what the journal keeps, which is written whether this request arrives or not, if later. So it says
// only where that is. It returns when the request is sent. An older daemon answers all the same, so the connection is of no
// use after it.
func (c *Client) HandOver(r *Report) error {
	line, err := marshalLine(&request{Report: &Report{Pod: r.Pod, Record: r.Record}, Unanswered: true}, maxRequest)
	if err != nil {
		return errorf(Invalid, "encode request: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.conn.SetWriteDeadline(time.Now().Add(sendTime)); err != nil {
		return err
	}
	defer c.conn.SetWriteDeadline(time.Time{})
	_, err = c.conn.Write(line)
	return err
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) exchange(ctx context.Context, req *request) (*response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return nil, errorf(Unavailable, "connection to braidd is closed: %v", c.broken)
	}
	resp, err := c.stream.exchange(ctx, req)
	if _, typed := errors.AsType[*Error](err); err == nil || typed {
		return resp, err
	}
	c.broken = err
	c.conn.Close()
	return nil, &Error{Reason: reasonOf(err), Message: "ask braidd: " + err.Error()}
}

// An exchange sends a request and returns the response to it. Its errors are of type *Error.
type exchange func(context.Context, *request) (*response, error)

func askToResolve(ctx context.Context, ask exchange, q *Query) (*Answer, error) {
	resp, err := ask(ctx, &request{Resolve: q})
	if err != nil {
		return nil, err
	}
	return resp.Answer, nil
}

func askToReport(ctx context.Context, ask exchange, r *Report) error {
	_, err := ask(ctx, &request{Report: r})
	return err
}

// A stream carries requests one way and responses the other. It is not safe for concurrent use.
type stream struct {
	r     *bufio.Reader
	w     io.Writer
	abort func() // lets a Read or Write that waits return; may be called again
}

func newStream(r io.Reader, w io.Writer, abort func()) *stream {
	return &stream{r: bufio.NewReader(r), w: w, abort: abort}
}

// errGarbage tells that the other side does not speak the protocol.
var errGarbage = errors.New("no answer")

// exchange sends a request and returns the response to it. An *Error is that of the other side, or the request was not
// sent. After any other error the stream is of no use: a late answer would be taken for that to the next request.
func (s *stream) exchange(ctx context.Context, req *request) (*response, error) {
	req.setTimeout(ctx)
	line, err := marshalLine(req, maxRequest)
	if err != nil {
		return nil, errorf(Invalid, "encode request: %v", err)
	}
	if ctx.Err() != nil {
		return nil, errorf(Unavailable, "%v", context.Cause(ctx))
	}
	stop := context.AfterFunc(ctx, s.abort)
	resp, err := s.roundTrip(line)
	if !stop() && err != nil {
		err = context.Cause(ctx) // rather than that the abort was seen
	}
	switch {
	case err != nil:
		return nil, err
	case !resp.answers(req):
		return nil, fmt.Errorf("%w, but a response to another request", errGarbage)
	case resp.Error != nil:
		return nil, resp.Error
	}
	return resp, nil
}

func (s *stream) roundTrip(request []byte) (*response, error) {
	if _, err := s.w.Write(request); err != nil {
		return nil, err
	}
	line, err := readLine(s.r, maxResponse)
	if err != nil {
		return nil, err
	}
	var resp response
	if err := json.Unmarshal(line, &resp); err != nil {
		return nil, fmt.Errorf("%w, but %.100q: %w", errGarbage, line, err)
	}
	return &resp, nil
}

// reasonOf tells whether another try can help after a stream broke.
func reasonOf(err error) string {
	if errors.Is(err, errGarbage) || errors.Is(err, errTooLong) {
		return Invalid
	}
	return Unavailable
}

package resolve

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// A Client asks a daemon over one connection. Requests are answered one after the other.
type Client struct {
	mu     sync.Mutex // held from a request until its answer
	stream *stream
	conn   *os.File // a socket that blocks: the poller's goroutines and system calls would be most of a request
	broken error    // why the connection is of no use any more
}

var _ Resolver = (*Client)(nil)

// Dial connects to the socket of a daemon. It waits for nothing, not even for room in the backlog. With no daemon there is
// no file, or nobody listens (syscall.ENOENT, syscall.ECONNREFUSED).
func Dial(ctx context.Context, socket string) (*Client, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	conn, err := connect(socket)
	if err == nil {
		if err = syscall.SetNonblock(conn, false); err != nil {
			syscall.Close(conn)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", socket, err)
	}
	c := &Client{conn: os.NewFile(uintptr(conn), socket)}
	c.stream = newStream(c.conn, c.conn, c.abort)
	return c, nil
}

// connect makes a connection that does not block, and waits for nothing. It does without package net, which would be cold code in a
// process that lives for one call.
func connect(socket string) (conn int, err error) {
	conn, err = syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	if err = syscall.Connect(conn, &syscall.SockaddrUnix{Name: socket}); err != nil {
		syscall.Close(conn)
		return -1, err
	}
	return conn, nil
}

// abort lets whoever reads or writes return.
func (c *Client) abort() {
	if raw, err := c.conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) })
	}
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

// handOver is Report for what the journal keeps, which is written whether this request arrives or not, if later. So it says
// only where that is. It returns when the request is sent. An older daemon answers all the same, so the connection is of no
// use after it.
func (c *Client) handOver(r *Report) error {
	line, err := marshalLine(&request{Report: &Report{Pod: r.Pod, Record: r.Record}, Unanswered: true}, maxRequest)
	if err != nil {
		return errorf(Invalid, "encode request: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.writeWithin(sendTime); err != nil {
		return err
	}
	_, err = c.conn.Write(line)
	return err
}

// writeWithin bounds how long a Write may take, from now on.
func (c *Client) writeWithin(d time.Duration) error {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return err
	}
	limit := syscall.NsecToTimeval(int64(d))
	control := raw.Control(func(fd uintptr) {
		err = syscall.SetsockoptTimeval(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &limit)
	})
	return errors.Join(control, err)
}

// Close ends the connection.
func (c *Client) Close() error {
	if c.mu.TryLock() {
		defer c.mu.Unlock()
	} else {
		c.abort()
	}
	return c.conn.Close()
}

func (c *Client) exchange(ctx context.Context, req *request) (*response, error) {
	if err := c.send(ctx, req); err != nil {
		return nil, err
	}
	return c.receive(ctx, req)
}

// send sends a request. If it could, the next call is that of receive.
func (c *Client) send(ctx context.Context, req *request) error {
	c.mu.Lock()
	if c.broken != nil {
		defer c.mu.Unlock()
		return errorf(Unavailable, "connection to braidd is closed: %v", c.broken)
	}
	err := c.stream.send(ctx, req)
	if err != nil {
		defer c.mu.Unlock()
		return c.failed(err)
	}
	return nil
}

// receive waits for the response to the request that was sent.
func (c *Client) receive(ctx context.Context, req *request) (*response, error) {
	defer c.mu.Unlock()
	resp, err := c.stream.receive(ctx, req)
	if err != nil {
		return nil, c.failed(err)
	}
	return resp, nil
}

func (c *Client) failed(err error) error {
	if _, typed := errors.AsType[*Error](err); typed {
		return err
	}
	c.broken = err
	c.conn.Close()
	return &Error{Reason: reasonOf(err), Message: "ask braidd: " + err.Error()}
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
	if err := s.send(ctx, req); err != nil {
		return nil, err
	}
	return s.receive(ctx, req)
}

// send is the first half of exchange.
func (s *stream) send(ctx context.Context, req *request) error {
	req.setTimeout(ctx)
	line, err := marshalLine(req, maxRequest)
	if err != nil {
		return errorf(Invalid, "encode request: %v", err)
	}
	if ctx.Err() != nil {
		return errorf(Unavailable, "%v", context.Cause(ctx))
	}
	return s.within(ctx, func() error {
		_, err := s.w.Write(line)
		return err
	})
}

// receive is the second half.
func (s *stream) receive(ctx context.Context, req *request) (*response, error) {
	var resp response
	err := s.within(ctx, func() error {
		line, err := readLine(s.r, maxResponse)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(line, &resp); err != nil {
			return fmt.Errorf("%w, but %.100q: %w", errGarbage, line, err)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case !resp.answers(req):
		return nil, fmt.Errorf("%w, but a response to another request", errGarbage)
	case resp.Error != nil:
		return nil, resp.Error
	}
	return &resp, nil
}

// within does something until ctx ends.
func (s *stream) within(ctx context.Context, do func() error) error {
	stop := context.AfterFunc(ctx, s.abort)
	err := do()
	if !stop() && err != nil {
		err = context.Cause(ctx) // rather than that the abort was seen
	}
	return err
}

// reasonOf tells whether another try can help after a stream broke.
func reasonOf(err error) string {
	if errors.Is(err, errGarbage) || errors.Is(err, errTooLong) {
		return Invalid
	}
	return Unavailable
}

package resolve

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
)

// Serve answers the requests that it reads from r, one after the other, until r ends. Each request has the deadline
// that it brought along, and ends with ctx too. To end a Serve that waits for a request, close r.
//
// What is no request, or too long for one, is answered with an error. After the latter Serve returns, since it cannot
// know where the next request begins.
//
// Observe takes what the plugin tells; nil drops it. It must not block.
func Serve(ctx context.Context, r io.Reader, w io.Writer, resolver Resolver, observe func(*Observation)) error {
	lines := bufio.NewReader(r)
	for {
		line, err := readLine(lines, maxRequest)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if errors.Is(err, errTooLong) {
			return writeResponse(w, &response{Error: errorf(Invalid, "read request: %v", err)})
		}
		if err != nil {
			return err
		}
		var req request
		var resp *response
		if err := json.Unmarshal(line, &req); err != nil {
			resp = &response{Error: errorf(Invalid, "decode request: %v", err)}
		} else if req.Observe != nil {
			if observe != nil {
				observe(req.Observe)
			}
		} else if resp = serve(ctx, &req, line, resolver); req.Unanswered {
			resp = nil
		}
		if resp == nil {
			continue
		}
		if err := writeResponse(w, resp); err != nil {
			return err
		}
	}
}

// serve answers one request.
func serve(ctx context.Context, req *request, line []byte, resolver Resolver) *response {
	ctx, cancel := context.WithTimeout(ctx, req.timeout())
	defer cancel()

	var resp response
	var err error
	switch {
	case req.Resolve != nil && req.Report == nil:
		resp.Answer, err = resolver.Resolve(ctx, req.Resolve)
	case req.Report != nil && req.Resolve == nil:
		resp.Reported, err = true, resolver.Report(ctx, req.Report)
	default:
		err = errorf(Invalid, `decode request: found %.100q, want one of "resolve", "report" and "observe"`, line)
	}
	if err != nil {
		return &response{Error: asError(err)}
	}
	return &resp
}

func writeResponse(w io.Writer, resp *response) error {
	line, err := marshalLine(resp, maxResponse)
	if err != nil {
		if line, err = marshalLine(&response{Error: errorf(Invalid, "encode answer: %v", err)}, maxResponse); err != nil {
			return err
		}
	}
	_, err = w.Write(line)
	return err
}

// ServeStdio serves standard input and output. It ends with ctx too: standard input cannot be closed while it is being read.
func ServeStdio(ctx context.Context, resolver Resolver) error {
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, os.Stdin, os.Stdout, resolver, nil) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

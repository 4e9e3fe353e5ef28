package resolve

import (
	"context"
	"errors"
	"io"
)

// A Node asks the daemon of the node, and where that gives no answer, who asks without one. The answers are the same, so a daemon
// that is missing, starting, hanging or being upgraded costs time and no ADD. It is safe for concurrent use by requests
// of one ADD after the other.
type Node struct {
	Socket string
	// Fallback asks without a daemon. It is closed with the Node.
	Fallback interface {
		Resolver
		io.Closer
	}
	// Log is told why the daemon did not answer; required.
	Log func(msg string, args ...any)

	daemon *Client // that answered Resolve; nil if the fallback did
	asked  *Client // that has not answered yet
}

var _ interface {
	Resolver
	Asker
} = (*Node)(nil)

// Resolve implements [Resolver]. That a pod does not exist is taken from the daemon, which has asked the API server. Any
// other error of it is not: the fallback has credentials and a connection of its own.
func (n *Node) Resolve(ctx context.Context, q *Query) (*Answer, error) {
	answer, end := n.Ask(ctx, q)
	defer end()
	return answer(ctx)
}

// orElse asks the fallback, unless the daemon has the last word.
func (n *Node) orElse(ctx context.Context, q *Query, answer *Answer, err error) (*Answer, error) {
	if err == nil || reasonIs(err, NotFound) {
		return answer, err
	}
	n.Log("the daemon does not answer; asking the API server", "socket", n.Socket, "err", err)
	answer, fallbackErr := n.Fallback.Resolve(ctx, q)
	if fallbackErr != nil {
		return nil, errorf(asError(fallbackErr).Reason, "%v; before that, daemon at %s: %v", fallbackErr, n.Socket, err)
	}
	return answer, nil
}

// Report implements [Resolver]. A report goes to whoever has resolved the pod. If that is a daemon which has ended since,
// it goes to the next one; if there is none yet, the journal keeps it until there is, unless the caller waits for it.
func (n *Node) Report(ctx context.Context, r *Report) error {
	if n.daemon == nil {
		return n.Fallback.Report(ctx, r)
	}
	kept := r.Record != nil && !r.Wait
	report := func(c *Client) error {
		if kept {
			return c.handOver(r)
		}
		return c.Report(ctx, r)
	}
	err := report(n.daemon)
	if err == nil || reasonIs(err, Invalid) {
		return err
	}
	again, dialErr := Dial(ctx, n.Socket)
	if dialErr == nil {
		err = errors.Join(report(again), again.Close())
	}
	switch {
	case err == nil && dialErr == nil:
		return nil
	case kept:
		n.Log("the report waits in the journal for the daemon", "socket", n.Socket, "err", err)
		return nil
	}
	return n.Fallback.Report(ctx, r)
}

// Close implements io.Closer.
func (n *Node) Close() error {
	var err error
	for _, c := range []*Client{n.asked, n.daemon} {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	return errors.Join(err, n.Fallback.Close())
}

func reasonIs(err error, reason string) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Reason == reason
}

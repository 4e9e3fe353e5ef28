package resolve

import (
	"context"
	"errors"
	"time"

	"github.com/braid-cni/braid/internal/roomy"
)

// An Asker is a [Resolver] that can do without a goroutine while the caller does something else than wait.
type Asker interface {
	// Ask is [Ask].
	Ask(ctx context.Context, q *Query) (answer func(context.Context) (*Answer, error), end func())
}

// Ask begins to resolve. Answer, which is called once or not at all, waits for what Resolve returns; its context may live
// longer than that of the question, which the answer may have come to in time. When end returns nobody is at work on it any
// more.
func Ask(ctx context.Context, r Resolver, q *Query) (answer func(context.Context) (*Answer, error), end func()) {
	if a, ok := r.(Asker); ok {
		return a.Ask(ctx, q)
	}
	return inBackground(ctx, func(ctx context.Context) (*Answer, error) { return r.Resolve(ctx, q) })
}

func inBackground(ctx context.Context, do func(context.Context) (*Answer, error)) (answer func(context.Context) (*Answer, error), end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var found *Answer
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		roomy.Stack()
		found, err = do(ctx)
	}()
	answer = func(context.Context) (*Answer, error) {
		<-done
		return found, err
	}
	return answer, func() {
		cancel()
		<-done
	}
}

// Ask implements [Asker]. If there is a daemon it has the question when Ask returns; if not, the fallback is asked meanwhile.
func (n *Node) Ask(ctx context.Context, q *Query) (answer func(context.Context) (*Answer, error), end func()) {
	req := &request{Resolve: q}
	daemon, err := n.send(ctx, req)
	if err != nil {
		return inBackground(ctx, func(ctx context.Context) (*Answer, error) { return n.orElse(ctx, q, nil, err) })
	}
	n.asked = daemon
	answer = func(ctx context.Context) (*Answer, error) {
		answer, err := n.receive(ctx, req)
		return n.orElse(ctx, q, answer, err)
	}
	return answer, func() {}
}

func (n *Node) send(ctx context.Context, req *request) (*Client, error) {
	ctx, cancel := half(ctx)
	defer cancel()
	client, err := Dial(ctx, n.Socket)
	if err != nil {
		return nil, err
	}
	if err := client.send(ctx, req); err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return client, nil
}

func (n *Node) receive(ctx context.Context, req *request) (*Answer, error) {
	ctx, cancel := half(ctx)
	defer cancel()
	client := n.asked
	n.asked = nil
	resp, err := client.receive(ctx, req)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	n.daemon = client
	return resp.Answer, nil
}

// half leaves the fallback half of the time.
func half(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, time.Until(deadline)/2)
}

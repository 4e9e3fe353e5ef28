package chain

import (
	"context"
	"time"

	"github.com/braid-cni/braid/cni"
)

// A Call is what one plugin of a network was asked, and what came of it.
type Call struct {
	Network string
	Type    string // of the plugin
	Verb    string
	IfName  string // empty for GC and STATUS
	Start   time.Time
	Took    time.Duration
	SpanID  string // of the call in the trace of its context; empty if there is none
	Err     error
}

type callsKey struct{}

// WithCalls returns a context whose chains tell the function of every call of a plugin when it is over. It may be called
// concurrently.
func WithCalls(ctx context.Context, tell func(Call)) context.Context {
	return context.WithValue(ctx, callsKey{}, tell)
}

// call has plugin i do something, in a span of its own if the context belongs to a trace, and names the plugin whose
// error it is.
func (c *Chain) call(ctx context.Context, i int, verb, ifName string, do func(context.Context) error) error {
	tell, told := ctx.Value(callsKey{}).(func(Call))
	if !told {
		return c.failed(i, do(ctx))
	}
	call := Call{Network: c.network.Name, Type: c.links[i].conf.Type, Verb: verb, IfName: ifName, Start: time.Now()}
	if parent, ok := cni.TraceParentOf(ctx); ok {
		span := parent.Child()
		call.SpanID = span.SpanID
		ctx = cni.WithTraceParent(ctx, span)
	}
	call.Err = do(ctx)
	call.Took = time.Since(call.Start)
	tell(call)
	return c.failed(i, call.Err)
}

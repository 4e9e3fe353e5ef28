package delegate

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/chain"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/resolve"
)

// An Observer takes what a call of the runtime was and took. It must not block.
type Observer func(c *conf.Config, o *resolve.Observation)

// An observation collects one. Where nobody observes, nothing is collected.
type observation struct {
	tell  Observer
	later func(do func())
	conf  *conf.Config // nil until it could be read

	mu sync.Mutex // attachments of an ADD go together
	o  resolve.Observation
}

// observe begins one. The context that it returns is that of a span of its own, if the runtime records a trace.
func (d *Delegator) observe(ctx context.Context, verb string) (context.Context, *observation) {
	w := &observation{tell: d.Observer, later: d.Later, o: resolve.Observation{Verb: verb, Start: time.Now(), Worker: d.Caller != nil}}
	if w.tell == nil {
		return ctx, w
	}
	if parent, ok := cni.TraceParentOf(ctx); ok && parent.Sampled {
		own := parent.Child()
		w.o.TraceParent, w.o.SpanID = parent.String(), own.SpanID
		ctx = cni.WithTraceParent(ctx, own)
	}
	return chain.WithCalls(ctx, w.called), w
}

// of says which configuration and pod the call is about.
func (w *observation) of(c *call) { w.conf, w.o.Pod = c.conf, c.pod() }

func (w *observation) called(c chain.Call) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.o.Plugins = append(w.o.Plugins, resolve.PluginCall{
		Type: c.Type, Network: c.Network, Interface: c.IfName, Verb: c.Verb,
		Outcome: outcome(c.Err), Start: c.Start, Seconds: c.Took.Seconds(), SpanID: c.SpanID,
	})
}

// removed notes what became of the attachments of a DEL, those before and those that are left, for the events of the pod.
func (w *observation) removed(before, left []journal.Attachment, err error) {
	var gone []string
	for _, a := range before {
		what := a.IfName + " from " + a.Name
		if slices.ContainsFunc(left, func(l journal.Attachment) bool { return l.IfName == a.IfName }) {
			w.o.Events = append(w.o.Events, resolve.Event{Type: "Warning", Reason: "FailedRemovingInterface", Message: cni.Message("Remove " + what + ": " + err.Error())})
		} else {
			gone = append(gone, what)
		}
	}
	w.o.Events = append(w.o.Events, events("RemovedInterface", "Remove ", gone)...)
}

// end tells what was collected. What is done elsewhere is told there.
func (w *observation) end(err error) {
	if w.tell == nil || w.conf == nil || errors.Is(err, cni.ErrElsewhere) {
		return
	}
	w.mu.Lock() // what a deadline left behind may still call
	defer w.mu.Unlock()
	w.o.Outcome, w.o.Seconds = outcome(err), time.Since(w.o.Start).Seconds()
	slices.SortStableFunc(w.o.Plugins, func(a, b resolve.PluginCall) int { return a.Start.Compare(b.Start) })
	told := w.o // to which what a deadline left behind may still add
	if w.later == nil {
		w.tell(w.conf, &told)
	} else {
		w.later(func() { w.tell(w.conf, &told) })
	}
}

// outcome is the code that the runtime gets for an error.
func outcome(err error) string {
	if err == nil {
		return resolve.Success
	}
	if e, ok := errors.AsType[*types.Error](err); ok {
		return strconv.FormatUint(uint64(e.Code), 10)
	}
	return strconv.FormatUint(uint64(types.ErrInternal), 10)
}

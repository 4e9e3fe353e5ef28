// Package tracing makes OpenTelemetry spans of what the plugin tells, and exports them to a collector by OTLP over HTTP.
//
// The plugin cannot do it itself: it would connect to the collector in every ADD. It makes up the ids of its spans, so that
// plugins which it executes can have theirs below them, and tells the daemon when it is done. So spans come here finished,
// with ids and times, and nothing of an SDK is needed. What is exported is
//
//	CNI ADD              below the span of the runtime
//	  bridge ADD         a plugin of a network; several can overlap
//	  portmap ADD
//
// for calls that the runtime traces and has sampled.
package tracing

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/braid-cni/braid/resolve"
)

// Options configure an Exporter. The zero value of each field stands for its default.
type Options struct {
	// Endpoint is the URL of the collector; "/v1/traces" is added to one without a path. If it is empty, the environment
	// says where the collector is, as OTLP has it.
	Endpoint string
	// Getenv reads the environment: OTEL_EXPORTER_OTLP_ENDPOINT, _HEADERS, _TIMEOUT, _COMPRESSION, _CERTIFICATE,
	// _CLIENT_CERTIFICATE, _CLIENT_KEY and _PROTOCOL, all of these with _TRACES as well, OTEL_RESOURCE_ATTRIBUTES,
	// OTEL_SERVICE_NAME and OTEL_SDK_DISABLED. Default: an empty one.
	Getenv func(key string) string

	Version string       // of Braid
	Node    string       // name of the node
	Log     *slog.Logger // default slog.Default()
}

// Bounds of what is kept in memory and sent at once.
const (
	maxQueued  = 1024 // calls of the runtime
	maxBatch   = 512  // spans, and those of one call more
	batchTime  = 2 * time.Second
	maxPlugins = 128 // spans of one call
	flushTime  = 5 * time.Second
)

// An Exporter exports spans while [Exporter.Run] runs. Its methods are safe for concurrent use. A nil Exporter, for which
// no collector is configured, exports nothing.
type Exporter struct {
	client   *client
	resource *tracepb.ResourceSpans // without spans
	log      *slog.Logger
	queue    chan *resolve.Observation

	exported, dropped atomic.Uint64 // spans
}

// New returns an exporter to the collector that is configured; nil if none is.
func New(o Options) (*Exporter, error) {
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	c, err := newClient(o.Endpoint, o.Getenv)
	if c == nil || err != nil {
		return nil, err
	}
	r, err := resourceOf(&o)
	if err != nil {
		return nil, err
	}
	return &Exporter{client: c, resource: r, log: o.Log, queue: make(chan *resolve.Observation, maxQueued)}, nil
}

// Observe exports the spans of a call later, if the runtime has sampled it. It never waits: when the collector is too slow,
// spans are dropped. The observation must not be changed any more.
func (e *Exporter) Observe(o *resolve.Observation) {
	if e == nil || o.TraceParent == "" {
		return
	}
	select {
	case e.queue <- o:
	default:
		e.dropped.Add(uint64(spanCount(o)))
	}
}

// Exported returns how many spans the collector took.
func (e *Exporter) Exported() float64 {
	if e == nil {
		return 0
	}
	return float64(e.exported.Load())
}

// Dropped returns how many spans were lost.
func (e *Exporter) Dropped() float64 {
	if e == nil {
		return 0
	}
	return float64(e.dropped.Load())
}

// Run exports until the context ends, and then for some seconds at most what is still queued.
func (e *Exporter) Run(ctx context.Context) {
	if e == nil {
		<-ctx.Done()
		return
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx)) // goes on for a moment
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(flushTime, cancel) })()
	for ctx.Err() == nil {
		e.export(work, e.next(ctx))
	}
	for len(e.queue) > 0 {
		e.export(work, e.queued())
	}
}

// next waits for a call, and for others that come a short time after it.
func (e *Exporter) next(ctx context.Context) (batch []*tracepb.Span) {
	select {
	case <-ctx.Done():
		return nil
	case o := <-e.queue:
		batch = spansOf(o)
	}
	full := time.NewTimer(batchTime)
	defer full.Stop()
	for len(batch) < maxBatch {
		select {
		case o := <-e.queue:
			batch = append(batch, spansOf(o)...)
		case <-full.C:
			return batch
		case <-ctx.Done():
			return batch
		}
	}
	return batch
}

// queued returns a batch of what is queued now.
func (e *Exporter) queued() (batch []*tracepb.Span) {
	for len(batch) < maxBatch {
		select {
		case o := <-e.queue:
			batch = append(batch, spansOf(o)...)
		default:
			return batch
		}
	}
	return batch
}

// export sends a batch. One that the collector does not take is dropped.
func (e *Exporter) export(ctx context.Context, batch []*tracepb.Span) {
	if len(batch) == 0 {
		return
	}
	rejected, err := e.client.upload(ctx, e.request(batch))
	if err != nil {
		e.dropped.Add(uint64(len(batch)))
		e.log.Warn("spans are lost: the collector did not take them", "spans", len(batch), "error", err)
		return
	}
	rejected = min(rejected, len(batch))
	if rejected > 0 {
		e.log.Warn("spans are lost: the collector rejects them", "spans", rejected)
	}
	e.dropped.Add(uint64(rejected))
	e.exported.Add(uint64(len(batch) - rejected))
}

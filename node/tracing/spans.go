package tracing

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/braid-cni/braid/resolve"
)

// Flags of a span, besides those of its trace: whether it is known that its parent is of another process.
const (
	sampled      = 0x1
	knownParent  = 0x100
	remoteParent = 0x200
)

func spanCount(o *resolve.Observation) int { return 1 + min(len(o.Plugins), maxPlugins) }

// spansOf returns the spans of a call: its own first. There are none if the runtime has not sampled it, or if the ids are
// none.
func spansOf(o *resolve.Observation) []*tracepb.Span {
	trace, parent, ok := parseTraceParent(o.TraceParent)
	id, isID := parseID(o.SpanID, 8)
	if !ok || !isID {
		return nil
	}
	call := newSpan("CNI "+text(o.Verb), o.Start, o.Seconds, o.Outcome)
	call.TraceId, call.ParentSpanId, call.SpanId = trace, parent, id
	call.Flags = sampled | knownParent | remoteParent
	call.Attributes = append(attributes(
		"cni.command", o.Verb,
		"k8s.namespace.name", o.Pod.Namespace,
		"k8s.pod.name", o.Pod.Name,
		"k8s.pod.uid", o.Pod.UID,
	), call.Attributes...)
	spans := []*tracepb.Span{call}
	for i := range o.Plugins[:min(len(o.Plugins), maxPlugins)] {
		p := &o.Plugins[i]
		s := newSpan(text(p.Type)+" "+text(p.Verb), p.Start, p.Seconds, p.Outcome)
		s.TraceId, s.ParentSpanId, s.SpanId = trace, id, idOf(p)
		s.Flags = sampled | knownParent
		s.Attributes = append(attributes(
			"cni.command", p.Verb,
			"cni.plugin", p.Type,
			"cni.network", p.Network,
			"cni.interface", p.Interface,
		), s.Attributes...)
		spans = append(spans, s)
	}
	return spans
}

// idOf returns the id that a plugin was given for its parent span. One that was given none gets a new one.
func idOf(p *resolve.PluginCall) []byte {
	id, ok := parseID(p.SpanID, 8)
	if !ok {
		id = make([]byte, 8)
		_, _ = rand.Read(id) // never fails
	}
	return id
}

// newSpan returns a span without ids.
func newSpan(name string, start time.Time, seconds float64, outcome string) *tracepb.Span {
	if !(seconds > 0) {
		seconds = 0
	}
	end := start.Add(time.Duration(seconds * float64(time.Second)))
	s := &tracepb.Span{
		Name:              name,
		Kind:              tracepb.Span_SPAN_KIND_INTERNAL,
		StartTimeUnixNano: uint64(max(start.UnixNano(), 0)),
		EndTimeUnixNano:   uint64(max(end.UnixNano(), start.UnixNano(), 0)),
		Attributes:        attributes("cni.outcome", outcome),
	}
	if outcome != resolve.Success {
		s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: "CNI error code " + text(outcome)}
		s.Attributes = append(s.Attributes, attributes("error.type", outcome)...)
	}
	return s
}

// parseTraceParent reads a traceparent of W3C Trace Context, "00-TRACE-SPAN-FLAGS". It is ok if the trace is sampled.
// "If a higher version is detected, the implementation SHOULD try to parse it" as far as it is known.
func parseTraceParent(s string) (trace, span []byte, ok bool) {
	parts := strings.SplitN(s, "-", 5)
	if len(parts) < 4 || len(parts) > 4 && parts[0] == "00" {
		return nil, nil, false
	}
	version, okVersion := unhex(parts[0], 1)
	trace, okTrace := parseID(parts[1], 16)
	span, okSpan := parseID(parts[2], 8)
	flags, okFlags := unhex(parts[3], 1)
	ok = okVersion && okTrace && okSpan && okFlags && version[0] != 0xff && flags[0]&sampled != 0
	return trace, span, ok
}

// parseID reads an id, which is not all zeros.
func parseID(s string, size int) (id []byte, ok bool) {
	id, ok = unhex(s, size)
	return id, ok && !bytes.Equal(id, make([]byte, size))
}

// unhex reads lower case hexadecimal digits.
func unhex(s string, size int) (b []byte, ok bool) {
	b, err := hex.DecodeString(s)
	return b, err == nil && len(b) == size && s == strings.ToLower(s)
}

// attributes of name, value, name, value, ... without those whose values are empty.
func attributes(pairs ...string) (list []*commonpb.KeyValue) {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			value := &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: text(pairs[i+1])}}
			list = append(list, &commonpb.KeyValue{Key: text(pairs[i]), Value: value})
		}
	}
	return list
}

// text makes a string fit for a span: a bad one would cost the whole batch.
func text(s string) string {
	const longest = 512
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "")
	}
	return s
}

// resourceOf says who the spans are from.
func resourceOf(o *Options) (*tracepb.ResourceSpans, error) {
	names := map[string]string{
		"service.name": "braid", "service.version": o.Version, "k8s.node.name": o.Node,
	}
	keys := []string{"service.name", "service.version", "k8s.node.name"}
	for pair := range strings.SplitSeq(o.Getenv("OTEL_RESOURCE_ATTRIBUTES"), ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		key = strings.TrimSpace(key)
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if !ok || key == "" || err != nil {
			return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES has %q: want KEY=VALUE,KEY=VALUE", pair)
		}
		if _, known := names[key]; !known {
			keys = append(keys, key)
		}
		names[key] = value
	}
	if name := o.Getenv("OTEL_SERVICE_NAME"); name != "" {
		names["service.name"] = name
	}
	r := &resourcepb.Resource{}
	for _, key := range keys {
		r.Attributes = append(r.Attributes, attributes(key, names[key])...)
	}
	return &tracepb.ResourceSpans{Resource: r}, nil
}

// request returns what is sent for a batch. The message of OTLP, ExportTraceServiceRequest, has the same fields with the
// same numbers; its package would link gRPC, which is larger than all of the daemon's own code.
func (e *Exporter) request(batch []*tracepb.Span) *tracepb.TracesData {
	return &tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{{
		Resource: e.resource.Resource,
		ScopeSpans: []*tracepb.ScopeSpans{{
			Scope: &commonpb.InstrumentationScope{Name: "github.com/braid-cni/braid"},
			Spans: batch,
		}},
	}}}
}

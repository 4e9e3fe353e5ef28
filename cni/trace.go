package cni

import (
	"context"
	"encoding/hex"
	"math/rand/v2"
	"strings"
)

// A TraceParent places a call in a distributed trace (W3C Trace Context, section 3.2). Runtimes hand it to plugins in
// the environment variable TRACEPARENT, as github.com/containernetworking/cni does since version 1.3.1.
type TraceParent struct {
	TraceID string // 32 hexadecimal digits
	SpanID  string // 16 hexadecimal digits
	Sampled bool   // the caller records this trace
}

// ParseTraceParent reads the value of a traceparent header. It reports false for one that is invalid, which is to be
// ignored.
//
// "traceparent = version "-" version-format; version-format = trace-id "-" parent-id "-" trace-flags", of lower-case
// hexadecimal digits; all zeroes are invalid, and so is version ff; a higher version may have more fields.
func ParseTraceParent(s string) (TraceParent, bool) {
	fields := strings.Split(s, "-")
	if len(fields) < 4 || fields[0] == "00" && len(fields) > 4 || fields[0] == "ff" {
		return TraceParent{}, false
	}
	for i, digits := range []int{2, 32, 16, 2} {
		if len(fields[i]) != digits || strings.Trim(fields[i], "0123456789abcdef") != "" {
			return TraceParent{}, false
		}
	}
	if strings.Trim(fields[1], "0") == "" || strings.Trim(fields[2], "0") == "" {
		return TraceParent{}, false
	}
	flags, err := hex.DecodeString(fields[3])
	return TraceParent{TraceID: fields[1], SpanID: fields[2], Sampled: err == nil && flags[0]&1 == 1}, err == nil
}

// String returns the value of the header.
func (t TraceParent) String() string {
	flags := "00"
	if t.Sampled {
		flags = "01"
	}
	return "00-" + t.TraceID + "-" + t.SpanID + "-" + flags
}

// Child returns the same trace with a span of its own.
func (t TraceParent) Child() TraceParent {
	var id [8]byte
	for n, i := rand.Uint64()|1, 0; i < len(id); i++ { // never all zeroes
		id[i] = byte(n >> (8 * i))
	}
	t.SpanID = hex.EncodeToString(id[:])
	return t
}

type traceKey struct{}

// WithTraceParent returns a context whose calls belong to a span. [Exec] hands it to the binary.
func WithTraceParent(ctx context.Context, t TraceParent) context.Context {
	return context.WithValue(ctx, traceKey{}, t)
}

// TraceParentOf returns the span that a context belongs to, if there is one.
func TraceParentOf(ctx context.Context) (TraceParent, bool) {
	t, ok := ctx.Value(traceKey{}).(TraceParent)
	return t, ok
}

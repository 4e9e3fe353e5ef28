package tracing

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/braid-cni/braid/resolve"
)

const (
	traceID  = "4bf92f3577b34da6a3ce929d0e0e4736"
	parentID = "00f067aa0ba902b7"
	parent   = "00-" + traceID + "-" + parentID + "-01"
)

// A collector takes spans by OTLP over HTTP.
type collector struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	data     []*tracepb.TracesData
	answer   func(n int, w http.ResponseWriter) // of request n, from 1; nil is success
}

func newCollector(t *testing.T, start func(*httptest.Server)) *collector {
	c := &collector{}
	c.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body := io.Reader(req.Body)
		if req.Header.Get("Content-Encoding") == "gzip" {
			z, err := gzip.NewReader(req.Body)
			if err != nil {
				t.Errorf("gzip: %v", err)
				return
			}
			body = z
		}
		b, err := io.ReadAll(body)
		var data tracepb.TracesData
		if err == nil {
			err = proto.UnmarshalOptions{DiscardUnknown: false}.Unmarshal(b, &data)
		}
		if err != nil || len(data.ProtoReflect().GetUnknown()) > 0 {
			t.Errorf("not OTLP: %v", err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.requests, c.data = append(c.requests, req), append(c.data, &data)
		if c.answer != nil {
			c.answer(len(c.requests), w)
		}
	}))
	start(c.Server)
	t.Cleanup(c.Close)
	return c
}

func (c *collector) spans() (spans []*tracepb.Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.data {
		for _, r := range d.ResourceSpans {
			for _, s := range r.ScopeSpans {
				spans = append(spans, s.Spans...)
			}
		}
	}
	return spans
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.requests)
}

func env(pairs ...string) func(string) string {
	return func(key string) string {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == key {
				return pairs[i+1]
			}
		}
		return ""
	}
}

// start runs an exporter until stop is called, which returns when all is exported.
func start(t *testing.T, o Options) (e *Exporter, stop func()) {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if e == nil {
		t.Fatal("no exporter")
	}
	e.client.pause = time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { e.Run(ctx) })
	stop = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(stop)
	return e, stop
}

var begin = time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC)

// observation is what an ADD with two plugins tells, one of which failed.
func observation() *resolve.Observation {
	return &resolve.Observation{
		Pod:  resolve.Pod{Namespace: "default", Name: "web", UID: "6f1c"},
		Verb: "ADD", Outcome: "11", Start: begin, Seconds: 0.25, TraceParent: parent, SpanID: "00000000000000a1",
		Plugins: []resolve.PluginCall{
			{Type: "bridge", Network: "pods", Interface: "eth0", Verb: "ADD", Outcome: resolve.Success,
				Start: begin.Add(10 * time.Millisecond), Seconds: 0.02, SpanID: "00000000000000b1"},
			{Type: "macvlan", Network: "default/lan", Interface: "net1", Verb: "ADD", Outcome: "11",
				Start: begin.Add(40 * time.Millisecond), Seconds: 0.2},
		},
	}
}

// A span as a test compares it.
type span struct {
	Name, Trace, ID, Parent string
	Start, End              time.Time
	Flags                   uint32
	Attributes              map[string]string
	Error                   string
}

func flat(s *tracepb.Span) span {
	f := span{
		s.Name, hex.EncodeToString(s.TraceId), hex.EncodeToString(s.SpanId), hex.EncodeToString(s.ParentSpanId),
		time.Unix(0, int64(s.StartTimeUnixNano)).UTC(), time.Unix(0, int64(s.EndTimeUnixNano)).UTC(), s.Flags, map[string]string{}, "",
	}
	for _, a := range s.Attributes {
		f.Attributes[a.Key] = a.Value.GetStringValue()
	}
	if s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
		f.Error = s.Status.Message
	}
	return f
}

func TestExport(t *testing.T) {
	c := newCollector(t, (*httptest.Server).Start)
	e, stop := start(t, Options{Endpoint: c.URL, Version: "v1.2.3", Node: "node-1", Getenv: env(
		"OTEL_EXPORTER_OTLP_HEADERS", "Authorization=Bearer%20secret, x-tenant = 7",
		"OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip",
		"OTEL_RESOURCE_ATTRIBUTES", "k8s.cluster.name=lab%201,service.version=v2",
		"OTEL_SERVICE_NAME", "networks",
	)})
	e.Observe(observation())
	untraced := observation()
	untraced.TraceParent, untraced.SpanID = "", ""
	e.Observe(untraced)
	stop()

	var got []span
	for _, s := range c.spans() {
		got = append(got, flat(s))
	}
	if len(got) != 3 {
		t.Fatalf("%d spans, want 3: %v", len(got), got)
	}
	made := got[2].ID
	want := []span{{
		"CNI ADD", traceID, "00000000000000a1", parentID, begin, begin.Add(250 * time.Millisecond), 0x301, map[string]string{
			"cni.command": "ADD", "k8s.namespace.name": "default", "k8s.pod.name": "web", "k8s.pod.uid": "6f1c",
			"cni.outcome": "11", "error.type": "11",
		}, "CNI error code 11",
	}, {
		"bridge ADD", traceID, "00000000000000b1", "00000000000000a1", begin.Add(10 * time.Millisecond), begin.Add(30 * time.Millisecond),
		0x101, map[string]string{
			"cni.command": "ADD", "cni.plugin": "bridge", "cni.network": "pods", "cni.interface": "eth0", "cni.outcome": "success",
		}, "",
	}, {
		"macvlan ADD", traceID, made, "00000000000000a1", begin.Add(40 * time.Millisecond), begin.Add(240 * time.Millisecond),
		0x101, map[string]string{
			"cni.command": "ADD", "cni.plugin": "macvlan", "cni.network": "default/lan", "cni.interface": "net1",
			"cni.outcome": "11", "error.type": "11",
		}, "CNI error code 11",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if len(made) != 16 || made == strings.Repeat("0", 16) {
		t.Errorf("the span of a plugin that was given no id has %q", made)
	}
	req := c.requests[0]
	for key, want := range map[string]string{
		"Content-Type": "application/x-protobuf", "Content-Encoding": "gzip", "Authorization": "Bearer secret", "X-Tenant": "7",
	} {
		if got := req.Header.Get(key); got != want {
			t.Errorf("header %s is %q, want %q", key, got, want)
		}
	}
	if req.Method != http.MethodPost || req.URL.Path != "/v1/traces" {
		t.Errorf("%s %s", req.Method, req.URL.Path)
	}
	resource := map[string]string{}
	for _, a := range c.data[0].ResourceSpans[0].Resource.Attributes {
		resource[a.Key] = a.Value.GetStringValue()
	}
	wantResource := map[string]string{
		"service.name": "networks", "service.version": "v2", "k8s.node.name": "node-1", "k8s.cluster.name": "lab 1",
	}
	if diff := cmp.Diff(wantResource, resource); diff != "" {
		t.Errorf("resource, -want +got:\n%s", diff)
	}
	if e.Exported() != 3 || e.Dropped() != 0 {
		t.Errorf("exported %v, dropped %v", e.Exported(), e.Dropped())
	}
}

// A collector that is busy gets the spans again; one that refuses them does not; what it rejects is counted.
func TestCollectorFails(t *testing.T) {
	status := func(codes ...int) func(int, http.ResponseWriter) {
		return func(n int, w http.ResponseWriter) {
			if n <= len(codes) {
				w.WriteHeader(codes[n-1])
			}
		}
	}
	partial := func(_ int, w http.ResponseWriter) { // ExportTracePartialSuccess{rejected_spans: 2, error_message: "full"}
		message := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), "full")
		message = protowire.AppendVarint(protowire.AppendTag(message, 1, protowire.VarintType), 2)
		_, _ = w.Write(protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), message))
	}
	for name, c := range map[string]struct {
		answer            func(int, http.ResponseWriter)
		requests          int
		exported, dropped float64
	}{
		"busy":     {status(503, 429, 502, 504), 5, 3, 0},
		"refused":  {status(400), 1, 0, 3},
		"redirect": {status(307), 1, 0, 3},
		"partial":  {partial, 1, 1, 2},
		"no OTLP":  {func(_ int, w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>\xff") }, 1, 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			collector := newCollector(t, (*httptest.Server).Start)
			collector.answer = c.answer
			e, stop := start(t, Options{Endpoint: collector.URL})
			e.Observe(observation())
			stop()
			if got := collector.count(); got != c.requests || e.Exported() != c.exported || e.Dropped() != c.dropped {
				t.Errorf("%d requests, exported %v, dropped %v; want %d, %v, %v", got, e.Exported(), e.Dropped(), c.requests, c.exported, c.dropped)
			}
		})
	}
}

// Nothing waits for a collector that does not answer, and what the queue has no room for is counted.
func TestSlowCollector(t *testing.T) {
	release := make(chan struct{})
	c := newCollector(t, (*httptest.Server).Start)
	c.answer = func(int, http.ResponseWriter) { <-release }
	e, stop := start(t, Options{Endpoint: c.URL})
	const calls = 3 * maxQueued
	for range calls { // returns, although nothing is taken out of the queue
		e.Observe(observation())
	}
	if e.Dropped() == 0 {
		t.Error("nothing is dropped")
	}
	close(release)
	stop()
	if total := e.Exported() + e.Dropped(); total != 3*calls {
		t.Errorf("exported %v, dropped %v, of %d", e.Exported(), e.Dropped(), 3*calls)
	}
	for _, d := range c.data {
		if n := len(d.ResourceSpans[0].ScopeSpans[0].Spans); n > maxBatch+maxPlugins {
			t.Errorf("a batch of %d spans", n)
		}
	}
}

func TestNoCollector(t *testing.T) {
	for name, getenv := range map[string]func(string) string{
		"nothing":  nil,
		"disabled": env("OTEL_SDK_DISABLED", "true", "OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318"),
	} {
		e, err := New(Options{Getenv: getenv})
		if e != nil || err != nil {
			t.Fatalf("%s: %v, %v", name, e, err)
		}
		e.Observe(observation())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		e.Run(ctx)
		if e.Exported()+e.Dropped() != 0 {
			t.Errorf("%s: counts spans", name)
		}
	}
}

func TestEndpoint(t *testing.T) {
	for _, c := range []struct {
		endpoint, key, value, want string
	}{
		{"http://c:4318", "", "", "http://c:4318/v1/traces"},
		{"https://c/otlp/v1/traces", "", "", "https://c/otlp/v1/traces"},
		{"http://c:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://d", "http://c:4318/v1/traces"},
		{"", "OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318", "http://c:4318/v1/traces"},
		{"", "OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/base/", "http://c:4318/base/v1/traces"},
		{"", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318/traces", "http://c:4318/traces"},
		{"", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:4318", "http://c:4318/"},
	} {
		got, err := endpointOf(c.endpoint, env(c.key, c.value))
		if err != nil || got != c.want {
			t.Errorf("%q, %s=%q: %q, %v; want %q", c.endpoint, c.key, c.value, got, err, c.want)
		}
	}
}

func TestConfigurationErrors(t *testing.T) {
	noPEM := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(noPEM, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ endpoint, key, value, want string }{
		{"c:4318", "", "", "want a URL like"},
		{"ftp://c", "", "", "want a URL like"},
		{"http://c", "OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", `OTEL_EXPORTER_OTLP_PROTOCOL is "grpc": want http/protobuf`},
		{"http://c", "OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "want milliseconds"},
		{"http://c", "OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "want gzip or none"},
		{"http://c", "OTEL_EXPORTER_OTLP_HEADERS", "secret", "OTEL_EXPORTER_OTLP_HEADERS: want NAME=VALUE"},
		{"http://c", "OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file", "/no/such/file"},
		{"http://c", "OTEL_EXPORTER_OTLP_CERTIFICATE", noPEM, "want a file with certificates"},
		{"http://c", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", noPEM, "client certificate"},
		{"http://c", "OTEL_RESOURCE_ATTRIBUTES", "cluster", "OTEL_RESOURCE_ATTRIBUTES"},
	} {
		e, err := New(Options{Endpoint: c.endpoint, Getenv: env(c.key, c.value)})
		if e != nil || err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s %s=%s: %v; want %q", c.endpoint, c.key, c.value, err, c.want)
		}
	}
}

// The certificate of the collector is checked against the one that is configured.
func TestTLS(t *testing.T) {
	c := newCollector(t, (*httptest.Server).StartTLS)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	b := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw})
	if err := os.WriteFile(ca, b, 0o600); err != nil {
		t.Fatal(err)
	}
	trusting, stop := start(t, Options{Endpoint: c.URL, Getenv: env("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", ca)})
	trusting.Observe(observation())
	stop()
	if trusting.Exported() != 3 {
		t.Errorf("exported %v with the certificate", trusting.Exported())
	}
	c.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	other, err := New(Options{Endpoint: c.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.client.send(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without the certificate: %v", err)
	}
}

func TestTraceParent(t *testing.T) {
	zeros := strings.Repeat("0", 32)
	for s, want := range map[string]bool{
		parent:                                                    true,
		"00-" + traceID + "-" + parentID + "-00":                  false, // not sampled
		"00-" + traceID + "-" + parentID + "-03":                  true,
		"01-" + traceID + "-" + parentID + "-01-more":             true, // a later version
		"00-" + traceID + "-" + parentID + "-01-more":             false,
		"ff-" + traceID + "-" + parentID + "-01":                  false,
		"00-" + zeros + "-" + parentID + "-01":                    false,
		"00-" + traceID + "-" + zeros[:16] + "-01":                false,
		"00-" + strings.ToUpper(traceID) + "-" + parentID + "-01": false,
		"00-" + traceID[1:] + "-" + parentID + "-01":              false,
		"":     false,
		"-":    false,
		"----": false,
	} {
		if _, _, ok := parseTraceParent(s); ok != want {
			t.Errorf("%q is %v, want %v", s, ok, want)
		}
	}
}

// Whatever an observation has, the batch can be encoded.
func TestHostileObservation(t *testing.T) {
	bad := strings.Repeat("\xff\x00", 5000)
	o := observation()
	o.Verb, o.Pod, o.Outcome, o.Seconds, o.Start = bad, resolve.Pod{Namespace: bad, Name: bad, UID: bad}, bad, -1e300, time.Time{}
	for i := range 1000 {
		o.Plugins = append(o.Plugins, resolve.PluginCall{Type: bad, Network: bad, Interface: bad, Verb: bad, SpanID: bad, Seconds: 1e300, Start: time.Unix(int64(i)<<50, 0)})
	}
	spans := spansOf(o)
	if len(spans) != spanCount(o) || len(spans) != 1+maxPlugins {
		t.Errorf("%d spans", len(spans))
	}
	for _, s := range spans {
		if s.EndTimeUnixNano < s.StartTimeUnixNano || len(s.SpanId) != 8 {
			t.Errorf("span %v", s)
		}
	}
	b, err := proto.Marshal((&Exporter{resource: &tracepb.ResourceSpans{}}).request(spans))
	if err != nil || len(b) > 1<<20 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	for _, o := range []*resolve.Observation{{TraceParent: bad, SpanID: "00000000000000a1"}, {TraceParent: parent, SpanID: bad}} {
		if spans := spansOf(o); spans != nil {
			t.Errorf("spans without ids: %v", spans)
		}
	}
}

func FuzzRejectedBy(f *testing.F) {
	f.Add([]byte{10, 2, 8, 2})
	f.Fuzz(func(t *testing.T, answer []byte) {
		if n := rejectedBy(answer); n < 0 {
			t.Error(fmt.Sprint(n))
		}
	})
}

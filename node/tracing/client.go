package tracing

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// A client sends spans by OTLP over HTTP: https://opentelemetry.io/docs/specs/otlp/#otlphttp
type client struct {
	url     string
	header  http.Header
	gzip    bool
	timeout time.Duration // of one attempt
	http    http.Client

	patience, pause time.Duration // how long a batch is tried, and the first pause
}

// environment reads the variables of the OTLP exporter, those for traces before those for all signals.
type environment func(string) string

func (env environment) get(name string) (key, value string) {
	for _, key := range []string{"OTEL_EXPORTER_OTLP_TRACES_" + name, "OTEL_EXPORTER_OTLP_" + name} {
		if value := strings.TrimSpace(env(key)); value != "" {
			return key, value
		}
	}
	return "", ""
}

// newClient returns nil if no collector is configured.
func newClient(endpoint string, env environment) (*client, error) {
	if strings.EqualFold(env("OTEL_SDK_DISABLED"), "true") {
		return nil, nil
	}
	target, err := endpointOf(endpoint, env)
	if target == "" || err != nil {
		return nil, err
	}
	c := &client{url: target, header: http.Header{}, timeout: 10 * time.Second, patience: 30 * time.Second, pause: time.Second}
	if key, value := env.get("PROTOCOL"); value != "" && value != "http/protobuf" {
		return nil, fmt.Errorf("%s is %q: want http/protobuf, the only protocol there is", key, value)
	}
	if key, value := env.get("TIMEOUT"); value != "" {
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%s is %q: want milliseconds", key, value)
		}
		c.timeout = time.Duration(n) * time.Millisecond
	}
	switch key, value := env.get("COMPRESSION"); value {
	case "", "none":
	case "gzip":
		c.gzip = true
	default:
		return nil, fmt.Errorf("%s is %q: want gzip or none", key, value)
	}
	if err := c.readHeaders(env); err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConns, transport.MaxConnsPerHost = 1, 1
	if transport.TLSClientConfig, err = tlsConfig(env); err != nil {
		return nil, err
	}
	c.http.Transport = transport
	// The headers may be secrets: they go to nobody else.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// endpointOf returns the URL to send to; empty if there is none.
func endpointOf(endpoint string, env environment) (string, error) {
	key, whole := "OTLP endpoint", false
	if endpoint == "" {
		if key, endpoint = env.get("ENDPOINT"); endpoint == "" {
			return "", nil
		}
		whole = strings.Contains(key, "TRACES") // that of all signals is a base
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return "", fmt.Errorf("%s is %q: want a URL like http://collector.example:4318", key, endpoint)
	}
	switch base := strings.TrimSuffix(u.Path, "/"); {
	case whole && u.Path == "":
		u.Path = "/"
	case !whole && (base == "" || key != "OTLP endpoint"):
		u.Path = base + "/v1/traces"
	}
	return u.String(), nil
}

func (c *client) readHeaders(env environment) error {
	key, value := env.get("HEADERS")
	for pair := range strings.SplitSeq(value, ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if name = strings.TrimSpace(name); !ok || name == "" || err != nil {
			return fmt.Errorf("%s: want NAME=VALUE,NAME=VALUE", key) // without what was found: it may be a secret
		}
		c.header.Set(name, value)
	}
	c.header.Set("Content-Type", "application/x-protobuf")
	c.header.Set("User-Agent", "braidd")
	if c.gzip {
		c.header.Set("Content-Encoding", "gzip")
	}
	return nil
}

func tlsConfig(env environment) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if key, path := env.get("CERTIFICATE"); path != "" {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("%s is %s: want a file with certificates as PEM", key, path)
		}
	}
	_, cert := env.get("CLIENT_CERTIFICATE")
	key, private := env.get("CLIENT_KEY")
	if cert != "" || private != "" {
		c, err := tls.LoadX509KeyPair(cert, private)
		if err != nil {
			return nil, fmt.Errorf("client certificate %q, key %q of %s: %w", cert, private, key, err)
		}
		config.Certificates = []tls.Certificate{c}
	}
	return config, nil
}

// A busyError says that the collector can not take spans now.
type busyError struct {
	err   error
	after time.Duration // to wait, if the collector said so
}

func (e *busyError) Error() string { return e.err.Error() }

// upload sends spans, again as long as the collector is busy or not to be reached and there is time. It returns how many of
// them the collector rejected.
func (c *client) upload(ctx context.Context, data *tracepb.TracesData) (rejected int, err error) {
	body, err := c.encode(data)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.patience)
	defer cancel()
	for pause := c.pause; ; pause *= 2 {
		rejected, err = c.send(ctx, body)
		busy, again := errors.AsType[*busyError](err)
		if !again {
			return rejected, err
		}
		select {
		case <-time.After(max(pause, busy.after)):
		case <-ctx.Done():
			return 0, err
		}
	}
}

func (c *client) encode(data *tracepb.TracesData) ([]byte, error) {
	b, err := proto.Marshal(data)
	if err != nil || !c.gzip {
		return b, err
	}
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, err = w.Write(b)
	err = errors.Join(err, w.Close())
	return packed.Bytes(), err
}

// send tries once.
func (c *client) send(ctx context.Context, body []byte) (rejected int, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header = c.header.Clone()
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, &busyError{err: err}
	}
	defer resp.Body.Close()
	const longest = 64 << 10
	answer, err := io.ReadAll(io.LimitReader(resp.Body, longest))
	switch {
	case resp.StatusCode/100 == 2:
		return rejectedBy(answer), nil
	case resp.StatusCode == 429 || resp.StatusCode >= 502 && resp.StatusCode <= 504:
		after, _ := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16)
		return 0, &busyError{fmt.Errorf("the collector answers %s", resp.Status), time.Duration(after) * time.Second}
	default:
		return 0, errors.Join(fmt.Errorf("the collector answers %s: %.200q", resp.Status, answer), err)
	}
}

// rejectedBy reads the partial success of an ExportTraceServiceResponse: field 1, of which field 1 is the number of spans
// that were rejected. An answer that is none rejects nothing.
func rejectedBy(answer []byte) int {
	field := func(message []byte, want protowire.Type) (value []byte) {
		for len(message) > 0 {
			number, kind, tag := protowire.ConsumeTag(message)
			if tag < 0 {
				return nil
			}
			size := protowire.ConsumeFieldValue(number, kind, message[tag:])
			if size < 0 {
				return nil
			}
			if number == 1 && kind == want {
				return message[tag : tag+size]
			}
			message = message[tag+size:]
		}
		return nil
	}
	partial, _ := protowire.ConsumeBytes(field(answer, protowire.BytesType))
	n, size := protowire.ConsumeVarint(field(partial, protowire.VarintType))
	if size < 0 || int64(n) < 0 {
		return 0
	}
	return int(min(n, 1<<30))
}

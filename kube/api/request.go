package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/braid-cni/braid/internal/buildinfo"
)

const (
	coreV1   = "/api/v1"
	networks = "/apis/k8s.cni.cncf.io/v1"

	jsonOnly = "application/json"
	// The metadata alone, which API servers have offered since 1.15. A whole object has it too.
	metadataOnly = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"

	strategicPatch = "application/strategic-merge-patch+json"
)

// maxAnswer is in bytes; an object of an API server has some three million at most.
const maxAnswer = 16 << 20

// maxHeader is in bytes, of which that of an answer has some hundred.
const maxHeader = 256 << 10

// A Server is an API server and how it is reached.
type Server struct {
	URL  *url.URL
	HTTP *http.Client // adds the credentials

	Credentials string // where they come from, for messages: "kubeconfig FILE"
	Rereads     bool   // the credentials may be others in a moment

	// What Login has found.
	dialer    *dialer
	authority []byte // certificates; nil for those of the system

	left *atomic.Int64 // bytes of answers; nil is no limit
}

// Close ends the connections of a server that [Login] has found, and those that are being made. No request may be at work.
func (s *Server) Close() {
	s.dialer.close()
	s.HTTP.CloseIdleConnections()
}

// LimitAnswers limits the bytes that all answers of the server may have together, apart from the limit for each. It is for
// a process that has to be done with them soon, and to be called before the first request.
func (s *Server) LimitAnswers(most int64) {
	s.left = new(atomic.Int64)
	s.left.Store(most)
}

// A limited reader reads what all are still allowed.
type limited struct {
	io.Reader
	left *atomic.Int64
}

func (l limited) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if l.left.Add(-int64(n)) < 0 {
		return 0, invalid("the answers of the API server are too large, all together")
	}
	return n, err
}

// A request is sent to an API server.
type request struct {
	method                      string
	group                       string // coreV1 or networks
	namespace                   string // empty for what is in none
	resource, name, subresource string
	fromMemory                  bool   // what the server has in memory will do, however old
	accept                      string // empty stands for jsonOnly
	contentType                 string // of body
	body                        []byte
	limit                       Limiter
}

// A Limiter keeps requests waiting.
type Limiter interface {
	Wait(ctx context.Context) error
}

// UserAgent is what an API server has in its logs.
func UserAgent() string { return "braidd/" + buildinfo.Version }

// do sends a request once, and decodes the answer. Its errors are a *StatusError, an *resolve.Error where trying again is
// of no use, and any other where there was no answer.
func (s *Server) do(ctx context.Context, r *request, into any) error {
	address, err := s.address(r)
	if err != nil {
		return err
	}
	if r.limit != nil {
		if err := r.limit.Wait(ctx); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, r.method, address, bytes.NewReader(r.body))
	if err != nil {
		return invalid("%v", err)
	}
	req.Header.Set("User-Agent", UserAgent())
	req.Header.Set("Accept", jsonOnly)
	if r.accept != "" {
		req.Header.Set("Accept", r.accept)
	}
	if r.contentType != "" {
		req.Header.Set("Content-Type", r.contentType)
	}
	resp, err := s.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := io.LimitReader(resp.Body, maxAnswer)
	if s.left != nil {
		answer = limited{answer, s.left}
	}
	body, err := io.ReadAll(answer)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return statusOf(resp, body)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return invalid("decode answer: %v", err)
	}
	return nil
}

// address is the URL of a request. Names come from annotations: one that were more than a name would lead elsewhere.
func (s *Server) address(r *request) (string, error) {
	path := []string{r.group}
	if r.namespace != "" {
		path = append(path, "namespaces", r.namespace)
	}
	path = append(path, r.resource)
	if r.name != "" {
		path = append(path, r.name)
	}
	if r.subresource != "" {
		path = append(path, r.subresource)
	}
	for _, segment := range path[1:] {
		if segment == "." || segment == ".." || strings.ContainsAny(segment, "/%") {
			return "", invalid(`invalid name %q: it must not be "." or "..", nor contain "/" or "%%"`, segment)
		}
	}
	u := s.URL.JoinPath(path...)
	if r.fromMemory {
		u.RawQuery = "resourceVersion=0"
	}
	return u.String(), nil
}

// A StatusError is an answer of an API server, or of what stands in its place, that is no success.
type StatusError struct {
	Code    int    // of HTTP
	Reason  string // as "AlreadyExists"; may be empty
	Message string
	Delay   time.Duration // to wait before another try; 0 if the answer does not say
	// Foreign says that the answer is no Status of Kubernetes: of a proxy, or of an API server that has no such resource.
	Foreign bool
}

func (e *StatusError) Error() string { return e.Message }

func statusOf(resp *http.Response, body []byte) *StatusError {
	var status struct {
		Kind, Message, Reason string
		Details               struct{ RetryAfterSeconds int }
	}
	e := &StatusError{Code: resp.StatusCode}
	if json.Unmarshal(body, &status) == nil && status.Kind == "Status" {
		e.Reason, e.Message = status.Reason, status.Message
	} else {
		e.Foreign, e.Message = true, fmt.Sprintf("found %.200q", bytes.TrimSpace(body))
	}
	if e.Foreign || e.Message == "" {
		e.Message = strings.TrimSpace("the server answers " + resp.Status + " " + e.Message)
	}
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	e.Delay = time.Duration(max(seconds, status.Details.RetryAfterSeconds, 0)) * time.Second
	return e
}

// hasCode tells if an API server has answered with a code.
func hasCode(err error, code int) bool {
	e, ok := errors.AsType[*StatusError](err)
	return ok && e.Code == code
}

func isNotFound(err error) bool { return hasCode(err, http.StatusNotFound) }

// isUnknownPath tells an API server that does not have the resource from one that does not have the object: only the
// latter answers with a Status.
func isUnknownPath(err error) bool {
	e, ok := errors.AsType[*StatusError](err)
	return ok && e.Code == http.StatusNotFound && e.Foreign
}

func alreadyExists(err error) bool {
	e, ok := errors.AsType[*StatusError](err)
	return ok && e.Code == http.StatusConflict && e.Reason == "AlreadyExists"
}

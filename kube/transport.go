package kube

import (
	"net/http"
	"strings"
	"time"
)

// A Request is one that was sent to the API server.
type Request struct {
	Verb     string // as RBAC has it: get, list, watch, create, patch
	Resource string // as RBAC has it: pods, pods/status, events, network-attachment-definitions
	Code     int    // of the answer; 0 if there was none
	Took     time.Duration
}

// A transport is a function that is a http.RoundTripper.
type transport func(*http.Request) (*http.Response, error)

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// observed hands every request to observe.
func observed(observe func(Request)) func(http.RoundTripper) http.RoundTripper {
	return func(next http.RoundTripper) http.RoundTripper {
		return transport(func(r *http.Request) (*http.Response, error) {
			start := time.Now()
			resp, err := next.RoundTrip(r)
			request := describe(r)
			request.Took = time.Since(start)
			if err == nil {
				request.Code = resp.StatusCode
			}
			observe(request)
			return resp, err
		})
	}
}

// describe puts a request in the words of RBAC. Paths are /api/v1 or /apis/GROUP/VERSION, then namespaces/NAMESPACE
// unless all namespaces are meant, then RESOURCE, NAME and SUBRESOURCE.
func describe(r *http.Request) Request {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if parts[0] == "apis" {
		parts = parts[1:]
	}
	parts = parts[min(2, len(parts)):]
	if len(parts) > 2 && parts[0] == "namespaces" {
		parts = parts[2:]
	}
	request := Request{Verb: "get"}
	if len(parts) > 0 {
		request.Resource = parts[0]
	}
	if len(parts) > 2 {
		request.Resource += "/" + parts[2]
	}
	switch {
	case r.Method == http.MethodPost:
		request.Verb = "create"
	case r.Method != http.MethodGet:
		request.Verb = strings.ToLower(r.Method)
	case r.URL.Query().Has("watch"):
		request.Verb = "watch"
	case len(parts) < 2:
		request.Verb = "list"
	}
	return request
}

package metrics

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	apiVerbs     = []string{"get", "list", "watch", "create", "update", "patch", "delete"}
	apiResources = []string{
		"pods", "pods/status", "network-attachment-definitions", "events", "nodes", "serviceaccounts/token",
	}
)

// NoAnswer is the code of an API request that got none.
const NoAnswer = "none"

func (m *Metrics) makeAPI() {
	m.apiRequests = m.counters("braid_api_requests_total", "Requests to the API server.", "verb", "resource", "code")
	m.apiDuration = m.histograms("braid_api_request_duration_seconds", "Time until the API server began to answer.", apiBuckets, "verb", "resource")
}

// APIRequest counts a request to the API server: its Kubernetes verb, its resource with a subresource ("pods/status"), the
// HTTP status code of the answer or [NoAnswer], and the time that the answer took to begin.
func (m *Metrics) APIRequest(verb, resource, code string, d time.Duration) {
	verb, resource = oneOf(apiVerbs, verb), oneOf(apiResources, resource)
	if n, err := strconv.Atoi(code); code != NoAnswer && (err != nil || http.StatusText(n) == "") {
		code = other
	}
	m.apiRequests.WithLabelValues(verb, resource, code).Inc()
	m.apiDuration.WithLabelValues(verb, resource).Observe(seconds(d.Seconds()))
}

// Transport counts the requests that go through a transport: for the Wrap method of a client's rest.Config.
func (m *Metrics) Transport(next http.RoundTripper) http.RoundTripper { return &transport{m, next} }

type transport struct {
	metrics *Metrics
	next    http.RoundTripper
}

// RoundTrip implements [http.RoundTripper].
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	start := time.Now()
	resp, err := t.next.RoundTrip(req)
	code := NoAnswer
	if err == nil {
		code = strconv.Itoa(resp.StatusCode)
	}
	verb, resource := apiRequest(req)
	t.metrics.APIRequest(verb, resource, code, time.Since(start))
	return resp, err
}

// WrappedRoundTripper lets client-go find the transport below.
func (t *transport) WrappedRoundTripper() http.RoundTripper { return t.next }

// apiRequest reads verb and resource of a request to the API server: /api/v1/namespaces/default/pods/web/status. They are
// empty for what is no resource, like /version.
func apiRequest(req *http.Request) (verb, resource string) {
	parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	switch {
	case len(parts) >= 3 && parts[0] == "api": // and the version
		parts = parts[2:]
	case len(parts) >= 4 && parts[0] == "apis": // and group and version
		parts = parts[3:]
	default:
		return "", ""
	}
	if parts[0] == "namespaces" && len(parts) >= 3 {
		parts = parts[2:]
	}
	resource = parts[0]
	if len(parts) >= 3 {
		resource += "/" + parts[2]
	}
	switch req.Method {
	case http.MethodGet:
		return readVerb(req, len(parts) > 1), resource
	case http.MethodPost:
		return "create", resource
	case http.MethodPut:
		return "update", resource
	default:
		return strings.ToLower(req.Method), resource
	}
}

func readVerb(req *http.Request, named bool) string {
	switch watch := req.URL.Query().Get("watch"); {
	case named:
		return "get"
	case watch == "true" || watch == "1":
		return "watch"
	default:
		return "list"
	}
}

// Informer asks about the daemon's copy of a resource, as "pods": how many objects it has, and whether it has had all of
// them once.
func (m *Metrics) Informer(resource string, objects func() float64, synced func() bool) {
	labels := prometheus.Labels{"resource": resource}
	m.gauge("braid_informer_objects", "Objects that the daemon has a copy of.", labels, objects)
	m.gauge("braid_informer_synced", "Whether the daemon has heard of all of these objects: 1 if it has.", labels, oneIf(synced))
}

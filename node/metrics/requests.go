package metrics

import (
	"errors"
	"time"

	"github.com/braid-cni/braid/resolve"
)

// Where the answer to a resolve request came from.
const (
	Cache = "cache" // what the daemon watches, alone
	Live  = "live"  // the API server was asked
)

func (m *Metrics) makeResolves() {
	m.resolves = m.counters("braid_resolve_requests_total", "Requests for a pod and its networks.", "source", "outcome", "reason")
	m.resolveDuration = m.histograms("braid_resolve_duration_seconds", "How long requests for a pod and its networks took.",
		resolveBuckets, "source")
	m.mismatches = m.counter("braid_annotation_mismatches_total",
		"Pods whose annotations, as the runtime handed them over, were not those that the API server has.")
	m.refused = m.counter("braid_socket_refused_total", "Connections to the socket that were refused: the process at the other end was not root's.")
	for _, source := range []string{Cache, Live} {
		m.resolves.WithLabelValues(source, success, "")
		m.resolveDuration.WithLabelValues(source)
	}
}

// Resolved counts a resolve request. Source is [Cache] or [Live]; err is nil or the *resolve.Error that it was answered
// with.
func (m *Metrics) Resolved(source string, err error, d time.Duration) {
	source = oneOf([]string{Cache, Live}, source)
	m.resolves.WithLabelValues(source, outcome(err != nil), reasonOf(err)).Inc()
	m.resolveDuration.WithLabelValues(source).Observe(seconds(d.Seconds()))
}

func reasonOf(err error) string {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*resolve.Error](err); ok {
		return oneOf([]string{resolve.NotFound, resolve.Unavailable, resolve.Invalid}, e.Reason)
	}
	return other
}

// AnnotationMismatch counts a pod whose annotations the runtime and the API server have different ones of.
func (m *Metrics) AnnotationMismatch() { m.mismatches.Inc() }

// Connections asks how many connections to the socket are open.
func (m *Metrics) Connections(open func() float64) {
	m.gauge("braid_socket_connections", "Connections to the socket that are open.", nil, open)
}

// Refused counts a connection to the socket that was refused, because the process at the other end is not root's.
func (m *Metrics) Refused() { m.refused.Inc() }

func (m *Metrics) makeReports() {
	m.reportAttempts = m.counters("braid_report_attempts_total", "Attempts to write the network-status of a pod.", "outcome")
	m.reportDelay = m.histogram("braid_report_delay_seconds", "Time from the end of an ADD until the network-status of its pod was written.", delayBuckets)
	for _, out := range []string{success, failure} {
		m.reportAttempts.WithLabelValues(out)
	}
}

// Reports asks how many reports are still to be written, and how many seconds ago the oldest of them was queued (0 if
// there is none).
func (m *Metrics) Reports(pending, oldest func() float64) {
	m.gauge("braid_reports_pending", "Reports of ADDs that are still to be written.", nil, pending)
	m.gauge("braid_report_oldest_pending_seconds", "Age of the oldest report that is still to be written; 0 if there is none.", nil, oldest)
}

// ReportTried counts an attempt to write a report. One that failed is tried again.
func (m *Metrics) ReportTried(failed bool) { m.reportAttempts.WithLabelValues(outcome(failed)).Inc() }

// ReportWritten notes how long it took from the end of the ADD until its report was written.
func (m *Metrics) ReportWritten(delay time.Duration) { m.reportDelay.Observe(seconds(delay.Seconds())) }

// Package metrics counts what the node daemon does, for Prometheus. docs/monitoring.md lists every metric.
//
// The other parts of the daemon call its methods, none of which blocks, and know nothing of Prometheus. What is a state
// and no event is asked for while metrics are collected: a function that is handed over must be cheap and safe for
// concurrent use, and is handed over once.
//
// The number of time series has a bound, whatever tenants write: every value of a label is one of a fixed set, or takes
// one of a bounded number of places. See labels.go.
package metrics

import (
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are those of one daemon. They are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry

	calls           *prometheus.CounterVec
	callDuration    *prometheus.HistogramVec
	workerCalls     *prometheus.CounterVec
	plugins         pluginTypes
	pluginCalls     *prometheus.CounterVec
	pluginDuration  *prometheus.HistogramVec
	resolves        *prometheus.CounterVec
	resolveDuration *prometheus.HistogramVec
	mismatches      prometheus.Counter
	refused         prometheus.Counter
	reportAttempts  *prometheus.CounterVec
	reportDelay     prometheus.Histogram
	apiRequests     *prometheus.CounterVec
	apiDuration     *prometheus.HistogramVec
	leaseChanges    prometheus.Counter
	leasesLost      prometheus.Counter
	sweeps          *prometheus.CounterVec
	sweepUndone     prometheus.Counter
	sweepFailed     prometheus.Counter
	sweepSucceeded  prometheus.Gauge
	podsRepaired    prometheus.Counter
	podsUnrepaired  prometheus.Gauge
	repairs         *prometheus.CounterVec
}

// Buckets of the histograms, in seconds. An ADD takes some tens of milliseconds, or the time a DHCP server takes, or all
// of its deadline; an answer from the cache takes some tens of microseconds.
var (
	callBuckets    = []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 100}
	pluginBuckets  = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
	resolveBuckets = []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, 1, 5, 15}
	delayBuckets   = []float64{.01, .025, .05, .1, .25, .5, 1, 5, 15, 60, 300, 1800}
	apiBuckets     = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
)

// New returns the metrics of a daemon of a version.
func New(version string) *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	m.gauge("braid_build_info", "Which braidd this is; always 1.",
		prometheus.Labels{"version": clean(version), "goversion": runtime.Version()}, func() float64 { return 1 })
	m.makeCalls()
	m.makeResolves()
	m.makeReports()
	m.makeAPI()
	m.makeUpkeep()
	return m
}

// Handler serves the metrics. What one function cannot tell does not keep the rest from being told.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
		Timeout:             20 * time.Second,
	})
}

func (m *Metrics) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) counters(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	m.registry.MustRegister(h)
	return h
}

func (m *Metrics) histograms(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
	m.registry.MustRegister(h)
	return h
}

func (m *Metrics) gauge(name, help string, labels prometheus.Labels, read func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, read))
}

func (m *Metrics) newGauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	m.registry.MustRegister(g)
	return g
}

func (m *Metrics) counterFunc(name, help string, read func() float64) {
	m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, read))
}

// seconds of a duration that another process has told.
func seconds(s float64) float64 {
	if s > 0 { // neither negative, after a clock was set, nor no number
		return s
	}
	return 0
}

package metrics

import (
	"github.com/braid-cni/braid/resolve"
)

var (
	cniVerbs = []string{"ADD", "DEL", "CHECK", "GC", "STATUS"}
	// cniCodes are the error codes that are told apart: those of the CNI specification, and that of an error without one.
	// From 100 on a code is the plugin's own.
	cniCodes = []string{"1", "2", "3", "4", "5", "6", "7", "8", "11", "50", "51", "999"}
)

func (m *Metrics) makeCalls() {
	m.calls = m.counters("braid_cni_calls_total", "Calls of the container runtime.", "verb", "outcome", "code")
	m.callDuration = m.histograms("braid_cni_call_duration_seconds", "How long calls of the container runtime took.",
		callBuckets, "verb", "outcome")
	m.workerCalls = m.counters("braid_worker_calls_total", "Calls of the container runtime that the worker has done in place of a plugin process.", "verb")
	m.pluginCalls = m.counters("braid_plugin_calls_total", "Calls of the plugins of networks.", "plugin", "verb", "outcome", "code")
	m.pluginDuration = m.histograms("braid_plugin_call_duration_seconds", "How long calls of the plugins of networks took.",
		pluginBuckets, "plugin", "verb", "outcome")
	for _, verb := range []string{"ADD", "DEL"} { // a rate needs a value before the first call
		m.calls.WithLabelValues(verb, success, "")
		m.callDuration.WithLabelValues(verb, success)
		m.callDuration.WithLabelValues(verb, failure)
		m.workerCalls.WithLabelValues(verb)
	}
}

// Observe counts a call of the runtime and the calls of plugins that it took.
func (m *Metrics) Observe(o *resolve.Observation) {
	verb, out, code := oneOf(cniVerbs, o.Verb), outcome(o.Outcome != resolve.Success), codeOf(o.Outcome)
	m.calls.WithLabelValues(verb, out, code).Inc()
	m.callDuration.WithLabelValues(verb, out).Observe(seconds(o.Seconds))
	if o.Worker {
		m.workerCalls.WithLabelValues(verb).Inc()
	}
	for i := range o.Plugins {
		m.observePlugin(&o.Plugins[i])
	}
}

func (m *Metrics) observePlugin(p *resolve.PluginCall) {
	verb, out, code := oneOf(cniVerbs, p.Verb), outcome(p.Outcome != resolve.Success), codeOf(p.Outcome)
	plugin := m.plugins.label(p.Type, out == success)
	m.pluginCalls.WithLabelValues(plugin, verb, out, code).Inc()
	m.pluginDuration.WithLabelValues(plugin, verb, out).Observe(seconds(p.Seconds))
}

// codeOf returns the error code of an outcome, empty for success: Prometheus takes that for no label.
func codeOf(outcome string) string {
	if outcome == resolve.Success {
		return ""
	}
	return oneOf(cniCodes, outcome)
}

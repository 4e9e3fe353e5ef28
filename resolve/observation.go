package resolve

import "time"

// An Observation is what the plugin tells a daemon of one call of the runtime, when it is over. Nobody waits for it: it is
// for metrics, traces and events, and is lost where no daemon runs.
type Observation struct {
	Pod     Pod       `json:"pod"`
	Verb    string    `json:"verb"`    // ADD, DEL, CHECK, GC or STATUS
	Outcome string    `json:"outcome"` // [Success], or the CNI error code in decimal
	Start   time.Time `json:"start"`
	Seconds float64   `json:"seconds"`
	// Worker says that another process than the one that the runtime has started has done it.
	Worker bool `json:"worker,omitempty"`
	// Plugins that were called for it, those called by other plugins excluded, in the order of their start.
	Plugins []PluginCall `json:"plugins,omitempty"`
	// Events to be written on the pod.
	Events []Event `json:"events,omitempty"`
	// TraceParent is the span of the runtime that the call belongs to, as W3C Trace Context has it, and SpanID that of the
	// call itself, 16 hexadecimal digits. Both are empty if the runtime does not trace, or has not sampled this call.
	TraceParent string `json:"traceparent,omitempty"`
	SpanID      string `json:"spanID,omitempty"`
}

// Success is the outcome of a call that did not fail.
const Success = "success"

// A PluginCall is a call of one plugin of a network.
type PluginCall struct {
	Type      string    `json:"type"` // of the plugin: "bridge"
	Network   string    `json:"network"`
	Interface string    `json:"interface"`
	Verb      string    `json:"verb"`
	Outcome   string    `json:"outcome"` // as that of an Observation
	Start     time.Time `json:"start"`
	Seconds   float64   `json:"seconds"`
	SpanID    string    `json:"spanID,omitempty"` // that the plugin got as the parent of its own
}

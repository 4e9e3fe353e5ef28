// Package resolve is the protocol between the plugin, which acts on the node, and braidd, which knows the cluster:
// one JSON document in, one out, per request. The plugin asks for a pod and the networks it names ([Query]), and hands
// over what came of it ([Report]). The same documents travel over the daemon's socket ([Dial]) and over the standard
// input and output of `braidd resolve` ([Child]); [Serve] is the other side of both. Each document is a line:
//
//	{"timeoutMillis":27000,"resolve":{"pod":{"namespace":"default","name":"web","uid":"6f1c..."}}}
//	{"answer":{"pod":{...},"annotations":{...},"networks":{"default/blue":{"config":"{...}"}}}}
//	{"timeoutMillis":9500,"report":{"pod":{...},"status":[...],"events":[...]}}
//	{"reported":true}
//
// and, instead of an answer, {"error":{"reason":"NotFound","message":"..."}}. To a daemon there are lines besides that are
// not answered: what a call took ([Observe]).
//
//	{"observe":{"pod":{...},"verb":"DEL","outcome":"success",...}}
//
// Unknown keys are ignored, so that plugin and daemon of different versions understand each other during an upgrade. The
// package is part of the plugin binary, which starts once per call of the runtime: it imports hardly more than the
// standard library.
package resolve

import (
	"context"
	"encoding/json"
	"time"
)

// A Resolver answers from the API server, from a daemon's cache or from a folder of manifests.
// Implementations are safe for concurrent use.
type Resolver interface {
	// Resolve returns the pod and every NetworkAttachmentDefinition that its annotations and the query name. A
	// network that does not exist is absent from the answer and no error. Errors are of type *Error.
	Resolve(ctx context.Context, q *Query) (*Answer, error)

	// Report writes the network-status annotation and the events of an ADD. When it returns nil they are written, or
	// are queued durably. A pod that is gone is no error. Errors are of type *Error.
	Report(ctx context.Context, r *Report) error
}

// A Pod identifies a pod. UID is empty if the runtime does not hand it over. The UID of a static pod is of the
// kubelet's own making, and the mirror pod that the API server has instead, perhaps later, carries it as an annotation:
// Resolve and Report accept both.
type Pod struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid,omitempty"`
}

// A NetworkName names a NetworkAttachmentDefinition.
type NetworkName struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

func (n NetworkName) String() string { return n.Namespace + "/" + n.Name }

// A Query asks for a pod and for networks.
type Query struct {
	// Pod to be looked up. With an empty name only Networks are.
	Pod Pod `json:"pod"`
	// Networks that the plugin's own configuration names, to be returned besides those of the pod's annotations.
	Networks []NetworkName `json:"networks,omitempty"`
	// DefaultNamespace is where the v1.multus-cni.io/default-network annotation looks for a name without namespace.
	DefaultNamespace string `json:"defaultNamespace,omitempty"`
	// Annotations of the pod as the runtime hands them over; nil if it does not. They are the kubelet's view: of a static
	// pod there may be no other yet, and they count. Where the API server has other ones for any other pod of the same UID,
	// those count.
	Annotations map[string]string `json:"annotations,omitempty"`
	// Journal is the folder of the plugin's journal, for Answer.Queues.
	Journal string `json:"journal,omitempty"`
}

// An Answer holds what was found.
type Answer struct {
	// Pod as the query has it. If that has no UID, with the one that was found, of a static pod that of the kubelet.
	Pod Pod `json:"pod"`
	// Annotations of the pod, those that Braid reads.
	Annotations map[string]string `json:"annotations,omitempty"`
	// Networks by "namespace/name".
	Networks map[string]Network `json:"networks,omitempty"`
	// Devices are the identifiers of the devices that the kubelet has allocated to the pod, by resource, sorted. Nil if they
	// were not looked up: no network has a resource (k8s.v1.cni.cncf.io/resourceName) and the pod asks for no device, or
	// DevicesError says why.
	Devices      map[string][]string `json:"devices,omitzero"`
	DevicesError *Error              `json:"devicesError,omitempty"`
	// Queues says that the resolver outlives the ADD and takes reports from the journal of the query: what a record has
	// under "pending" will be written, however often the resolver is restarted.
	Queues bool `json:"queues,omitempty"`
}

// A Network is what Braid uses of a NetworkAttachmentDefinition.
type Network struct {
	Config      string            `json:"config,omitempty"` // spec.config, may be empty
	Annotations map[string]string `json:"annotations,omitempty"`
}

// A Report is what an ADD tells about a pod.
type Report struct {
	// Pod as [Answer] has it: its UID keeps the report from another pod of the same name.
	Pod Pod `json:"pod"`
	// Status is the value of k8s.v1.cni.cncf.io/network-status; nil leaves the annotation as it is.
	Status json.RawMessage `json:"status,omitempty"`
	Events []Event         `json:"events,omitempty"`
	// Record is where the journal keeps this report until it is written; nil if it does not. A resolver that queues then
	// answers at once, and takes the report out of the record when it has written it. It needs nothing else of this but Pod.
	Record *Record `json:"record,omitempty"`
	// Wait asks for the answer when the report is written, not when it is queued.
	Wait bool `json:"wait,omitempty"`
}

// A Record names a record of the journal.
type Record struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
}

// An Event becomes a Kubernetes event on the pod.
type Event struct {
	Type    string `json:"type"` // Normal or Warning
	Reason  string `json:"reason"`
	Message string `json:"message"`
	// At is when it happened, if it is written later. It does not travel.
	At time.Time `json:"-"`
}

// Reasons of an Error, by what the caller can do.
const (
	NotFound    = "NotFound"    // the pod does not exist, or another one has its name now (UIDs differ)
	Unavailable = "Unavailable" // the API server did not answer in time, or answered 429 or 5xx: try again later
	Invalid     = "Invalid"     // credentials, configuration or request are wrong: trying again will not help
)

// An Error crosses the process edge as a document.
type Error struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// Package api asks an API server for pods and NetworkAttachmentDefinitions, and writes network-status, a condition and
// events to it, over a http.Client that somebody else has made, or [Login] of a plain kubeconfig. It knows the few fields that
// Braid uses, and imports nothing of Kubernetes: to start with the packages that know all of them takes a program longer than what it asks.
//
// What the API server cannot do now is tried again, with growing pauses or those that it asks for, until the context
// ends: refused and broken connections, timeouts, and the answers 409, 429 and 5xx. A context without a deadline is not
// of use here.
package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/resolve"
)

// A Resolver asks an API server.
//
// Its credentials have to allow these verbs: get on pods and on network-attachment-definitions.k8s.cni.cncf.io, patch on
// pods/status, create on events; to watch, also list and watch on the former two.
type Resolver struct {
	server *Server
	o      Options

	eventTime  time.Duration // for an event; 0 is as long as the report has
	mirrorTime time.Duration // how long a report waits for a mirror pod
}

// Options of a Resolver.
type Options struct {
	// Log takes what is no error of a request: events that could not be written, annotations that contradict each other.
	Log *slog.Logger
	// Daemon is for a process that outlives the ADD. Nobody waits for what it does: it gives an event as much time as the
	// report, the kubelet a minute to make the mirror pod of a static pod, and it has the API server look into its storage.
	//
	// Without it an ADD waits. What the API server has in memory will do, as it does for those who watch.
	Daemon bool
	// Node is the name of the node that events are of which are of no pod.
	Node string
	// Condition adds the condition [NetworksAttached] to the status of a pod when its network-status is written.
	Condition bool
	// Statuses and Events limit what is written, apart from each other: an event is worth less, and no status waits for it.
	// Nil is no limit.
	Statuses, Events Limiter
}

// New returns a Resolver that asks a server. No request is sent.
func New(s *Server, o Options) *Resolver {
	r := &Resolver{server: s, o: o, eventTime: eventTime, mirrorTime: lateTime}
	if o.Daemon {
		r.eventTime, r.mirrorTime = 0, time.Minute
	}
	return r
}

var (
	_ resolve.Resolver = (*Resolver)(nil)
	_ lookup.Source    = (*Resolver)(nil)
)

// Resolve implements [resolve.Resolver].
//
// Where the runtime hands over annotations and the API server has other ones for the pod, those count, and the difference
// is logged; of a static pod the runtime's count, and no request asks for it. Without them a pod that does not exist is
// looked for a second long before the error is NotFound: the kubelet knows a static pod before the API server has its
// mirror pod.
func (r *Resolver) Resolve(ctx context.Context, q *resolve.Query) (*resolve.Answer, error) {
	var source lookup.Source = r
	if !r.o.Daemon {
		source = inMemory{r}
	}
	answer, origin, err := lookup.Resolve(ctx, source, q)
	if err == nil && origin == lookup.Disputed && !r.o.Daemon { // the memory of the API server may be what is behind
		answer, origin, err = lookup.Resolve(ctx, r, q)
	}
	if err == nil && origin == lookup.Disputed {
		r.o.Log.InfoContext(ctx, "the runtime has other annotations of a pod than the API server, which counts",
			"pod", q.Pod.Namespace+"/"+q.Pod.Name)
	}
	return answer, err
}

// Pod implements [lookup.Source].
func (r *Resolver) Pod(ctx context.Context, want resolve.Pod) (*lookup.Pod, error) {
	return r.pod(ctx, want, false)
}

// pod gets a pod, from the storage of the API server if that has in memory no pod of the name, or another.
func (r *Resolver) pod(ctx context.Context, want resolve.Pod, fromMemory bool) (pod *lookup.Pod, err error) {
	get := operation{"get", "pods", want.Namespace, want.Name}
	err = r.attempt(ctx, get, func(ctx context.Context) error {
		pod, err = r.getPod(ctx, want.Namespace, want.Name, fromMemory)
		if fromMemory && (isNotFound(err) || err == nil && !pod.Is(want)) {
			fromMemory = false
			pod, err = r.getPod(ctx, want.Namespace, want.Name, false)
		}
		switch {
		case isNotFound(err):
			return lateError{err: notFound("pod %s/%s not found", want.Namespace, want.Name)}
		case err != nil || pod.Is(want):
			return err
		}
		other := notFound("pod %s/%s has UID %s, want %s: another pod has its name now", want.Namespace, want.Name, pod.UID, want.UID)
		if pod.IsMirror() {
			return lateError{err: other} // the kubelet is about to replace it
		}
		return other
	})
	return pod, err
}

// metadata is what is used of that of an object.
type metadata struct {
	UID         string            `json:"uid"`
	Annotations map[string]string `json:"annotations"`
}

// getPod asks once.
func (r *Resolver) getPod(ctx context.Context, namespace, name string, fromMemory bool) (*lookup.Pod, error) {
	var o struct {
		Metadata metadata `json:"metadata"`
	}
	err := r.server.do(ctx, &request{
		method: http.MethodGet, group: coreV1, namespace: namespace, resource: "pods", name: name,
		accept: metadataOnly, fromMemory: fromMemory,
	}, &o)
	if err != nil {
		return nil, err
	}
	return &lookup.Pod{UID: o.Metadata.UID, Annotations: o.Metadata.Annotations}, nil
}

// PodExists asks whether a pod exists. A static pod, which the kubelet alone knows, is taken to exist.
func (r *Resolver) PodExists(ctx context.Context, want resolve.Pod) (exists bool, err error) {
	if lookup.IsStaticUID(want.UID) {
		return true, nil
	}
	get := operation{"get", "pods", want.Namespace, want.Name}
	err = r.attempt(ctx, get, func(ctx context.Context) error {
		pod, err := r.getPod(ctx, want.Namespace, want.Name, false)
		exists = err == nil && pod.Is(want)
		if isUnknownPath(err) || !isNotFound(err) {
			return err
		}
		return nil
	})
	return exists, err
}

// Network implements [lookup.Source].
func (r *Resolver) Network(ctx context.Context, name resolve.NetworkName) (*resolve.Network, error) {
	return r.network(ctx, name, false)
}

// network gets a network, from the storage of the API server if that has none of the name in memory.
func (r *Resolver) network(ctx context.Context, name resolve.NetworkName, fromMemory bool) (network *resolve.Network, err error) {
	get := operation{"get", "network-attachment-definitions.k8s.cni.cncf.io", name.Namespace, name.Name}
	err = r.attempt(ctx, get, func(ctx context.Context) error {
		network, err = r.getNetwork(ctx, name, fromMemory)
		if fromMemory && isNotFound(err) {
			fromMemory = false
			network, err = r.getNetwork(ctx, name, false)
		}
		switch {
		case isUnknownPath(err):
			return invalid("the API server has no NetworkAttachmentDefinitions: apply their CustomResourceDefinition")
		case isNotFound(err):
			return nil
		}
		return err
	})
	return network, err
}

// getNetwork asks once.
func (r *Resolver) getNetwork(ctx context.Context, name resolve.NetworkName, fromMemory bool) (*resolve.Network, error) {
	var o struct {
		Metadata metadata `json:"metadata"`
		Spec     struct {
			Config string `json:"config"`
		} `json:"spec"`
	}
	err := r.server.do(ctx, &request{
		method: http.MethodGet, group: networks, namespace: name.Namespace, resource: "network-attachment-definitions", name: name.Name,
		fromMemory: fromMemory,
	}, &o)
	if err != nil {
		return nil, err
	}
	return &resolve.Network{Config: o.Spec.Config, Annotations: o.Metadata.Annotations}, nil
}

func notFound(format string, args ...any) *resolve.Error {
	return &resolve.Error{Reason: resolve.NotFound, Message: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) *resolve.Error {
	return &resolve.Error{Reason: resolve.Invalid, Message: fmt.Sprintf(format, args...)}
}

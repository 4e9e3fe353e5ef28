// Package kube answers for a cluster: it reads pods and NetworkAttachmentDefinitions from an API server, and writes
// network-status, a condition and events to it.
//
// An ADD of a pod with N networks costs 1 + N + 1 + E requests over one connection: the pod, its N networks at the same
// time, one patch of the pod, and at the same time as that E events. With package kube/cache before it, in a daemon, the
// first 1 + N are none. DEL, CHECK, GC and STATUS cost none. Of a pod only the metadata is transferred.
//
// What the API server cannot do now is tried again, with growing pauses or those that it asks for, until the context
// ends: refused and broken connections, timeouts, and the answers 409, 429 and 5xx. A context without a deadline is not
// of use here.
package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/resolve"
)

// A Resolver asks an API server.
//
// Its credentials have to allow these verbs: get on pods and on network-attachment-definitions.k8s.cni.cncf.io, patch on
// pods/status, create on events; to watch, also list and watch on the former two.
type Resolver struct {
	rest        rest.Interface
	credentials string // where they come from, for messages
	rereads     bool   // the token may be another one in a moment
	log         *slog.Logger
	condition   bool
	node        string

	eventTime  time.Duration // for an event; 0 is as long as the report has
	mirrorTime time.Duration // how long a report waits for a mirror pod
	// Apart from each other, since there are several events to a status, and worth less.
	statuses, events flowcontrol.RateLimiter
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
	answer, origin, err := lookup.Resolve(ctx, r, q)
	if err == nil && origin == lookup.Disputed {
		r.log.InfoContext(ctx, "the runtime has other annotations of a pod than the API server, which counts",
			"pod", q.Pod.Namespace+"/"+q.Pod.Name)
	}
	return answer, err
}

const (
	coreV1   = "/api/v1"
	networks = "/apis/k8s.cni.cncf.io/v1"
	// The metadata alone, which API servers have offered since 1.15. A whole pod has it too.
	metadataOnly = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
)

// Pod implements [lookup.Source].
func (r *Resolver) Pod(ctx context.Context, want resolve.Pod) (pod *lookup.Pod, err error) {
	get := operation{"get", "pods", want.Namespace, want.Name}
	err = r.attempt(ctx, get, func(ctx context.Context) error {
		pod, err = r.getPod(ctx, want.Namespace, want.Name)
		switch {
		case apierrors.IsNotFound(err):
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

// getPod asks once.
func (r *Resolver) getPod(ctx context.Context, namespace, name string) (*lookup.Pod, error) {
	var o metav1.PartialObjectMetadata
	req := r.rest.Get().AbsPath(coreV1).Namespace(namespace).Resource("pods").Name(name).SetHeader("Accept", metadataOnly)
	if err := do(ctx, req, &o); err != nil {
		return nil, err
	}
	return &lookup.Pod{UID: string(o.UID), Annotations: o.Annotations}, nil
}

// PodExists asks whether a pod exists. A static pod, which the kubelet alone knows, is taken to exist.
func (r *Resolver) PodExists(ctx context.Context, want resolve.Pod) (exists bool, err error) {
	if lookup.IsStaticUID(want.UID) {
		return true, nil
	}
	get := operation{"get", "pods", want.Namespace, want.Name}
	err = r.attempt(ctx, get, func(ctx context.Context) error {
		pod, err := r.getPod(ctx, want.Namespace, want.Name)
		exists = err == nil && pod.Is(want)
		if isUnknownPath(err) || !apierrors.IsNotFound(err) {
			return err
		}
		return nil
	})
	return exists, err
}

// Network implements [lookup.Source].
func (r *Resolver) Network(ctx context.Context, name resolve.NetworkName) (network *resolve.Network, err error) {
	get := operation{"get", "network-attachment-definitions.k8s.cni.cncf.io", name.Namespace, name.Name}
	err = r.attempt(ctx, get, func(ctx context.Context) error {
		var o netv1.NetworkAttachmentDefinition
		req := r.rest.Get().AbsPath(networks).Namespace(name.Namespace).Resource("network-attachment-definitions").Name(name.Name)
		err := do(ctx, req, &o)
		switch {
		case isUnknownPath(err):
			return invalid("the API server has no NetworkAttachmentDefinitions: apply their CustomResourceDefinition")
		case apierrors.IsNotFound(err):
			return nil
		case err == nil:
			network = &resolve.Network{Config: o.Spec.Config, Annotations: o.Annotations}
		}
		return err
	})
	return network, err
}

// isUnknownPath tells an API server that does not have the resource from one that does not have the object: only the
// latter answers with a Status.
func isUnknownPath(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// do sends a request once. Its errors are those of client-go, or an *resolve.Error where trying again is of no use.
func do(ctx context.Context, req *rest.Request, into any) error {
	if err := req.Error(); err != nil {
		return invalid("%v", err)
	}
	result := req.MaxRetries(0).Do(ctx)
	if err := result.Error(); err != nil {
		return err
	}
	doc, err := result.Raw()
	if err != nil {
		return err
	}
	if err := json.Unmarshal(doc, into); err != nil {
		return invalid("decode the answer of the API server: %v", err)
	}
	return nil
}

func notFound(format string, args ...any) *resolve.Error {
	return &resolve.Error{Reason: resolve.NotFound, Message: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) *resolve.Error {
	return &resolve.Error{Reason: resolve.Invalid, Message: fmt.Sprintf(format, args...)}
}

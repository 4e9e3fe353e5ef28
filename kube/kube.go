// Package kube is package kube/api with all that client-go knows about credentials, and with watches.
//
// An ADD of a pod with N networks costs 1 + N + 1 + 1 requests over one connection: the pod, its N networks at the same
// time, one patch of the pod, and at the same time as that an event. With package kube/cache before it, in a daemon, the
// first 1 + N are none. DEL, CHECK, GC and STATUS cost none. Of a pod only the metadata is transferred.
package kube

import (
	"errors"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/braid-cni/braid/kube/api"
	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/resolve"
)

// NetworksAttached is [api.NetworksAttached].
const NetworksAttached = api.NetworksAttached

// A Resolver asks an API server.
type Resolver struct {
	*api.Resolver
	watches rest.Interface
}

var (
	_ resolve.Resolver = (*Resolver)(nil)
	_ lookup.Source    = (*Resolver)(nil)
)

// Explain says what to change about an error that client-go has of the API server.
func (r *Resolver) Explain(verb, resource string, err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		s, foreign := status.Status(), apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
		answer := &api.StatusError{Code: int(s.Code), Reason: string(s.Reason), Message: s.Message, Foreign: foreign}
		if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
			answer.Delay = time.Duration(seconds) * time.Second
		}
		err = answer
	}
	return r.Resolver.Explain(verb, resource, err)
}

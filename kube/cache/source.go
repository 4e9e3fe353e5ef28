package cache

import (
	"context"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/resolve"
)

// Resolve implements [resolve.Resolver]. With all it needs in the cache it sends no request.
func (s *Source) Resolve(ctx context.Context, q *resolve.Query) (*resolve.Answer, error) {
	answer, origin, err := lookup.Resolve(ctx, s, q)
	if origin != lookup.NoPod {
		s.count(Pods, string(origin))
	}
	if err == nil && origin == lookup.Disputed {
		s.log.InfoContext(ctx, "the runtime has handed over other annotations of a pod than were known: the API server was asked",
			"pod", q.Pod.Namespace+"/"+q.Pod.Name, "uid", q.Pod.UID)
	}
	return answer, err
}

// Report implements [resolve.Resolver]: it writes, and does not queue.
func (s *Source) Report(ctx context.Context, report *resolve.Report) error {
	return s.live.Report(ctx, report)
}

// Known implements [lookup.Cache].
func (s *Source) Known(namespace, name string) (pod *lookup.Pod, synced bool) {
	o, synced := get[*metav1.PartialObjectMetadata](s.pods, namespace, name)
	if o == nil {
		return nil, synced
	}
	return &lookup.Pod{UID: string(o.UID), Annotations: o.Annotations}, synced
}

// Pod implements [lookup.Source]: it asks the API server.
func (s *Source) Pod(ctx context.Context, pod resolve.Pod) (*lookup.Pod, error) {
	return s.ask.Pod(ctx, pod)
}

// Network implements [lookup.Source].
func (s *Source) Network(ctx context.Context, name resolve.NetworkName) (*resolve.Network, error) {
	if known := s.KnownNetwork(name); known != nil {
		return known, nil
	}
	s.count(Networks, string(lookup.Live))
	return s.ask.Network(ctx, name)
}

// KnownNetwork implements [lookup.Cache].
func (s *Source) KnownNetwork(name resolve.NetworkName) *resolve.Network {
	o, _ := get[*netv1.NetworkAttachmentDefinition](s.networks, name.Namespace, name.Name)
	if o == nil {
		return nil
	}
	s.count(Networks, string(lookup.FromCache))
	return &resolve.Network{Config: o.Spec.Config, Annotations: o.Annotations}
}

// PodExists tells whether a pod exists. It says no only after the API server has. A pod is known by its UID, a static pod
// by that which the kubelet made up: as such it always exists, since the API server does not know of its end.
func (s *Source) PodExists(ctx context.Context, namespace, name, uid string) (bool, error) {
	if s.HasPod(namespace, name, uid) {
		return true, nil
	}
	return s.live.PodExists(ctx, resolve.Pod{Namespace: namespace, Name: name, UID: uid})
}

// get returns what a synced informer has, or nil.
func get[T any](i informer, namespace, name string) (object T, synced bool) {
	if !i.HasSynced() {
		return object, false
	}
	found, _, err := i.GetStore().GetByKey(namespace + "/" + name)
	if err == nil && found != nil {
		object, _ = found.(T)
	}
	return object, true
}

// Package lookup answers a [resolve.Query] from wherever pods and NetworkAttachmentDefinitions are kept: an API server, a
// cache of one, a folder.
package lookup

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/resolve"
)

// A Source has pods and networks. It is safe for concurrent use, and its errors are of type *resolve.Error.
type Source interface {
	// Pod returns a pod. If there is none of its name, or one that is another ([Pod.Is]), the error's reason is
	// resolve.NotFound.
	Pod(ctx context.Context, pod resolve.Pod) (*Pod, error)

	// Network returns nil if there is no such network.
	Network(ctx context.Context, name resolve.NetworkName) (*resolve.Network, error)
}

// A Cache is a Source that knows some pods and networks without asking for them. Its method Pod asks, whatever is known.
type Cache interface {
	Source

	// Known returns what is known under a pod's name, whatever its UID; nil if nothing is. It is of no use, and
	// synced false, until everything there is has been heard of once.
	Known(namespace, name string) (pod *Pod, synced bool)

	// KnownNetwork returns what is known of a network, nil if nothing is.
	KnownNetwork(name resolve.NetworkName) *resolve.Network
}

// Resolve answers a query as [resolve.Resolver] has it: it finds the pod, then all networks at once. What the pod will name,
// as far as the runtime has handed that over, is got at the same time as the pod. It also tells where the pod was found. A
// panic of the source is an error as any other: what it reads is of tenants, and others are served.
func Resolve(ctx context.Context, src Source, q *resolve.Query) (_ *resolve.Answer, origin Origin, err error) {
	defer Recovered(&err)
	networks := newSearch(ctx, src)
	defer networks.stop()
	networks.ask(named(q, q.Annotations))
	answer := &resolve.Answer{Pod: q.Pod}
	if q.Pod.Name != "" {
		var pod *Pod
		if pod, origin, err = find(ctx, src, q); err != nil {
			return nil, origin, err
		}
		answer.Annotations = Annotations(pod.Annotations)
		if answer.Pod.UID == "" {
			answer.Pod.UID = pod.kubeletUID()
		}
	}
	answer.Networks, err = networks.get(named(q, answer.Annotations))
	if err != nil {
		return nil, origin, err
	}
	return answer, origin, nil
}

// Recovered is deferred where a panic is to be an error, as any other: what is read is of tenants.
func Recovered(err *error) {
	if p := recover(); p != nil {
		*err = &resolve.Error{Reason: resolve.Unavailable, Message: fmt.Sprintf("panic: %v\n%s", p, debug.Stack())}
	}
}

// named returns the networks that a query and the annotations name, each once. Annotations that cannot be read name
// none: whoever plans the pod's networks reads them again, and complains.
func named(q *resolve.Query, annotations map[string]string) []resolve.NetworkName {
	names := slices.Clone(q.Networks)
	def, sels, err := conf.PodNetworks(annotations, q.Pod.Namespace, q.DefaultNamespace)
	if err == nil {
		if def != nil {
			sels = append(sels, *def)
		}
		for _, s := range sels {
			names = append(names, resolve.NetworkName{Namespace: s.Namespace, Name: s.Name})
		}
	}
	slices.SortFunc(names, func(a, b resolve.NetworkName) int { return strings.Compare(a.String(), b.String()) })
	return slices.Compact(names)
}

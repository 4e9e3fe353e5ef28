// Package lookup answers a [resolve.Query] from wherever pods and NetworkAttachmentDefinitions are kept: an API server, a
// cache of one, a folder.
package lookup

import (
	"context"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/resolve"
)

// atOnce is how many networks are asked for at the same time.
const atOnce = 16

// mirrorAnnotation marks the mirror pod of a static pod. Its value is the UID of the static pod, which the kubelet makes
// up and gives to the container runtime, while the mirror pod has a UID from the API server.
const mirrorAnnotation = "kubernetes.io/config.mirror"

// A Source has pods and networks. It is safe for concurrent use, and its errors are of type *resolve.Error.
type Source interface {
	// Pod returns a pod. If there is none of its name, or one that is another ([Pod.Is]), the error's reason is
	// resolve.NotFound.
	Pod(ctx context.Context, pod resolve.Pod) (*Pod, error)

	// Network returns nil if there is no such network.
	Network(ctx context.Context, name resolve.NetworkName) (*resolve.Network, error)
}

// A Pod is what is used of a pod.
type Pod struct {
	UID         string
	Annotations map[string]string
}

// Is tells if this is the pod that a runtime calls want, given that the names are the same.
func (p *Pod) Is(want resolve.Pod) bool {
	return want.UID == "" || want.UID == p.UID || want.UID == p.Annotations[mirrorAnnotation]
}

// IsMirror tells if this stands for a static pod.
func (p *Pod) IsMirror() bool { return p.Annotations[mirrorAnnotation] != "" }

// Resolve answers a query as [resolve.Resolver] has it: it asks for the pod, and then for all networks at once.
func Resolve(ctx context.Context, src Source, q *resolve.Query) (*resolve.Answer, error) {
	answer := &resolve.Answer{Pod: q.Pod}
	if q.Pod.Name != "" {
		pod, err := src.Pod(ctx, q.Pod)
		if err != nil {
			return nil, err
		}
		answer.Annotations = pod.Annotations
		if pod.UID != "" {
			answer.Pod.UID = pod.UID
		}
	}
	var err error
	answer.Networks, err = networks(ctx, src, named(q, answer.Annotations))
	if err != nil {
		return nil, err
	}
	return answer, nil
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

// networks gets networks, leaving out those that do not exist.
func networks(ctx context.Context, src Source, names []resolve.NetworkName) (map[string]resolve.Network, error) {
	found := make(map[string]resolve.Network)
	var mu sync.Mutex // of found
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, name := range names {
		g.Go(func() error {
			network, err := src.Network(ctx, name)
			if err != nil || network == nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			found[name.String()] = *network
			return nil
		})
	}
	return found, g.Wait()
}

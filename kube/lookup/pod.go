package lookup

import (
	"context"
	"maps"
	"strings"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/resolve"
)

const (
	// mirrorAnnotation marks the mirror pod of a static pod. Its value is the UID of the static pod, which the kubelet
	// makes up and gives to the container runtime, while the mirror pod has a UID from the API server.
	mirrorAnnotation = "kubernetes.io/config.mirror"
	// sourceAnnotation is what the kubelet tells the runtime about where it has a pod from. In the API anyone can write it.
	sourceAnnotation = "kubernetes.io/config.source"
	fromAPI          = "api"
)

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

// kubeletUID is the one by which kubelet, runtime and events know the pod.
func (p *Pod) kubeletUID() string {
	if p.IsMirror() {
		return p.Annotations[mirrorAnnotation]
	}
	return p.UID
}

// IsStaticUID tells a UID that the kubelet made up, a hash of 32 hexadecimal digits, from one of an API server, which has
// hyphens. A static pod whose manifest has a UID keeps that, and is not recognised by it.
func IsStaticUID(uid string) bool {
	return len(uid) == 32 && strings.Trim(uid, "0123456789abcdef") == ""
}

// Annotations returns those that Braid reads, of a pod or of a NetworkAttachmentDefinition; nil if there are none. The
// network-status, which Braid writes, is not among them.
func Annotations(all map[string]string) map[string]string {
	var some map[string]string
	for key, value := range all {
		if !isRead(key) {
			continue
		}
		if some == nil {
			some = make(map[string]string)
		}
		some[key] = value
	}
	return some
}

func isRead(annotation string) bool {
	domain, _, named := strings.Cut(annotation, "/")
	if !named {
		return false
	}
	switch domain {
	case "k8s.v1.cni.cncf.io", "v1.multus-cni.io", "braid-cni.io":
		return annotation != conf.AnnotationNetworkStatus
	}
	return false
}

// Strip returns the annotations of a pod that a [Cache] has to keep.
func Strip(all map[string]string) map[string]string {
	some := Annotations(all)
	if mirror, ok := all[mirrorAnnotation]; ok {
		if some == nil {
			some = make(map[string]string)
		}
		some[mirrorAnnotation] = mirror
	}
	return some
}

// An Origin is where the annotations of a pod were found.
type Origin string

// The origins. What is Live was got by a request, and so was what is Disputed: the runtime had handed over other
// annotations than those that the cache, or the API server itself, had for the pod. Then the API server is right.
const (
	NoPod       Origin = ""
	FromCache   Origin = "cache"
	FromRuntime Origin = "runtime"
	Live        Origin = "live"
	Disputed    Origin = "disputed"
)

// find finds the pod of a query, with as few requests as it takes.
//
// The annotations that the runtime hands over are the kubelet's view of the pod. They are the truth about a static pod,
// of which the API server has a copy at best, later. Of any other pod they can be older than what the API server has,
// but not of another pod; and where a cache has not heard of the pod, they are all that is known without a request.
func find(ctx context.Context, src Source, q *resolve.Query) (*Pod, Origin, error) {
	handed := &Pod{UID: q.Pod.UID, Annotations: q.Annotations}
	if isStatic(q.Annotations) {
		return handed, FromRuntime, nil
	}
	origin := Live
	if cache, ok := src.(Cache); ok {
		known, synced := cache.Known(q.Pod.Namespace, q.Pod.Name)
		switch {
		case !synced || q.Pod.UID == "": // and without a UID, another pod of the name may be the one that is meant
		case known == nil && q.Annotations != nil:
			return handed, FromRuntime, nil
		case known == nil || !known.Is(q.Pod): // the cache may be behind
		case agree(known, q):
			return known, FromCache, nil
		default:
			origin = Disputed
		}
	}
	pod, err := src.Pod(ctx, q.Pod)
	if err == nil && !agree(pod, q) {
		origin = Disputed
	}
	return pod, origin, err
}

// isStatic tells by what the kubelet has told the runtime.
func isStatic(handed map[string]string) bool {
	source := handed[sourceAnnotation]
	return source != "" && source != fromAPI
}

// agree tells if the runtime's annotations, if it has handed over any, are those of the pod where it matters.
func agree(pod *Pod, q *resolve.Query) bool {
	return q.Annotations == nil || maps.Equal(Annotations(pod.Annotations), Annotations(q.Annotations))
}

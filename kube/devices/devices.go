// Package devices knows which devices of device plugins a pod has: those that the kubelet has allocated to its containers.
//
// The kubelet allocates them before it has the runtime make the pod's network, so what it answers is complete. It is asked
// by way of its pod-resources API, version 1, which every kubelet since 1.20 has, and only for pods that use it: one of
// whose networks names a resource, or which ask for a certain device. It answers by the name of the pod; a UID is not in
// that API.
//
// The API is gRPC. This package speaks as much of it as two calls without a stream need, over the HTTP/2 of net/http: the
// library for all of it would add 6.6 MB to the program, and 4 MB of memory to each process of it.
package devices

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/resolve"
)

// DefaultSocket is where a kubelet listens.
const DefaultSocket = "/var/lib/kubelet/pod-resources/kubelet.sock"

const (
	askTime   = 5 * time.Second       // for the kubelet to answer, tries included
	pauseTime = 20 * time.Millisecond // before asking a kubelet again that has been asked too often
)

// A Resolver completes the answers of another by the devices of the pod. It is safe for concurrent use if that is.
type Resolver struct {
	resolve.Resolver
	Socket string // of the kubelet; empty stands for DefaultSocket
}

// Resolve implements [resolve.Resolver]. What keeps it from knowing the devices is not an error, but is in the answer.
func (r *Resolver) Resolve(ctx context.Context, q *resolve.Query) (*resolve.Answer, error) {
	a, err := r.Resolver.Resolve(ctx, q)
	if err != nil || !needed(q, a) {
		return a, err
	}
	k := Kubelet{Socket: r.Socket}
	a.Devices, err = k.Devices(ctx, a.Pod)
	if err != nil {
		a.DevicesError, _ = errors.AsType[*resolve.Error](err)
	}
	return a, nil
}

// needed tells if a network of the answer is one of devices, or the pod asks for a device by its name.
func needed(q *resolve.Query, a *resolve.Answer) bool {
	if a.Pod.Name == "" {
		return false
	}
	for _, network := range a.Networks {
		if network.Annotations[conf.AnnotationResourceName] != "" {
			return true
		}
	}
	own, selections, err := conf.PodNetworks(a.Annotations, a.Pod.Namespace, q.DefaultNamespace)
	if err != nil {
		return false // whoever plans the pod's networks reads them again, and complains
	}
	if own != nil {
		selections = append(selections, *own)
	}
	return slices.ContainsFunc(selections, func(s conf.Selection) bool { return s.DeviceID != "" })
}

// A Kubelet is asked on a socket.
type Kubelet struct {
	Socket string // empty stands for DefaultSocket
}

// Devices returns the identifiers of the devices that a pod has of each resource, sorted, each once. A pod that the
// kubelet does not know has none. Errors are of type *resolve.Error; the call ends after 5 seconds at the latest.
func (k Kubelet) Devices(ctx context.Context, pod resolve.Pod) (map[string][]string, error) {
	if k.Socket == "" {
		k.Socket = DefaultSocket
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	found, err := k.ask(ctx, pod)
	if err != nil {
		reason := resolve.Unavailable
		if errors.Is(err, errGarbage) {
			reason = resolve.Invalid
		}
		return nil, &resolve.Error{Reason: reason, Message: fmt.Sprintf("ask the kubelet for the devices of pod %s/%s, on socket %s: %v",
			pod.Namespace, pod.Name, k.Socket, err)}
	}
	devices := make(map[string][]string)
	for _, p := range found {
		if p.namespace != pod.Namespace || p.name != pod.Name {
			continue
		}
		for resource, ids := range p.devices {
			devices[resource] = append(devices[resource], ids...)
		}
	}
	for resource, ids := range devices {
		slices.Sort(ids)
		devices[resource] = slices.Compact(ids)
	}
	return devices, nil
}

const service = "/v1.PodResourcesLister/"

// ask asks for one pod, and where the kubelet does not do that (it is an option of it before 1.36) or does not know the
// pod, which is the same error, for all.
func (k Kubelet) ask(ctx context.Context, pod resolve.Pod) ([]podResources, error) {
	c := newClient(k.Socket)
	defer c.close()
	answer, err := c.callPatiently(ctx, service+"Get", getRequest(pod))
	if status, ok := errors.AsType[*statusError](err); ok && (status.code == codeUnknown || status.code == codeUnimplemented) {
		answer, err = c.callPatiently(ctx, service+"List", nil)
	}
	if err != nil {
		return nil, err
	}
	return decode(answer)
}

// callPatiently asks again if the kubelet has been asked too often: by all, 100 times a second is what it answers.
func (c *client) callPatiently(ctx context.Context, method string, request []byte) ([]byte, error) {
	var refused error
	for pause := pauseTime; ; pause *= 2 {
		answer, err := c.call(ctx, method, request)
		if ctx.Err() != nil && refused != nil {
			return nil, refused
		}
		if status, ok := errors.AsType[*statusError](err); !ok || status.code != codeResourceExhausted {
			return answer, err
		}
		refused = err
		select {
		case <-ctx.Done():
			return nil, refused
		case <-time.After(pause):
		}
	}
}

package api

import (
	"context"
	"net/http"
	"time"
)

// cidrPause is between questions for a pod CIDR that a controller has yet to give.
const cidrPause = 500 * time.Millisecond

// PodCIDRs returns those of a node, one for each IP family. A node that has none yet is asked for again until ctx ends. The
// credentials have to allow the verb get on nodes.
func (r *Resolver) PodCIDRs(ctx context.Context, node string) ([]string, error) {
	for {
		o, err := r.getNode(ctx, node)
		switch {
		case err != nil:
			return nil, err
		case len(o.Spec.PodCIDRs) > 0:
			return o.Spec.PodCIDRs, nil
		case o.Spec.PodCIDR != "":
			return []string{o.Spec.PodCIDR}, nil
		}
		if !sleep(ctx, cidrPause) {
			return nil, invalid("node %s has no pod CIDR: start kube-controller-manager with --allocate-node-cidrs, or give the installer --pod-cidr", node)
		}
	}
}

// ContainerRuntime returns the container runtime of a node and its version, as "containerd://2.4.2". The credentials have
// to allow the verb get on nodes.
func (r *Resolver) ContainerRuntime(ctx context.Context, node string) (string, error) {
	o, err := r.getNode(ctx, node)
	if err != nil {
		return "", err
	}
	return o.Status.NodeInfo.ContainerRuntimeVersion, nil
}

// A node is what is used of one.
type node struct {
	Spec struct {
		PodCIDR  string   `json:"podCIDR"`
		PodCIDRs []string `json:"podCIDRs"`
	} `json:"spec"`
	Status struct {
		NodeInfo struct {
			ContainerRuntimeVersion string `json:"containerRuntimeVersion"`
		} `json:"nodeInfo"`
	} `json:"status"`
}

func (r *Resolver) getNode(ctx context.Context, name string) (*node, error) {
	o := new(node)
	err := r.attempt(ctx, operation{"get", "nodes", "", name}, func(ctx context.Context) error {
		err := r.server.do(ctx, &request{method: http.MethodGet, group: coreV1, resource: "nodes", name: name}, o)
		if isNotFound(err) {
			return notFound("node %s not found: the name has to be that of the Node object", name)
		}
		return err
	})
	return o, err
}

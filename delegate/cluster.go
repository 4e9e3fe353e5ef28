package delegate

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/resolve"
)

// A cluster is the connection of an ADD to what knows pods and networks. Without Kubernetes, and for a container that
// is no pod of it, there is nothing to resolve and nobody to report to.
type cluster struct {
	*call
	resolver resolve.Resolver // nil without Kubernetes
	close    func() error
	pod      resolve.Pod // as resolved; its name is empty if there is no pod
}

func (c *call) connect() (*cluster, error) {
	if !kubernetes(c.conf) {
		return &cluster{call: c, close: func() error { return nil }}, nil
	}
	r, err := c.Resolver(c.conf, c.log)
	if err != nil {
		return nil, err
	}
	return &cluster{call: c, resolver: r, close: r.Close}, nil
}

func (k *cluster) Close() {
	if err := k.close(); err != nil {
		k.log.Warn("close resolver", "err", err)
	}
}

// resolve asks once for everything that planning needs. The answer is nil without Kubernetes.
func (k *cluster) resolve(ctx context.Context) (*resolve.Answer, error) {
	q := NewQuery(k.conf, k.call.pod())
	if k.resolver == nil || q.Pod.Name == "" && len(q.Networks) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, k.conf.Deadlines.Resolve)
	defer cancel()
	answer, err := k.resolver.Resolve(ctx, q)
	if err != nil {
		return nil, fmt.Errorf("resolve pod %s/%s: %w", q.Pod.Namespace, q.Pod.Name, coded(err))
	}
	k.pod = answer.Pod
	return answer, nil
}

// coded gives a resolver's error the code by which a runtime tells what to do about it.
func coded(err error) error {
	var r *resolve.Error
	if !errors.As(err, &r) || r.Reason == resolve.Invalid {
		return err
	}
	// Unavailable, or a pod that the API server does not know (yet, or any more). A pod that were started without its
	// networks would be the worse surprise.
	return types.NewError(types.ErrTryAgainLater, err.Error(), "")
}

// reportSuccess writes the status of the pod before ADD is answered.
func (k *cluster) reportSuccess(ctx context.Context, record *journal.Record, plan []Planned, inherited []journal.Attachment) error {
	if k.pod.Name == "" {
		return nil
	}
	report, err := success(k.pod, record, plan, inherited)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, k.conf.Deadlines.Resolve)
	defer cancel()
	if err := k.resolver.Report(ctx, report); err != nil {
		return fmt.Errorf("report network-status of pod %s/%s: %w", k.pod.Namespace, k.pod.Name, coded(err))
	}
	return nil
}

// reportFailure tells in an event why an ADD failed. That it can not be told changes nothing.
func (k *cluster) reportFailure(ctx context.Context, cause error) {
	if k.pod.Name == "" {
		return
	}
	reason := "FailedAddingInterface"
	var missing *noNetworkError
	if errors.As(cause, &missing) {
		reason = "NoNetworkFound"
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTime)
	defer cancel()
	report := &resolve.Report{Pod: k.pod, Events: []resolve.Event{{Type: "Warning", Reason: reason, Message: cause.Error()}}}
	if err := k.resolver.Report(ctx, report); err != nil {
		k.log.Warn("report failure", "err", err)
	}
}

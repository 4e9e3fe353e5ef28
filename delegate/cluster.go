package delegate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/cni"
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
	queues   bool        // whoever resolves takes reports from the journal
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

// ask asks once for everything that planning needs. Answer waits for it: others are at work until then. It is nil without
// Kubernetes.
func (k *cluster) ask(ctx context.Context) (answer func() (*resolve.Answer, error)) {
	q := NewQuery(k.conf, k.call.pod())
	q.Annotations, q.Journal = k.conf.PodAnnotations, k.journal.Dir()
	if k.resolver == nil || q.Pod.Name == "" && len(q.Networks) == 0 {
		return func() (*resolve.Answer, error) { return nil, nil }
	}
	asking, cancel := context.WithTimeout(ctx, k.conf.Deadlines.Resolve)
	wait, end := resolve.Ask(asking, k.resolver, q)
	closeResolver := k.close
	k.close = func() error {
		cancel()
		end()
		return closeResolver()
	}
	return func() (*resolve.Answer, error) {
		ctx, cancel := context.WithTimeout(ctx, k.conf.Deadlines.Resolve)
		defer cancel()
		found, err := wait(ctx)
		if err != nil {
			return nil, fmt.Errorf("resolve pod %s/%s: %w", q.Pod.Namespace, q.Pod.Name, coded(err))
		}
		k.pod, k.queues = found.Pod, found.Queues
		return found, nil
	}
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

// success returns the report of an ADD; nil if there is no pod to report on.
func (k *cluster) success(record *journal.Record, plan []Planned, inherited []journal.Attachment) (*resolve.Report, error) {
	if k.pod.Name == "" {
		return nil, nil
	}
	info := func(i int) json.RawMessage {
		a := &record.Attachments[i]
		if plan[i].device.Resource == "" && a.Capabilities[deviceInfoCapability] == nil {
			return nil // nobody could have told anything
		}
		return k.deviceInfo().collect(record.At(a), a.Name, k.log)
	}
	report, err := success(k.pod, record, plan, inherited, info)
	if err != nil {
		return nil, err
	}
	report.Wait = k.conf.WaitForStatus
	if k.queues {
		report.Record = &resolve.Record{ContainerID: record.ContainerID, IfName: record.IfName}
	}
	return report, nil
}

// pending is what the journal keeps of a report until the daemon has written it; nil without a daemon.
func (k *cluster) pending(report *resolve.Report) (json.RawMessage, error) {
	if report == nil || report.Record == nil {
		return nil, nil
	}
	return json.Marshal(report)
}

// conclude keeps the record of an ADD that is done, and hands over its report. A daemon takes the report from the record.
// Where none does, the API server need not wait for that: whatever of both is there when the plugin is killed, nobody has
// been answered yet.
func (k *cluster) conclude(ctx context.Context, record *journal.Record, report *resolve.Report) (err error) {
	if report == nil || k.queues {
		if err := k.journal.Finish(record); err != nil {
			return err
		}
		return k.report(ctx, report)
	}
	finished := make(chan error, 1)
	go func() { finished <- k.finish(record) }()
	defer func() { err = errors.Join(<-finished, err) }() // after a panic too: who undoes the ADD has the record alone
	return k.report(ctx, report)                          // takes longer: here, since a goroutine has to get a thread first
}

// finish ends a record elsewhere than where a panic is recovered from.
func (k *cluster) finish(record *journal.Record) (err error) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(k.Stderr, "panic: %v\n\n%s", r, debug.Stack())
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	return k.journal.Finish(record)
}

// report hands a report over. Where no daemon queues it, it is written before ADD is answered.
func (k *cluster) report(ctx context.Context, report *resolve.Report) error {
	if report == nil {
		return nil
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
	report := &resolve.Report{Pod: k.pod, Events: []resolve.Event{{Type: "Warning", Reason: reason, Message: cni.Message(cause.Error())}}}
	if err := k.resolver.Report(ctx, report); err != nil {
		k.log.Warn("report failure", "err", err)
	}
}

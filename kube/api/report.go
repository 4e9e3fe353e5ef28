package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/braid-cni/braid/internal/roomy"
	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/resolve"
)

const (
	component  = "braid"         // that events come from
	eventTime  = 3 * time.Second // for an event, which is worth less than the time of an ADD
	maxMessage = 1024            // bytes of an event, the API server's limit for events.k8s.io
	maxName    = 253             // bytes of an object's name
)

// Report implements [resolve.Resolver]. It writes the annotation and the events at the same time, and returns when all
// are written or given up.
//
// A report on a pod that is gone, or whose name another has now, is dropped. The mirror pod of a static pod is waited for,
// for a second or as [Options] have it.
//
// The annotation decides: an event that could not be written is logged, and no error, unless the report has no status.
func (r *Resolver) Report(ctx context.Context, report *resolve.Report) error {
	var wg sync.WaitGroup
	eventErrs := make([]error, len(report.Events))
	now := time.Now()
	for i, e := range report.Events {
		if e.At.IsZero() {
			e.At = now.Add(time.Duration(i))
		}
		wg.Go(func() {
			roomy.Stack()
			eventErrs[i] = r.create(ctx, newEvent(r.about(report.Pod), e))
		})
	}
	var err error
	if report.Status != nil {
		err = r.annotate(ctx, report.Pod, report.Status)
	}
	wg.Wait()
	for _, eventErr := range eventErrs {
		switch {
		case eventErr == nil:
		case report.Status == nil:
			return eventErr
		default:
			r.o.Log.WarnContext(ctx, "event not written", "err", eventErr)
		}
	}
	return err
}

// annotate writes the network-status annotation, and the condition if that is wanted.
//
// "the implementation may publish the result of the attachment operation to an annotation on the pod object": the
// subresource status, which is all that the credentials need to allow, takes annotations too.
//
// The report knows a static pod by the UID that the kubelet made up. What can be patched is its mirror pod.
func (r *Resolver) annotate(ctx context.Context, pod resolve.Pod, status json.RawMessage) error {
	patch, err := r.statusPatch(status, time.Now())
	if err != nil {
		return invalid("encode status of pod %s/%s: %v", pod.Namespace, pod.Name, err)
	}
	gone := notFound("pod %s/%s with UID %s not found", pod.Namespace, pod.Name, pod.UID)
	uid := pod.UID // that an API server has for it
	err = r.attempt(ctx, operation{"patch", "pods/status", pod.Namespace, pod.Name}, func(ctx context.Context) error {
		err := r.patch(ctx, pod, patch.withUID(uid))
		switch {
		case isNotFound(err):
			return r.absent(pod, gone)
		case !hasCode(err, http.StatusUnprocessableEntity) && !hasCode(err, http.StatusConflict):
			return err
		}
		// It may have been refused because of the UID.
		found, getErr := r.getPod(ctx, pod.Namespace, pod.Name, false)
		switch {
		case isNotFound(getErr):
			return r.absent(pod, gone)
		case getErr != nil || found.UID == uid:
			return err
		case !found.Is(pod):
			return r.absent(pod, gone)
		}
		uid = found.UID
		return r.patch(ctx, pod, patch.withUID(uid))
	})
	if e, ok := errors.AsType[*resolve.Error](err); ok && e.Reason == resolve.NotFound {
		r.o.Log.InfoContext(ctx, "network-status not written: the pod is gone", "pod", pod.Namespace+"/"+pod.Name, "uid", pod.UID)
		return nil
	}
	return err
}

// absent is the error for a pod that is not there; a mirror pod may come yet.
func (r *Resolver) absent(pod resolve.Pod, gone *resolve.Error) error {
	if lookup.IsStaticUID(pod.UID) {
		return lateError{gone, r.mirrorTime}
	}
	return gone
}

// patch sends a patch of a pod's status, once. A strategic merge patch, which conditions need, costs an API server less than any
// other: it need not make JSON of the pod.
func (r *Resolver) patch(ctx context.Context, pod resolve.Pod, patch []byte) error {
	return r.server.do(ctx, &request{
		method: http.MethodPatch, group: coreV1, namespace: pod.Namespace, resource: "pods", name: pod.Name, subresource: "status",
		accept: metadataOnly, contentType: strategicPatch, body: patch, limit: r.o.Statuses,
	}, &struct{}{})
}

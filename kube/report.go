package kube

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

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
		wg.Go(func() { eventErrs[i] = r.create(ctx, newEvent(r.about(report.Pod), e, now.Add(time.Duration(i)))) })
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
			r.log.WarnContext(ctx, "event not written", "err", eventErr)
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
		case apierrors.IsNotFound(err):
			return r.absent(pod, gone)
		case !apierrors.IsInvalid(err) && !apierrors.IsConflict(err):
			return err
		}
		// It may have been refused because of the UID.
		found, getErr := r.getPod(ctx, pod.Namespace, pod.Name)
		switch {
		case apierrors.IsNotFound(getErr):
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
		r.log.InfoContext(ctx, "network-status not written: the pod is gone", "pod", pod.Namespace+"/"+pod.Name, "uid", pod.UID)
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

// patch sends a patch of a pod's status, once.
func (r *Resolver) patch(ctx context.Context, pod resolve.Pod, patch []byte) error {
	kind := types.MergePatchType
	if r.condition {
		kind = types.StrategicMergePatchType
	}
	req := r.rest.Patch(kind).AbsPath(coreV1).Namespace(pod.Namespace).Resource("pods").Name(pod.Name).
		SubResource("status").SetHeader("Accept", metadataOnly).Throttle(r.statuses).Body(patch)
	return do(ctx, req, &metav1.PartialObjectMetadata{})
}

// create writes an event.
func (r *Resolver) create(ctx context.Context, event *corev1.Event) error {
	if r.eventTime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.eventTime)
		defer cancel()
	}
	return r.attempt(ctx, operation{"create", "events", event.Namespace, event.Name}, func(ctx context.Context) error {
		body, err := json.Marshal(event)
		if err != nil {
			return invalid("encode: %v", err)
		}
		req := r.rest.Post().AbsPath(coreV1).Namespace(event.Namespace).Resource("events").
			SetHeader("Accept", metadataOnly).Throttle(r.events).Body(body)
		if err = do(ctx, req, &metav1.PartialObjectMetadata{}); apierrors.IsAlreadyExists(err) {
			return nil // by an earlier try, the answer to which was lost
		}
		return err
	})
}

// about is what an event is about: a pod or, if that has no name, the node. Of a static pod it has the UID that the kubelet
// made up, as the kubelet's own events have, and as kubectl looks for them. That of a node is its name, for the same reason.
func (r *Resolver) about(pod resolve.Pod) corev1.ObjectReference {
	if pod.Name == "" {
		return corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: r.node, UID: types.UID(r.node)}
	}
	return corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: types.UID(pod.UID)}
}

// newEvent makes an event. Its name is unique as long as no two events of an object have the same time.
func newEvent(about corev1.ObjectReference, e resolve.Event, at time.Time) *corev1.Event {
	suffix := fmt.Sprintf(".%x", at.UnixNano())
	message := e.Message
	if len(message) > maxMessage {
		message = string(bytes.ToValidUTF8([]byte(message[:maxMessage-3]), nil)) + "..."
	}
	return &corev1.Event{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: cmp.Or(about.Namespace, metav1.NamespaceDefault), // where those of nodes are
			Name:      about.Name[:min(len(about.Name), maxName-len(suffix))] + suffix,
		},
		InvolvedObject: about,
		Type:           e.Type, Reason: e.Reason, Message: message,
		Source: corev1.EventSource{Component: component}, ReportingController: component,
		FirstTimestamp: metav1.NewTime(at), LastTimestamp: metav1.NewTime(at), Count: 1,
	}
}

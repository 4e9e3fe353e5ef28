package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/conf"
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
// The annotation decides: an event that could not be written is logged, and no error, unless the report has no status.
func (r *Resolver) Report(ctx context.Context, report *resolve.Report) error {
	var wg sync.WaitGroup
	eventErrs := make([]error, len(report.Events))
	now := time.Now()
	for i, e := range report.Events {
		wg.Go(func() { eventErrs[i] = r.create(ctx, newEvent(report.Pod, e, now.Add(time.Duration(i)))) })
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

// annotate writes the network-status annotation.
//
// "the implementation may publish the result of the attachment operation to an annotation on the pod object": the
// subresource status, which is all that the credentials need to allow, takes annotations too.
func (r *Resolver) annotate(ctx context.Context, pod resolve.Pod, status json.RawMessage) error {
	patch, err := statusPatch(pod, status)
	if err != nil {
		return invalid("encode status of pod %s/%s: %v", pod.Namespace, pod.Name, err)
	}
	return r.attempt(ctx, operation{"patch", "pods/status", pod.Namespace, pod.Name}, func(ctx context.Context) error {
		req := r.rest.Patch(types.MergePatchType).AbsPath(coreV1).Namespace(pod.Namespace).Resource("pods").Name(pod.Name).
			SubResource("status").SetHeader("Accept", metadataOnly).Body(patch)
		err := do(ctx, req, &metav1.PartialObjectMetadata{})
		refused := apierrors.IsInvalid(err) || apierrors.IsConflict(err)
		if apierrors.IsNotFound(err) || refused && r.isGone(ctx, pod) {
			return nil
		}
		return err
	})
}

// statusPatch is a merge patch of one annotation. The UID is in it because it cannot be changed: an API server refuses
// the patch for another pod.
func statusPatch(pod resolve.Pod, status json.RawMessage) ([]byte, error) {
	// For those who read it with kubectl.
	var text bytes.Buffer
	if err := json.Indent(&text, status, "", "    "); err != nil {
		return nil, err
	}
	metadata := map[string]any{"annotations": map[string]string{conf.AnnotationNetworkStatus: text.String()}}
	if pod.UID != "" {
		metadata["uid"] = pod.UID
	}
	return json.Marshal(map[string]any{"metadata": metadata})
}

// isGone tells whether another pod has the name now.
func (r *Resolver) isGone(ctx context.Context, pod resolve.Pod) bool {
	found, err := r.getPod(ctx, pod.Namespace, pod.Name)
	return apierrors.IsNotFound(err) || err == nil && pod.UID != "" && found.UID != pod.UID
}

// create writes an event.
func (r *Resolver) create(ctx context.Context, event *corev1.Event) error {
	ctx, cancel := context.WithTimeout(ctx, eventTime)
	defer cancel()
	return r.attempt(ctx, operation{"create", "events", event.Namespace, event.Name}, func(ctx context.Context) error {
		body, err := json.Marshal(event)
		if err != nil {
			return invalid("encode: %v", err)
		}
		req := r.rest.Post().AbsPath(coreV1).Namespace(event.Namespace).Resource("events").SetHeader("Accept", metadataOnly).Body(body)
		if err = do(ctx, req, &metav1.PartialObjectMetadata{}); apierrors.IsAlreadyExists(err) {
			return nil // by an earlier try, the answer to which was lost
		}
		return err
	})
}

// newEvent makes an event on a pod. Its name is unique as long as no two events of a pod have the same time.
func newEvent(pod resolve.Pod, e resolve.Event, at time.Time) *corev1.Event {
	suffix := fmt.Sprintf(".%x", at.UnixNano())
	message := e.Message
	if len(message) > maxMessage {
		message = string(bytes.ToValidUTF8([]byte(message[:maxMessage-3]), nil)) + "..."
	}
	return &corev1.Event{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Name[:min(len(pod.Name), maxName-len(suffix))] + suffix},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: types.UID(pod.UID),
		},
		Type: e.Type, Reason: e.Reason, Message: message,
		Source: corev1.EventSource{Component: component}, ReportingController: component,
		FirstTimestamp: metav1.NewTime(at), LastTimestamp: metav1.NewTime(at), Count: 1,
	}
}

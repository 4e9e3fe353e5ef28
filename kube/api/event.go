package api

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/braid-cni/braid/resolve"
)

// An event is an Event of core/v1 with the fields that Braid fills.
type event struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"metadata"`
	InvolvedObject objectReference `json:"involvedObject"`
	Type           string          `json:"type"`
	Reason         string          `json:"reason"`
	Message        string          `json:"message"`
	Source         struct {
		Component string `json:"component"`
	} `json:"source"`
	ReportingComponent string    `json:"reportingComponent"`
	FirstTimestamp     timestamp `json:"firstTimestamp"`
	LastTimestamp      timestamp `json:"lastTimestamp"`
	Count              int       `json:"count"`
}

type objectReference struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
	UID        string `json:"uid,omitempty"`
}

// defaultNamespace is where the events of nodes are.
const defaultNamespace = "default"

// newEvent makes an event. Its name is unique as long as no two events of an object have the same time.
func newEvent(about objectReference, from resolve.Event) *event {
	suffix := fmt.Sprintf(".%x", from.At.UnixNano())
	message := from.Message
	if len(message) > maxMessage {
		message = string(bytes.ToValidUTF8([]byte(message[:maxMessage-3]), nil)) + "..."
	}
	e := &event{
		APIVersion: "v1", Kind: "Event", InvolvedObject: about,
		Type: from.Type, Reason: from.Reason, Message: message,
		ReportingComponent: component, FirstTimestamp: timestamp(from.At), LastTimestamp: timestamp(from.At), Count: 1,
	}
	e.Metadata.Namespace = cmp.Or(about.Namespace, defaultNamespace)
	e.Metadata.Name = about.Name[:min(len(about.Name), maxName-len(suffix))] + suffix
	e.Source.Component = component
	return e
}

// about is what an event is about: a pod or, if that has no name, the node. Of a static pod it has the UID that the kubelet
// made up, as the kubelet's own events have, and as kubectl looks for them. That of a node is its name, for the same reason.
func (r *Resolver) about(pod resolve.Pod) objectReference {
	if pod.Name == "" {
		return objectReference{APIVersion: "v1", Kind: "Node", Name: r.o.Node, UID: r.o.Node}
	}
	return objectReference{APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID}
}

// create writes an event.
func (r *Resolver) create(ctx context.Context, e *event) error {
	if r.eventTime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.eventTime)
		defer cancel()
	}
	return r.attempt(ctx, operation{"create", "events", e.Metadata.Namespace, e.Metadata.Name}, func(ctx context.Context) error {
		body, err := json.Marshal(e)
		if err != nil {
			return invalid("encode: %v", err)
		}
		err = r.server.do(ctx, &request{
			method: http.MethodPost, group: coreV1, namespace: e.Metadata.Namespace, resource: "events",
			accept: metadataOnly, contentType: jsonOnly, body: body, limit: r.o.Events,
		}, &struct{}{})
		if alreadyExists(err) {
			return nil // by an earlier try, the answer to which was lost
		}
		return err
	})
}

package api

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/braid-cni/braid/conf"
)

// NetworksAttached is the type of the pod condition that is True when all networks of the pod are attached: for a
// readiness gate, or for `kubectl wait`. It has the time of the ADD, and stays True while the kubelet makes the sandbox of
// a pod anew, in which the containers do not run.
const NetworksAttached = "braid-cni.io/NetworksAttached"

// A statusPatch is of one annotation, and of one condition if Status is not nil: a strategic merge patch finds the
// condition by its type. Other annotations and conditions, which others write, are not in it.
type statusPatch struct {
	Metadata struct {
		// It is there because it cannot be changed: an API server refuses the patch for another pod.
		UID         string            `json:"uid,omitempty"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
	Status *conditions `json:"status,omitempty"`
}

type conditions struct {
	Conditions []condition `json:"conditions"`
}

type condition struct {
	Type               string    `json:"type"`
	Status             string    `json:"status"`
	LastTransitionTime timestamp `json:"lastTransitionTime"`
	Reason             string    `json:"reason"`
	Message            string    `json:"message"`
}

// A timestamp is a time in whole seconds, as Kubernetes writes it.
type timestamp time.Time

// MarshalText implements [encoding.TextMarshaler].
func (t timestamp) MarshalText() ([]byte, error) {
	return time.Time(t).UTC().AppendFormat(nil, time.RFC3339), nil
}

func (r *Resolver) statusPatch(status json.RawMessage, now time.Time) (*statusPatch, error) {
	// For those who read it with kubectl.
	var text bytes.Buffer
	if err := json.Indent(&text, status, "", "    "); err != nil {
		return nil, err
	}
	patch := &statusPatch{}
	patch.Metadata.Annotations = map[string]string{conf.AnnotationNetworkStatus: text.String()}
	if r.o.Condition {
		patch.Status = &conditions{[]condition{{
			Type: NetworksAttached, Status: "True", LastTransitionTime: timestamp(now),
			Reason: "Attached", Message: "all networks of the pod are attached",
		}}}
	}
	return patch, nil
}

func (p *statusPatch) withUID(uid string) []byte {
	p.Metadata.UID = uid
	doc, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings only
	}
	return doc
}

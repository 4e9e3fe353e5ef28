package kube

import (
	"bytes"
	"encoding/json"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/conf"
)

// NetworksAttached is the type of the pod condition that is True when all networks of the pod are attached: for a
// readiness gate, or for `kubectl wait`. It has the time of the ADD, and stays True while the kubelet makes the sandbox of
// a pod anew, in which the containers do not run.
const NetworksAttached corev1.PodConditionType = "braid-cni.io/NetworksAttached"

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
	Conditions []corev1.PodCondition `json:"conditions"`
}

func (r *Resolver) statusPatch(status json.RawMessage, now time.Time) (*statusPatch, error) {
	// For those who read it with kubectl.
	var text bytes.Buffer
	if err := json.Indent(&text, status, "", "    "); err != nil {
		return nil, err
	}
	patch := &statusPatch{}
	patch.Metadata.Annotations = map[string]string{conf.AnnotationNetworkStatus: text.String()}
	if r.condition {
		patch.Status = &conditions{[]corev1.PodCondition{{
			Type: NetworksAttached, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now),
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

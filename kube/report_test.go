package kube_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/kube"
	"github.com/braid-cni/braid/kube/kubetest"
	"github.com/braid-cni/braid/resolve"
)

func TestReport(t *testing.T) {
	s := kubetest.New(t)
	web := newPod("web", map[string]string{"k8s.v1.cni.cncf.io/networks": "blue", "k8s.v1.cni.cncf.io/network-status": "old"})
	web.Spec.NodeName = "node"
	web.Status.Phase = corev1.PodPending
	uid := s.AddPod(web)
	before := s.Pod("default", "web")

	pod := resolve.Pod{Namespace: "default", Name: "web", UID: uid}
	err := open(t, s).Report(within(t, time.Minute), &resolve.Report{
		Pod:    pod,
		Status: json.RawMessage(`[{"name":"default/blue"}]`),
		Events: []resolve.Event{
			{Type: "Normal", Reason: "AddedInterface", Message: "Add eth0"},
			{Type: "Warning", Reason: "Careful", Message: strings.Repeat("ä", 1000)},
		},
	})
	if err != nil {
		t.Fatal(err)
	}

	// Only the annotation differs.
	before.ResourceVersion = s.Pod("default", "web").ResourceVersion
	before.Annotations["k8s.v1.cni.cncf.io/network-status"] = "[\n    {\n        \"name\": \"default/blue\"\n    }\n]"
	if diff := cmp.Diff(before, s.Pod("default", "web")); diff != "" {
		t.Errorf("pod (-want +got):\n%s", diff)
	}

	events := s.Events()
	if len(events) != 2 || events[0].Name == events[1].Name {
		t.Fatalf("found events %v, want two of different names", events)
	}
	for _, e := range events {
		want := corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "default", Name: "web", UID: types.UID(uid)}
		if e.InvolvedObject != want || e.Source.Component != "braid" || e.Count != 1 || e.FirstTimestamp.IsZero() || e.LastTimestamp.IsZero() {
			t.Errorf("found event %v, want one of component braid on %v", e, want)
		}
		switch e.Reason {
		case "AddedInterface":
			if e.Type != "Normal" || e.Message != "Add eth0" {
				t.Errorf("found %s event %q", e.Type, e.Message)
			}
		case "Careful":
			if e.Type != "Warning" || len(e.Message) > 1024 || len(e.Message) < 1000 || !utf8.ValidString(e.Message) {
				t.Errorf("found %s event with message of %d bytes: %q", e.Type, len(e.Message), e.Message)
			}
		default:
			t.Errorf("found event with reason %q", e.Reason)
		}
	}
}

func TestReportOnPodThatIsGone(t *testing.T) {
	s := kubetest.New(t)
	r := open(t, s)
	report := &resolve.Report{Pod: resolve.Pod{Namespace: "default", Name: "web", UID: "old"}, Status: json.RawMessage("[]")}
	if err := r.Report(within(t, time.Minute), report); err != nil {
		t.Errorf("no pod: %v", err)
	}
	s.AddPod(newPod("web", nil))
	if err := r.Report(within(t, time.Minute), report); err != nil {
		t.Errorf("another pod: %v", err)
	}
	if status := s.Status("default", "web"); status != "" {
		t.Errorf("another pod got the status %q", status)
	}
	var requests []string
	for _, r := range s.Requests() {
		requests = append(requests, r.String())
	}
	want := []string{"PATCH " + podPath + "/status", "PATCH " + podPath + "/status", "GET " + podPath}
	if diff := cmp.Diff(want, requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestReportOnStaticPod: the report has the UID of the kubelet, the API server a mirror pod, perhaps a little later.
func TestReportOnStaticPod(t *testing.T) {
	const hash = "0123456789abcdef0123456789abcdef"
	for _, tt := range []struct {
		name    string
		mirror  string // of the mirror pod; empty means that there is none
		late    bool   // it comes after the first try
		written bool
	}{
		{"mirror pod", hash, false, true},
		{"mirror pod that comes late", hash, true, true},
		{"no mirror pod", "", false, false},
		{"mirror pod of another", "fedcba9876543210fedcba9876543210", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := kubetest.New(t)
			if tt.mirror != "" {
				s.AddPod(newPod("web", map[string]string{"kubernetes.io/config.mirror": tt.mirror}))
			}
			if tt.late {
				s.Break(kubetest.Fault{Method: "PATCH", Times: 2, Code: 404, Message: "not found"})
			}
			err := open(t, s).Report(within(t, time.Minute), &resolve.Report{
				Pod: resolve.Pod{Namespace: "default", Name: "web", UID: hash}, Status: json.RawMessage("[]"),
				Events: []resolve.Event{{Type: "Normal", Reason: "AddedInterface", Message: "Add eth0"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if tt.mirror != "" && (s.Status("default", "web") == "[]") != tt.written {
				t.Errorf("found status %q, want one: %v", s.Status("default", "web"), tt.written)
			}
			// kubectl looks for the events of a mirror pod by the UID of the static pod.
			if e := s.Events(); len(e) != 1 || e[0].InvolvedObject.UID != hash {
				t.Errorf("found events %v, want one on UID %s", e, hash)
			}
		})
	}
}

// TestReportCondition: annotation and condition in one patch, and the conditions of others are left alone.
func TestReportCondition(t *testing.T) {
	s := kubetest.New(t)
	web := newPod("web", nil)
	web.Status.Conditions = []corev1.PodCondition{{Type: "Ready", Status: "False"}, {Type: "example.org/Other", Status: "True"}}
	uid := s.AddPod(web)
	r, err := kube.New(kube.Options{Kubeconfig: s.Kubeconfig(), Log: slog.New(slog.DiscardHandler), Condition: true})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // an ADD of the pod's next sandbox
		err := r.Report(within(t, time.Minute), &resolve.Report{Pod: resolve.Pod{Namespace: "default", Name: "web", UID: uid}, Status: json.RawMessage("[]")})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.Requests()); n != 2 {
		t.Errorf("found requests %v, want two patches", s.Requests())
	}
	pod := s.Pod("default", "web")
	var found []string
	for _, c := range pod.Status.Conditions {
		found = append(found, string(c.Type)+"="+string(c.Status))
	}
	want := []string{"Ready=False", "example.org/Other=True", "braid-cni.io/NetworksAttached=True"}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	if pod.Annotations["k8s.v1.cni.cncf.io/network-status"] != "[]" || pod.Status.Conditions[2].LastTransitionTime.IsZero() {
		t.Errorf("found pod %v, want network-status and the time of the condition", pod)
	}
}

// Two runtimes of different pods never meet, but the annotation of one pod has other writers.
func TestReportUnderConflict(t *testing.T) {
	s := kubetest.New(t)
	uid := s.AddPod(newPod("web", nil))
	s.Break(kubetest.Fault{Method: "PATCH", Times: 3, Code: 409, Message: "the object has been modified"})
	err := open(t, s).Report(within(t, time.Minute), &resolve.Report{Pod: resolve.Pod{Namespace: "default", Name: "web", UID: uid}, Status: json.RawMessage("[]")})
	if err != nil {
		t.Fatal(err)
	}
	if status := s.Status("default", "web"); status != "[]" {
		t.Errorf("found status %q, want []", status)
	}
}

func TestReportThatFails(t *testing.T) {
	s := kubetest.New(t)
	uid := s.AddPod(newPod("web", nil))
	var log bytes.Buffer
	r, err := kube.Open(s.Kubeconfig(), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	pod := resolve.Pod{Namespace: "default", Name: "web", UID: uid}
	events := []resolve.Event{{Type: "Normal", Reason: "AddedInterface", Message: "Add eth0"}}

	// The annotation decides, as long as there is one.
	s.Break(kubetest.Fault{Method: "POST", Code: 403, Message: `events is forbidden: User "braid"`})
	if err := r.Report(within(t, time.Minute), &resolve.Report{Pod: pod, Status: json.RawMessage("[]"), Events: events}); err != nil {
		t.Errorf("event forbidden: %v", err)
	}
	if !strings.Contains(log.String(), "event not written") {
		t.Errorf("found log %q, want the event in it", &log)
	}
	wantError(t, r.Report(within(t, time.Minute), &resolve.Report{Pod: pod, Events: events}), resolve.Invalid, "create events")

	s.Mend()
	s.Break(kubetest.Fault{Method: "PATCH", Code: 403, Message: `pods "web" is forbidden`})
	err = r.Report(within(t, time.Minute), &resolve.Report{Pod: pod, Status: json.RawMessage("[]"), Events: events})
	wantError(t, err, resolve.Invalid, "patch pods/status")
	if n := len(s.Events()); n != 1 {
		t.Errorf("found %d events, want 1", n)
	}

	err = r.Report(within(t, time.Minute), &resolve.Report{Pod: pod, Status: json.RawMessage("[")})
	wantError(t, err, resolve.Invalid, "encode status")
}

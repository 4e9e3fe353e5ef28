//go:build cluster

package kube_test

import (
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/braid-cni/braid/e2e/cluster"
	"github.com/braid-cni/braid/kube"
	"github.com/braid-cni/braid/resolve"
)

// What kubetest pretends, a real API server does.
func TestCluster(t *testing.T) {
	bin := os.Getenv("BRAID_KUBEBIN")
	if bin == "" {
		t.Fatal("BRAID_KUBEBIN is not set: run `make test-cluster`")
	}
	c := cluster.Start(t, bin)
	c.Apply("../deploy/rbac.yaml")
	c.Create(object("ServiceAccount", "default", "nobody", nil))
	pods := "/api/v1/namespaces/default/pods/"
	spec := map[string]any{"nodeName": "node", "containers": []any{map[string]any{"name": "c", "image": "c"}}}
	for name, annotations := range map[string]map[string]string{
		"web":    {"k8s.v1.cni.cncf.io/networks": "blue, absent"},
		"mirror": {"kubernetes.io/config.mirror": "hash", "kubernetes.io/config.hash": "hash", "kubernetes.io/config.source": "file"},
	} {
		pod := object("Pod", "default", name, annotations)
		pod["spec"] = spec
		c.Create(pod)
	}
	get := func(name string) (pod corev1.Pod) {
		c.Do("GET", pods+name, nil, &pod)
		return pod
	}
	uid := string(get("web").UID)
	r, err := kube.Open(c.Kubeconfig("kube-system", "braid", c.URL), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(name, uid string) (*resolve.Answer, error) {
		return r.Resolve(within(t, time.Minute), &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: name, UID: uid}})
	}

	_, err = ask("web", uid)
	wantError(t, err, resolve.Invalid, "apply their CustomResourceDefinition")
	c.Apply("../deploy/crd.yaml")
	blue := object("NetworkAttachmentDefinition", "default", "blue", nil)
	blue["apiVersion"], blue["spec"] = "k8s.cni.cncf.io/v1", map[string]any{"config": "{}"}
	c.Create(blue)

	a, err := ask("web", uid)
	if err != nil {
		t.Fatal(err)
	}
	want := &resolve.Answer{
		Pod:         resolve.Pod{Namespace: "default", Name: "web", UID: uid},
		Annotations: map[string]string{"k8s.v1.cni.cncf.io/networks": "blue, absent"},
		Networks:    map[string]resolve.Network{"default/blue": {Config: "{}"}},
	}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	_, err = ask("web", "other")
	wantError(t, err, resolve.NotFound, "another pod has its name now")
	_, err = ask("none", "")
	wantError(t, err, resolve.NotFound, "not found")
	if a, err := ask("mirror", "hash"); err != nil || a.Pod.UID != "hash" {
		t.Errorf("mirror pod: found %v, %v", a, err)
	}

	before := get("web")
	report := &resolve.Report{Pod: a.Pod, Status: json.RawMessage(`[]`), Events: []resolve.Event{{Type: "Normal", Reason: "AddedInterface", Message: "Add eth0"}}}
	report.Pod.UID = "12345678-1234-1234-1234-123456789012"
	if err := r.Report(within(t, time.Minute), report); err != nil {
		t.Errorf("report on another pod: %v", err)
	}
	if diff := cmp.Diff(before, get("web")); diff != "" {
		t.Errorf("another pod was changed (-want +got):\n%s", diff)
	}
	report.Pod.UID = uid
	if err := r.Report(within(t, time.Minute), report); err != nil {
		t.Fatal(err)
	}
	after := get("web")
	annotations := maps.Clone(before.Annotations)
	annotations["k8s.v1.cni.cncf.io/network-status"] = "[]"
	if diff := cmp.Diff(annotations, after.Annotations); diff != "" {
		t.Errorf("annotations (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before.Status, after.Status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	report.Pod.Name = "none"
	if err := r.Report(within(t, time.Minute), report); err != nil {
		t.Errorf("report on no pod: %v", err)
	}
	var events corev1.EventList
	c.Do("GET", "/api/v1/namespaces/default/events", nil, &events)
	events.Items = slices.DeleteFunc(events.Items, func(e corev1.Event) bool { return e.Source.Component != "braid" }) // the API server has some, too
	if len(events.Items) != 3 || !strings.HasPrefix(events.Items[0].Message, "Add eth0") {
		t.Errorf("found events %v, want 3", events.Items)
	}

	nobody, err := kube.Open(c.Kubeconfig("default", "nobody", c.URL), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	_, err = nobody.Resolve(within(t, time.Minute), &resolve.Query{Pod: report.Pod})
	wantError(t, err, resolve.Invalid, `User "system:serviceaccount:default:nobody" cannot get resource "pods"`)
	t.Log(err)
}

func object(kind, namespace, name string, annotations map[string]string) map[string]any {
	return map[string]any{"kind": kind, "metadata": map[string]any{"namespace": namespace, "name": name, "annotations": annotations}}
}

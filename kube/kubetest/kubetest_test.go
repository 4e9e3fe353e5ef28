package kubetest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/braid-cni/braid/kube/kubetest"
)

// client sends a request as the kubeconfig says.
func client(t *testing.T, s *kubetest.Server) func(method, path string, header http.Header, body string) (int, string) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	return func(method, path string, header http.Header, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, config.Host+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		if header == nil {
			req.Header = make(http.Header)
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.ProtoMajor != 2 {
			t.Errorf("found %s, want HTTP/2", resp.Proto)
		}
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(answer)
	}
}

func TestServer(t *testing.T) {
	s := kubetest.New(t)
	s.AddManifests("../../examples/manifests")
	s.AddPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "b"}, Spec: corev1.PodSpec{NodeName: "node"}})
	send := client(t, s)
	const pod = "/api/v1/namespaces/a/pods/b"
	partial := http.Header{"Accept": {"application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}}
	merge := http.Header{"Content-Type": {"application/merge-patch+json"}}
	const event = `{"metadata": {"namespace": "a", "name": "e"}, "involvedObject": {"namespace": "a"}}`
	for _, tt := range []struct {
		method, path string
		header       http.Header
		body         string
		code         int
		answer       string // a part of it
	}{
		{"GET", pod, nil, "", 200, `"nodeName":"node"`},
		{"GET", pod, partial, "", 200, `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"b"`},
		{"GET", pod + "c", nil, "", 404, `"reason":"NotFound"`},
		{"GET", "/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions", nil, "", 200, `"kind":"NetworkAttachmentDefinitionList"`},
		{"GET", "/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions", nil, "", 200, `"items":[{"`},
		{"GET", "/apis/apps/v1/namespaces/a/deployments", nil, "", 404, "404 page not found"},
		{"PATCH", pod + "/status", merge, `{"metadata": {"annotations": {"k8s.v1.cni.cncf.io/network-status": "[]"}}, "spec": {"nodeName": "other"}}`, 200, `"nodeName":"node"`},
		{"PATCH", pod + "/status", merge, `{"metadata": {"uid": "other"}}`, 422, "field is immutable"},
		{"PATCH", pod + "/status", merge, `{`, 400, `"reason":"BadRequest"`},
		{"PATCH", pod + "/status", nil, `{}`, 415, `"reason":"UnsupportedMediaType"`},
		{"PATCH", pod + "c/status", merge, `{}`, 404, `"reason":"NotFound"`},
		{"POST", "/api/v1/namespaces/a/events", nil, event, 201, `"name":"e"`},
		{"POST", "/api/v1/namespaces/a/events", nil, event, 409, `"reason":"AlreadyExists"`},
		{"POST", "/api/v1/namespaces/other/events", nil, event, 400, `"reason":"BadRequest"`},
	} {
		code, answer := send(tt.method, tt.path, tt.header, tt.body)
		if code != tt.code || !strings.Contains(answer, tt.answer) {
			t.Errorf("%s %s %s: found %d %s\nwant %d %s", tt.method, tt.path, tt.body, code, answer, tt.code, tt.answer)
		}
	}
	if status := s.Status("a", "b"); status != "[]" {
		t.Errorf("found status %q, want []", status)
	}
	if events := s.Events(); len(events) != 1 {
		t.Errorf("found events %v, want one", events)
	}
	if n := len(s.Requests()); n != 14 {
		t.Errorf("found %d requests, want 14", n)
	}
	s.DeletePod("a", "b")
	if code, _ := send("GET", pod, nil, ""); code != 404 {
		t.Errorf("found %d after DeletePod, want 404", code)
	}
}

func TestToken(t *testing.T) {
	s := kubetest.New(t)
	send := client(t, s)
	if code, answer := send("GET", "/api/v1/namespaces/a/pods/b", nil, ""); code != 404 {
		t.Errorf("found %d %s", code, answer)
	}
	if token, err := os.ReadFile(s.TokenFile()); err != nil || len(token) == 0 {
		t.Errorf("found token %q, %v", token, err)
	}
	if err := os.WriteFile(s.TokenFile(), []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, answer := client(t, s)("GET", "/api/v1/namespaces/a/pods/b", nil, "")
	var status metav1.Status
	if err := json.Unmarshal([]byte(answer), &status); err != nil || code != 401 || status.Reason != metav1.StatusReasonUnauthorized {
		t.Errorf("with a wrong token: found %d %s", code, answer)
	}
}

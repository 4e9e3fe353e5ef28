package kube_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/kube"
	"github.com/braid-cni/braid/kube/kubetest"
	"github.com/braid-cni/braid/resolve"
)

func open(t *testing.T, s *kubetest.Server) *kube.Resolver {
	t.Helper()
	r, err := kube.Open(s.Kubeconfig(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// within gives a test's requests a deadline.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func newPod(name string, annotations map[string]string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: annotations}}
}

func addNAD(s *kubetest.Server, namespace, name, config string) {
	s.AddNAD(&netv1.NetworkAttachmentDefinition{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       netv1.NetworkAttachmentDefinitionSpec{Config: config},
	})
}

// wantError checks an error's reason and a part of its message.
func wantError(t *testing.T, err error, reason, message string) {
	t.Helper()
	var e *resolve.Error
	if !errors.As(err, &e) {
		t.Fatalf("found error %v of type %T, want a *resolve.Error", err, err)
	}
	if e.Reason != reason || !strings.Contains(e.Message, message) {
		t.Errorf("found error %s: %q, want %s: %q", e.Reason, e.Message, reason, message)
	}
}

const (
	podPath   = "/api/v1/namespaces/default/pods/web"
	nadPrefix = "/apis/k8s.cni.cncf.io/v1/namespaces/"
	nadInfix  = "/network-attachment-definitions/"
)

func TestResolve(t *testing.T) {
	s := kubetest.New(t)
	annotations := map[string]string{
		"k8s.v1.cni.cncf.io/networks":      "blue, net/red@uplink, absent, blue",
		"v1.multus-cni.io/default-network": "plain",
		"other":                            "annotation",
	}
	uid := s.AddPod(newPod("web", annotations))
	addNAD(s, "default", "blue", `{"type":"bridge"}`)
	addNAD(s, "net", "red", "")
	addNAD(s, "kube-system", "plain", "{}")
	addNAD(s, "kube-system", "extra", "{}")

	a, err := open(t, s).Resolve(within(t, time.Minute), &resolve.Query{
		Pod:              resolve.Pod{Namespace: "default", Name: "web", UID: uid},
		Networks:         []resolve.NetworkName{{Namespace: "kube-system", Name: "extra"}, {Namespace: "default", Name: "blue"}},
		DefaultNamespace: "kube-system",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := &resolve.Answer{
		Pod: resolve.Pod{Namespace: "default", Name: "web", UID: uid},
		Annotations: map[string]string{
			"k8s.v1.cni.cncf.io/networks": annotations["k8s.v1.cni.cncf.io/networks"], "v1.multus-cni.io/default-network": "plain",
		},
		Networks: map[string]resolve.Network{
			"default/blue": {Config: `{"type":"bridge"}`}, "net/red": {}, "kube-system/plain": {Config: "{}"}, "kube-system/extra": {Config: "{}"},
		},
	}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	var requests []string
	for _, r := range s.Requests() {
		requests = append(requests, r.String())
	}
	slices.Sort(requests) // they come at the same time
	wantRequests := []string{
		"GET " + podPath,
		"GET " + nadPrefix + "default" + nadInfix + "absent",
		"GET " + nadPrefix + "default" + nadInfix + "absent", // of the storage, since it is not in memory
		"GET " + nadPrefix + "default" + nadInfix + "blue",
		"GET " + nadPrefix + "kube-system" + nadInfix + "extra",
		"GET " + nadPrefix + "kube-system" + nadInfix + "plain",
		"GET " + nadPrefix + "net" + nadInfix + "red",
	}
	if diff := cmp.Diff(wantRequests, requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

func TestResolveNetworksOnly(t *testing.T) {
	s := kubetest.New(t)
	addNAD(s, "default", "blue", "{}")
	a, err := open(t, s).Resolve(within(t, time.Minute), &resolve.Query{Networks: []resolve.NetworkName{{Namespace: "default", Name: "blue"}}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&resolve.Answer{Networks: map[string]resolve.Network{"default/blue": {Config: "{}"}}}, a); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
}

// The plan reads the annotation again, and complains.
func TestResolveUnreadableAnnotation(t *testing.T) {
	s := kubetest.New(t)
	s.AddPod(newPod("web", map[string]string{"k8s.v1.cni.cncf.io/networks": `[{"name": "blue"}, null]`}))
	a, err := open(t, s).Resolve(within(t, time.Minute), &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Networks) > 0 || len(a.Annotations) != 1 || len(s.Requests()) != 1 {
		t.Errorf("found %v after %v, want the annotation after one request", a, s.Requests())
	}
}

func TestResolvePodThatIsAnother(t *testing.T) {
	const mirror = "kubernetes.io/config.mirror"
	for _, tt := range []struct {
		name        string
		annotations map[string]string
		ask         string // UID; empty means that of the pod
		found       bool
		tries       int // 0 means several
	}{
		{name: "same", found: true, tries: 1},
		{name: "another", ask: "other", tries: 2}, // in memory, and in the storage
		{name: "mirror pod, own UID", annotations: map[string]string{mirror: "hash"}, found: true, tries: 1},
		{name: "mirror pod, UID of the static pod", annotations: map[string]string{mirror: "hash"}, ask: "hash", found: true, tries: 1},
		{name: "mirror pod of an older static pod", annotations: map[string]string{mirror: "old"}, ask: "hash"},
		{name: "pretends to be static", annotations: map[string]string{"kubernetes.io/config.source": "file", "kubernetes.io/config.hash": "hash"}, ask: "hash", tries: 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := kubetest.New(t)
			uid := s.AddPod(newPod("web", tt.annotations))
			if tt.ask == "" {
				tt.ask = uid
			}
			a, err := open(t, s).Resolve(within(t, time.Minute), &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web", UID: tt.ask}})
			switch {
			case !tt.found:
				wantError(t, err, resolve.NotFound, "has UID "+uid+", want "+tt.ask)
			case err != nil:
				t.Error(err)
			case a.Pod.UID != tt.ask:
				t.Errorf("found UID %s, want %s", a.Pod.UID, tt.ask)
			}
			if n := len(s.Requests()); tt.tries > 0 && n != tt.tries || n == 0 || tt.tries == 0 && n == 1 {
				t.Errorf("found %d requests, want %d", n, tt.tries)
			}
		})
	}
}

// TestResolveAnnotations: what the runtime hands over, against what the API server has.
func TestResolveAnnotations(t *testing.T) {
	const source, mirror, networks = "kubernetes.io/config.source", "kubernetes.io/config.mirror", "k8s.v1.cni.cncf.io/networks"
	const hash = "0123456789abcdef0123456789abcdef"
	for _, tt := range []struct {
		name     string
		api      map[string]string // nil: there is no pod
		handed   map[string]string
		uid      string // empty means that of the pod
		want     string // network that is answered
		requests int    // for the pod
		logged   bool
	}{
		{name: "the same", api: map[string]string{networks: "a"}, handed: map[string]string{source: "api", networks: "a", "other": "x"}, want: "a", requests: 1},
		{name: "others", api: map[string]string{networks: "a"}, handed: map[string]string{source: "api", networks: "b"}, want: "a", requests: 2, logged: true},
		{name: "static pod without mirror pod", handed: map[string]string{source: "file", networks: "b"}, uid: hash, want: "b"},
		{name: "static pod from a URL", handed: map[string]string{source: "http", networks: "b"}, uid: hash, want: "b"},
		{name: "static pod with an older mirror pod", api: map[string]string{mirror: "old", networks: "a"}, handed: map[string]string{source: "file", networks: "b"}, uid: hash, want: "b"},
		{name: "no annotation of the runtime", api: map[string]string{mirror: hash, networks: "a"}, uid: hash, want: "a", requests: 1},
		{name: "pretends to be static", api: map[string]string{source: "file", networks: "a"}, handed: map[string]string{source: "api", networks: "b"}, want: "a", requests: 2, logged: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := kubetest.New(t)
			if tt.api != nil {
				uid := s.AddPod(newPod("web", tt.api))
				if tt.uid == "" {
					tt.uid = uid
				}
			}
			addNAD(s, "default", "a", "{}")
			addNAD(s, "default", "b", "{}")
			var log bytes.Buffer
			r, err := kube.Open(s.Kubeconfig(), slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			a, err := r.Resolve(within(t, time.Minute), &resolve.Query{
				Pod: resolve.Pod{Namespace: "default", Name: "web", UID: tt.uid}, Annotations: tt.handed,
			})
			if err != nil {
				t.Fatal(err)
			}
			want := &resolve.Answer{
				Pod:         resolve.Pod{Namespace: "default", Name: "web", UID: tt.uid},
				Annotations: map[string]string{networks: tt.want}, Networks: map[string]resolve.Network{"default/" + tt.want: {Config: "{}"}},
			}
			if diff := cmp.Diff(want, a); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
			n := 0
			for _, r := range s.Requests() {
				if r.Path == podPath {
					n++
				}
			}
			if n != tt.requests {
				t.Errorf("found requests %v, want %d for the pod", s.Requests(), tt.requests)
			}
			if logged := strings.Contains(log.String(), "pod=default/web"); logged != tt.logged {
				t.Errorf("log: %q, want the difference in it: %v", &log, tt.logged)
			}
		})
	}
}

func TestPodExists(t *testing.T) {
	const hash = "0123456789abcdef0123456789abcdef"
	s := kubetest.New(t)
	uid := s.AddPod(newPod("web", nil))
	r := open(t, s)
	for pod, want := range map[resolve.Pod]bool{
		{Namespace: "default", Name: "web", UID: uid}:     true,
		{Namespace: "default", Name: "web", UID: "other"}: false,
		{Namespace: "default", Name: "none", UID: uid}:    false,
		{Namespace: "default", Name: "static", UID: hash}: true, // the kubelet alone knows
		{Namespace: "default", Name: "web", UID: ""}:      true,
	} {
		if exists, err := r.PodExists(within(t, time.Minute), pod); err != nil || exists != want {
			t.Errorf("PodExists(%v): %v, %v, want %v", pod, exists, err, want)
		}
	}
	s.Break(kubetest.Fault{Code: 500, Message: "no leader"})
	if exists, err := r.PodExists(within(t, 300*time.Millisecond), resolve.Pod{Namespace: "default", Name: "none", UID: uid}); err == nil {
		t.Errorf("without an answer: %v, want an error", exists)
	}
	s.Mend()
	s.Break(kubetest.Fault{Code: 404}) // of something that is no API server
	if exists, err := r.PodExists(within(t, time.Minute), resolve.Pod{Namespace: "default", Name: "none", UID: uid}); err == nil {
		t.Errorf("404 of a proxy: %v, want an error", exists)
	}
}

// TestObserve: every request is counted, in the words of RBAC.
func TestObserve(t *testing.T) {
	s := kubetest.New(t)
	uid := s.AddPod(newPod("web", map[string]string{"k8s.v1.cni.cncf.io/networks": "blue"}))
	var mu sync.Mutex
	var found []string
	r, err := kube.New(kube.Options{
		Kubeconfig: s.Kubeconfig(), Log: slog.New(slog.DiscardHandler), Daemon: true,
		Observe: func(r kube.Request) {
			mu.Lock()
			defer mu.Unlock()
			found = append(found, fmt.Sprint(r.Verb, " ", r.Resource, " ", r.Code))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Break(kubetest.Fault{Path: "/pods/", Times: 1, Close: true})
	a, err := r.Resolve(within(t, time.Minute), &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web", UID: uid}})
	if err != nil {
		t.Fatal(err)
	}
	events := []resolve.Event{{Type: "Normal", Reason: "AddedInterface", Message: "Add net1"}}
	if err := r.Report(within(t, time.Minute), &resolve.Report{Pod: a.Pod, Status: []byte("[]"), Events: events}); err != nil {
		t.Fatal(err)
	}
	want := []string{"create events 201", "get network-attachment-definitions 404", "get pods 0", "get pods 200", "patch pods/status 200"}
	slices.Sort(found)
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// TestTokenFile: a token that is replaced counts from the next request on.
func TestTokenFile(t *testing.T) {
	s := kubetest.New(t)
	s.AddPod(newPod("web", nil))
	r := open(t, s)
	for _, token := range []string{"second", "third", "fourth"} {
		s.SetToken(token)
		if _, err := r.Resolve(within(t, time.Minute), &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web"}}); err != nil {
			t.Errorf("token %s: %v", token, err)
		}
	}
	if n := len(s.Requests()); n != 3 {
		t.Errorf("found %d requests, want 3", n)
	}
}

func TestResolvePodThatComesLate(t *testing.T) {
	s := kubetest.New(t)
	r := open(t, s)
	q := &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web"}}
	_, err := r.Resolve(within(t, time.Minute), q)
	wantError(t, err, resolve.NotFound, "get pods default/web: pod default/web not found")
	if n := len(s.Requests()); n < 2 {
		t.Errorf("found %d requests, want several", n)
	}

	s.ResetRequests()
	s.AddPod(newPod("web", nil))
	s.Break(kubetest.Fault{Path: podPath, Times: 2, Code: 404, Message: "no such pod"})
	if _, err := r.Resolve(within(t, time.Minute), q); err != nil {
		t.Error(err)
	}
}

// What the API server cannot do now is tried again, whatever the request.
func TestTriesAgain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		fault kubetest.Fault
	}{
		{"409", kubetest.Fault{Code: 409, Message: "the object has been modified"}},
		{"429", kubetest.Fault{Code: 429, Times: 1, RetryAfter: "1"}},
		{"500", kubetest.Fault{Code: 500, Message: "etcdserver: leader changed"}},
		{"502 of a proxy", kubetest.Fault{Code: 502}},
		{"503", kubetest.Fault{Code: 503}},
		{"504", kubetest.Fault{Code: 504, Message: "timed out"}},
		{"broken stream", kubetest.Fault{Close: true}},
		{"slow", kubetest.Fault{Delay: 100 * time.Millisecond}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.fault.Times == 0 {
				tt.fault.Times = 2
			}
			s := kubetest.New(t)
			r := open(t, s)
			s.AddPod(newPod("web", map[string]string{"k8s.v1.cni.cncf.io/networks": "blue"}))
			addNAD(s, "default", "blue", "{}")
			for _, f := range []struct{ method, path string }{{"GET", "/pods/"}, {"GET", nadInfix}, {"PATCH", "/status"}, {"POST", "/events"}} {
				tt.fault.Method, tt.fault.Path = f.method, f.path
				s.Break(tt.fault)
			}
			ctx := within(t, time.Minute)
			start := time.Now()
			a, err := r.Resolve(ctx, &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web"}})
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := a.Networks["default/blue"]; !ok {
				t.Errorf("found networks %v, want default/blue", a.Networks)
			}
			if took := time.Since(start); tt.fault.RetryAfter != "" && took < 2*time.Second {
				t.Errorf("took %v, although the server asked twice for a pause of a second", took)
			}
			event := resolve.Event{Type: "Normal", Reason: "AddedInterface", Message: "Add net1"}
			if err := r.Report(ctx, &resolve.Report{Pod: a.Pod, Status: []byte("[]"), Events: []resolve.Event{event}}); err != nil {
				t.Error(err)
			}
			if status := s.Status("default", "web"); status != "[]" {
				t.Errorf("found status %q, want []", status)
			}
			if n := len(s.Events()); n != 1 {
				t.Errorf("found %d events, want 1", n)
			}
		})
	}
}

func TestGivesUp(t *testing.T) {
	for _, tt := range []struct {
		name            string
		fault           kubetest.Fault
		reason, message string
	}{
		{"429 for longer than there is time", kubetest.Fault{Code: 429, RetryAfter: "60"}, resolve.Unavailable, "get pods default/web: "},
		{"500", kubetest.Fault{Code: 500, Message: "etcdserver: no leader"}, resolve.Unavailable, "get pods default/web: etcdserver: no leader"},
		{"hang", kubetest.Fault{Hang: true}, resolve.Unavailable, "get pods default/web: "},
		{"500, then hang", kubetest.Fault{Code: 500, Message: "first of all", Times: 1}, resolve.Unavailable, "first of all"},
		{"400", kubetest.Fault{Code: 400, Message: "bad request"}, resolve.Invalid, "bad request"},
		{"403", kubetest.Fault{Code: 403, Message: `pods "web" is forbidden: User "braid" cannot get resource "pods"`}, resolve.Invalid, `User "braid" cannot get resource "pods"; the account of kubeconfig `},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := kubetest.New(t)
			s.AddPod(newPod("web", nil))
			s.Break(tt.fault)
			if tt.fault.Times > 0 {
				s.Break(kubetest.Fault{Hang: true})
			}
			start := time.Now()
			_, err := open(t, s).Resolve(within(t, time.Second), &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web"}})
			wantError(t, err, tt.reason, tt.message)
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %v, with a deadline of one second", took)
			}
			if n := len(s.Requests()); n > 1 && tt.reason == resolve.Invalid {
				t.Errorf("found %d requests, want one", n)
			}
		})
	}
}

func TestServerIsGone(t *testing.T) {
	s := kubetest.New(t)
	r := open(t, s)
	s.Stop()
	_, err := r.Resolve(within(t, 500*time.Millisecond), &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web"}})
	wantError(t, err, resolve.Unavailable, "connection refused")
}

func TestNoCustomResourceDefinition(t *testing.T) {
	s := kubetest.New(t)
	s.Break(kubetest.Fault{Path: nadInfix, Code: 404})
	_, err := open(t, s).Resolve(within(t, time.Minute), &resolve.Query{Networks: []resolve.NetworkName{{Namespace: "default", Name: "blue"}}})
	wantError(t, err, resolve.Invalid, "apply their CustomResourceDefinition")
}

func TestNameThatIsAPath(t *testing.T) {
	s := kubetest.New(t)
	for _, name := range []resolve.NetworkName{{Namespace: "default", Name: "../pods/web"}, {Namespace: "..", Name: "blue"}} {
		_, err := open(t, s).Resolve(within(t, time.Minute), &resolve.Query{Networks: []resolve.NetworkName{name}})
		wantError(t, err, resolve.Invalid, "invalid")
	}
	if n := len(s.Requests()); n > 0 {
		t.Errorf("found requests %v, want none", s.Requests())
	}
}

func TestCredentials(t *testing.T) {
	s := kubetest.New(t)
	s.AddPod(newPod("web", nil))
	q := &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web"}}

	if err := os.WriteFile(s.TokenFile(), []byte("expired"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := open(t, s).Resolve(within(t, time.Minute), q)
	wantError(t, err, resolve.Invalid, "does not accept the credentials of kubeconfig "+s.Kubeconfig())

	s.SetToken("fresh")
	if _, err := open(t, s).Resolve(within(t, time.Minute), q); err != nil {
		t.Errorf("with a fresh token: %v", err)
	}

	// Another authority.
	text, err := os.ReadFile(s.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(", certificate-authority: ca.crt"), nil, 1)
	if err := os.WriteFile(s.Kubeconfig(), text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = open(t, s).Resolve(within(t, time.Minute), q)
	wantError(t, err, resolve.Invalid, "certificate signed by unknown authority")
}

func TestOpen(t *testing.T) {
	path := t.TempDir() + "/kubeconfig"
	for _, tt := range []struct{ text, message string }{
		{"", "no such file or directory"},
		{"clusters: 1\n", "read kubeconfig " + path},
		{"apiVersion: v1\nkind: Config\n", "no configuration has been provided"},
	} {
		if tt.text != "" {
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, err := kube.Open(path, slog.New(slog.DiscardHandler))
		wantError(t, err, resolve.Invalid, tt.message)
	}
}

func TestOneConnection(t *testing.T) {
	s := kubetest.New(t)
	annotations := map[string]string{"k8s.v1.cni.cncf.io/networks": "a,b,c,d,e,f"}
	uid := s.AddPod(newPod("web", annotations))
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		addNAD(s, "default", name, "{}")
	}
	r := open(t, s)
	a, err := r.Resolve(within(t, time.Minute), &resolve.Query{
		Pod: resolve.Pod{Namespace: "default", Name: "web", UID: uid}, Annotations: annotations,
	})
	if err != nil {
		t.Fatal(err)
	}
	events := []resolve.Event{{Reason: "A"}, {Reason: "B"}, {Reason: "C"}}
	if err := r.Report(within(t, time.Minute), &resolve.Report{Pod: a.Pod, Status: []byte("[]"), Events: events}); err != nil {
		t.Fatal(err)
	}
	if n := s.Connections(); n != 1 {
		t.Errorf("found %d connections, want one", n)
	}
	if n := len(s.Requests()); n != 1+6+1+3 {
		t.Errorf("found %d requests, want 11", n)
	}
}

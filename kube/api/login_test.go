package api_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/kube/api"
	"github.com/braid-cni/braid/kube/kubetest"
	"github.com/braid-cni/braid/resolve"
)

// TestOneConnection: all that an ADD asks at once shares the connection that is about to be made.
func TestOneConnection(t *testing.T) {
	s := kubetest.New(t)
	annotations := map[string]string{"k8s.v1.cni.cncf.io/networks": "a,b,c,d,e,f"}
	uid := s.AddPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Annotations: annotations}})
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		s.AddNAD(&netv1.NetworkAttachmentDefinition{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}})
	}
	server, err := api.Login(s.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	r := api.New(server, api.Options{Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, err := r.Resolve(ctx, &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web", UID: uid}, Annotations: annotations})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Networks) != 6 {
		t.Errorf("found networks %v, want 6", a.Networks)
	}
	events := []resolve.Event{{Reason: "A"}, {Reason: "B"}, {Reason: "C"}}
	if err := r.Report(ctx, &resolve.Report{Pod: a.Pod, Status: []byte("[]"), Events: events}); err != nil {
		t.Fatal(err)
	}
	if n := s.Connections(); n != 1 {
		t.Errorf("found %d connections, want one", n)
	}
	if n := len(s.Requests()); n != 1+6+1+3 {
		t.Errorf("found requests %v, want 11", s.Requests())
	}
}

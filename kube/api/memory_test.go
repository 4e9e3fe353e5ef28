package api_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/kube/api"
	"github.com/braid-cni/braid/kube/kubetest"
	"github.com/braid-cni/braid/resolve"
)

const networksKey = "k8s.v1.cni.cncf.io/networks"

func addPod(s *kubetest.Server, networks string) (uid string) {
	return s.AddPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: "web", Annotations: map[string]string{networksKey: networks},
	}})
}

func addNetwork(s *kubetest.Server, name, config string) {
	s.AddNAD(&netv1.NetworkAttachmentDefinition{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: netv1.NetworkAttachmentDefinitionSpec{Config: config},
	})
}

// TestMemory: the memory of an API server may be behind. What that shows of itself is read from the storage.
func TestMemory(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before func(*kubetest.Server) // the memory has come that far
		handed string                 // networks that the runtime knows of; empty: it hands nothing over
		noUID  bool
		want   string // config of a, b and c
		logged bool
	}{
		{
			name:   "up to date",
			before: func(s *kubetest.Server) { addNetwork(s, "b", "new") },
			want:   "b=new",
		},
		{name: "neither pod nor network yet", want: "b=new"},
		{name: "neither, and the runtime knows the pod", handed: "b", want: "b=new"},
		{name: "an earlier pod", before: func(s *kubetest.Server) { addPod(s, "a") }, want: "b=new"},
		{name: "an earlier pod, and no UID", before: func(s *kubetest.Server) { addPod(s, "a") }, noUID: true, want: "b=new"},
		{name: "the runtime has other networks", handed: "c", want: "b=new", logged: true},
		{
			name:   "an earlier network", // as those who watch see it
			before: func(s *kubetest.Server) { addNetwork(s, "b", "old") },
			want:   "b=old",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := kubetest.New(t)
			if tt.before != nil {
				tt.before(s)
			}
			s.Lag()
			q := &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web", UID: addPod(s, "b")}}
			addNetwork(s, "b", "new")
			if tt.noUID {
				q.Pod.UID = ""
			}
			if tt.handed != "" {
				q.Annotations = map[string]string{networksKey: tt.handed}
			}
			server, err := api.Login(s.Kubeconfig())
			if err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			a, err := api.New(server, api.Options{Log: slog.New(slog.NewTextHandler(&log, nil))}).Resolve(ctx, q)
			if err != nil {
				t.Fatal(err)
			}
			var found []string
			for name, n := range a.Networks {
				found = append(found, strings.TrimPrefix(name, "default/")+"="+n.Config)
			}
			if got := strings.Join(found, " "); got != tt.want {
				t.Errorf("found networks %q, want %q", got, tt.want)
			}
			if logged := log.Len() > 0; logged != tt.logged {
				t.Errorf("log: %q, want something in it: %v", &log, tt.logged)
			}
		})
	}
}

// TestMemoryContradictsTheRuntime: the kubelet has heard of a change that the memory has not. The storage decides.
func TestMemoryContradictsTheRuntime(t *testing.T) {
	s := kubetest.New(t)
	add := func(networks string) {
		s.AddPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: "web", UID: "u", Annotations: map[string]string{networksKey: networks},
		}})
	}
	addNetwork(s, "a", "{}")
	addNetwork(s, "b", "{}")
	add("a")
	s.Lag()
	add("b")
	server, err := api.Login(s.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, err := api.New(server, api.Options{Log: slog.New(slog.NewTextHandler(&log, nil))}).Resolve(ctx, &resolve.Query{
		Pod: resolve.Pod{Namespace: "default", Name: "web", UID: "u"}, Annotations: map[string]string{networksKey: "b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := a.Networks["default/b"]; !ok || len(a.Networks) != 1 || a.Annotations[networksKey] != "b" || log.Len() > 0 {
		t.Errorf("found %v and log %q, want network b and nothing logged", a, &log)
	}
}

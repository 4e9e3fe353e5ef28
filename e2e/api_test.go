package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	k8stypes "k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/kube/kubetest"
)

// apiNode is a node whose pods are in an API server, one of ours that speaks HTTPS.
func apiNode(t *testing.T) (*node, *kubetest.Server) {
	t.Helper()
	n := newNode(t)
	server := kubetest.New(t)
	n.keys = fmt.Sprintf(`"kubeconfig": %q`, server.Kubeconfig())
	server.AddNAD(&netv1.NetworkAttachmentDefinition{
		ObjectMeta: metav1.ObjectMeta{Namespace: "blue", Name: "storage"},
		Spec:       netv1.NetworkAttachmentDefinitionSpec{Config: n.expand(storage)},
	})
	server.AddPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: "blue", Name: "web", UID: k8stypes.UID("uid-web"),
		Annotations: map[string]string{"k8s.v1.cni.cncf.io/networks": "storage"},
	}})
	return n, server
}

func TestAPIServer(t *testing.T) {
	n, server := apiNode(t)
	p := n.pod("web", "")
	res := p.mustAdd()
	if a := addresses(t, res)["net1"]; !slices.Equal(a, []string{"10.10.0.2/24"}) {
		t.Errorf("addresses of net1: %q", a)
	}
	var status []struct {
		Name, Interface string
		IPs             []string
	}
	if err := json.Unmarshal([]byte(server.Status("blue", "web")), &status); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(status); got != "[{cluster eth0 [10.244.0.2 fd00:244::2]} {blue/storage net1 [10.10.0.2]}]" {
		t.Errorf("network-status: %s", got)
	}
	if events := server.Events(); len(events) != 1 || events[0].Reason != "AddedInterface" || events[0].InvolvedObject.UID != "uid-web" {
		t.Errorf("events: %v", events)
	}
	server.Stop()
	if err := p.check(); err != nil {
		t.Errorf("CHECK without the API server: %v", err)
	}
	p.mustDel()
	n.left()
	n.removeBridges()
}

// TestAPIServerIsDown: the ADD can be tried again later, and has left nothing.
func TestAPIServerIsDown(t *testing.T) {
	n, server := apiNode(t)
	n.keys += `, "deadlines": {"resolve": "2s"}`
	server.Stop()
	p := n.pod("web", "")
	_, err := p.add()
	var coded *types.Error
	if !errors.As(err, &coded) || coded.Code != types.ErrTryAgainLater {
		t.Errorf("error = %v, want code 11", err)
	}
	n.left()
}

// TestStatusCannotBeWritten: the last step of an ADD fails, and takes all others back.
func TestStatusCannotBeWritten(t *testing.T) {
	n, server := apiNode(t)
	n.keys += `, "deadlines": {"resolve": "5s"}`
	server.Break(kubetest.Fault{Method: "PATCH", Code: 500})
	p := n.pod("web", "")
	if _, err := p.add(); err == nil || !strings.Contains(err.Error(), "network-status") {
		t.Errorf("error = %v, want it to tell network-status", err)
	}
	if links := p.ns.Links(t); len(links) > 0 {
		t.Errorf("links of the pod: %q", links)
	}
	n.left()
	n.removeBridges()
}

// TestKilledDuringRequest: an ADD is killed while the API server has each of its questions. What it has made by then, DEL takes
// back. Before the report, so does the next ADD; with it the record may be there already.
func TestKilledDuringRequest(t *testing.T) {
	n, server := apiNode(t)
	p := n.pod("web", "")
	for _, fault := range []kubetest.Fault{
		{Method: "GET", Path: "/pods/web"}, {Method: "GET", Path: "/storage"}, {Method: "PATCH"}, {Method: "POST", Path: "/events"},
	} {
		for _, next := range []string{"DEL", "ADD"} {
			if next == "ADD" && fault.Method != "GET" {
				continue
			}
			what := fmt.Sprintf("%s %s, then %s", fault.Method, fault.Path, next)
			fault.Hang = true
			server.Break(fault)
			before := len(server.Requests())
			asked := func() bool {
				return slices.ContainsFunc(server.Requests()[before:], func(r kubetest.Request) bool {
					return r.Method == fault.Method && strings.Contains(r.Path, fault.Path)
				})
			}
			ctx, kill := context.WithCancel(t.Context())
			added := make(chan error, 1)
			go func() {
				_, err := p.cni().AddNetworkList(ctx, p.network("1.1.0"), p.runtimeConf())
				added <- err
			}()
			for deadline := time.Now().Add(30 * time.Second); !asked(); time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%s: it is not asked", what)
				}
			}
			kill() // by SIGKILL, as libcni does it
			if err := <-added; err == nil {
				t.Errorf("%s: ADD was done", what)
			}
			server.Mend()
			if next == "ADD" {
				p.mustAdd()
			}
			p.mustDel()
			n.left()
		}
	}
	n.removeBridges()
}

// TestAPIServerIsHostile: what stands in the place of the API server answers without an end, or with what is no answer, to each
// question of an ADD. The ADD fails, and has left nothing.
func TestAPIServerIsHostile(t *testing.T) {
	for _, body := range []string{strings.Repeat(`{"metadata":`, 3<<20), strings.Repeat("[", 1<<20), "\x00"} {
		for _, question := range []kubetest.Fault{{Method: "GET", Path: "/pods/web"}, {Method: "GET", Path: "/storage"}, {Method: "PATCH"}} {
			t.Run(fmt.Sprintf("%s %s, %.3q and so on", question.Method, question.Path, body), func(t *testing.T) {
				n, server := apiNode(t)
				question.Code, question.Body = 200, body
				server.Break(question)
				p := n.pod("web", "")
				if _, err := p.add(); err == nil || !strings.Contains(err.Error(), "answer") {
					t.Errorf("error = %v, want it to tell the answer", err)
				}
				if links := p.ns.Links(t); len(links) > 0 {
					t.Errorf("links of the pod: %q", links)
				}
				n.left()
				n.removeBridges()
			})
		}
	}
}

//go:build cluster

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/e2e/cluster"
	"github.com/braid-cni/braid/internal/nettest"
)

// kubeBinEnv names the folder with etcd and kube-apiserver, see hack/kubebin.
const kubeBinEnv = "BRAID_KUBEBIN"

// A clusterNode is a node of a real cluster. Braid has the rights of deploy/rbac.yaml, and reaches the API server by way
// of a proxy.
type clusterNode struct {
	*node
	cluster *cluster.Cluster
	proxy   *cluster.Proxy
}

func newClusterNode(t *testing.T) *clusterNode {
	t.Helper()
	bin := os.Getenv(kubeBinEnv)
	if bin == "" {
		t.Fatalf("%s is not set: run `make test-cluster`", kubeBinEnv)
	}
	n := &clusterNode{node: newNode(t), cluster: cluster.Start(t, bin)}
	n.cluster.Apply("../deploy/crd.yaml")
	n.cluster.Apply("../deploy/rbac.yaml")
	n.cluster.Create(map[string]any{"kind": "Namespace", "metadata": map[string]any{"name": "blue"}})
	n.proxy = n.cluster.NewProxy()
	n.keys = fmt.Sprintf(`"kubeconfig": %q`, n.cluster.Kubeconfig("kube-system", "braid", n.proxy.URL))
	n.apply("storage", storage)
	n.apply("lan", lan)
	return n
}

func (n *clusterNode) apply(name, config string) {
	n.t.Helper()
	n.cluster.Create(map[string]any{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": map[string]any{"namespace": "blue", "name": name},
		"spec":     map[string]any{"config": n.expand(config)},
	})
}

// A clusterPod is a pod of the API server.
type clusterPod struct {
	*pod
	node *clusterNode
	uid  string
}

func (n *clusterNode) podWith(name, networks string) *clusterPod {
	n.t.Helper()
	return n.podSpec(name, networks, nil)
}

// podSpec makes a pod with further keys in its spec.
func (n *clusterNode) podSpec(name, networks string, keys map[string]any) *clusterPod {
	n.t.Helper()
	spec := map[string]any{"containers": []any{map[string]any{"name": "c", "image": "example.org/c"}}}
	maps.Copy(spec, keys)
	n.cluster.Create(map[string]any{
		"kind": "Pod", "metadata": map[string]any{
			"namespace": "blue", "name": name, "annotations": map[string]any{"k8s.v1.cni.cncf.io/networks": networks},
		},
		"spec": spec,
	})
	p := &clusterPod{pod: &pod{node: n.node, name: name, ns: nettest.NewNS(n.t)}, node: n}
	p.uid = p.get().Metadata.UID
	p.args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "blue"}, {"K8S_POD_NAME", name}, {"K8S_POD_UID", p.uid}}
	return p
}

type podObject struct {
	Metadata struct {
		UID         string
		Annotations map[string]string
	}
}

func (p *clusterPod) get() (object podObject) {
	p.t.Helper()
	p.node.cluster.Do(http.MethodGet, "/api/v1/namespaces/blue/pods/"+p.name, nil, &object)
	return object
}

// status returns network-status as the API server has it: "name interface ips…".
func (p *clusterPod) status() (lines []string) {
	p.t.Helper()
	annotation := p.get().Metadata.Annotations["k8s.v1.cni.cncf.io/network-status"]
	if annotation == "" {
		return nil
	}
	var list []struct {
		Name, Interface string
		IPs             []string
	}
	if err := json.Unmarshal([]byte(annotation), &list); err != nil {
		p.t.Fatalf("%v: %s", err, annotation)
	}
	for _, s := range list {
		lines = append(lines, strings.Join(append([]string{s.Name, s.Interface}, s.IPs...), " "))
	}
	return lines
}

// events returns "type reason message" of the pod's events.
func (p *clusterPod) events() (lines []string) {
	p.t.Helper()
	var list struct {
		Items []struct {
			Type, Reason, Message string
			InvolvedObject        struct{ UID string }
		}
	}
	p.node.cluster.Do(http.MethodGet, "/api/v1/namespaces/blue/events", nil, &list)
	for _, e := range list.Items {
		if e.InvolvedObject.UID == p.uid {
			lines = append(lines, e.Type+" "+e.Reason+" "+e.Message)
		}
	}
	return lines
}

func (p *clusterPod) delete() {
	p.t.Helper()
	p.node.cluster.Do(http.MethodDelete, "/api/v1/namespaces/blue/pods/"+p.name, map[string]any{"gracePeriodSeconds": 0}, nil)
}

// TestCluster: pods of a real API server, and everything but ADD with that server stopped.
func TestCluster(t *testing.T) {
	n := newClusterNode(t)
	p := n.podWith("web", fmt.Sprintf(both, 10, 10))
	n.proxy.Requests()
	res := p.mustAdd()
	requests := n.proxy.Requests()
	if len(requests) != 5 { // the pod, two networks, the status, an event
		t.Errorf("requests of an ADD: %q", requests)
	}
	want := map[string][]string{"eth0": {"10.244.0.2/24", "fd00:244::2/64"}, "net1": {"10.10.0.2/24"}, "lan0": {"192.0.2.10/24", "2001:db8::10/64"}}
	if diff := cmp.Diff(want, addresses(t, res)); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	status := []string{"cluster eth0 10.244.0.2 fd00:244::2", "blue/storage net1 10.10.0.2", "blue/lan lan0 192.0.2.10 2001:db8::10"}
	if diff := cmp.Diff(status, p.status()); diff != "" {
		t.Errorf("network-status (-want +got):\n%s", diff)
	}
	if events := p.events(); !slices.ContainsFunc(events, func(e string) bool {
		return strings.HasPrefix(e, "Normal AddedInterface Add eth0 [") && strings.Contains(e, ", net1 [10.10.0.2/24] from blue/storage, lan0 [")
	}) {
		t.Errorf("events: %q", events)
	}
	n.cluster.StopAPIServer()
	n.proxy.Requests()
	if err := p.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	gc := libcni.NewCNIConfigWithCacheDir(n.path, t.TempDir(), nil)
	if err := gc.GCNetworkList(t.Context(), n.network("1.1.0"), &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "c-web", IfName: "eth0"}}}); err != nil {
		t.Errorf("GC: %v", err)
	}
	if err := p.check(); err != nil {
		t.Errorf("CHECK after GC: %v", err)
	}
	p.mustDel()
	if requests := n.proxy.Requests(); len(requests) > 0 {
		t.Errorf("CHECK, GC and DEL asked the API server: %q", requests)
	}
	n.left()
	n.removeBridges()
}

// TestClusterFaults: an API server on a bad day. ADD succeeds if it can within its deadline, and else leaves nothing.
func TestClusterFaults(t *testing.T) {
	n := newClusterNode(t)
	n.keys += `, "deadlines": {"resolve": "20s", "add": "30s"}`
	answer := func(times int32, method string, status int) cluster.Fault {
		var left atomic.Int32
		left.Store(times)
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != method || left.Add(-1) < 0 {
				return false
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"message":"fault of the test"}`, status)
			return true
		}
	}
	for i, tt := range []struct {
		name  string
		fault cluster.Fault
		code  uint // 0: ADD succeeds
	}{
		{"409 for the status, twice", answer(2, http.MethodPatch, 409), 0},
		{"429 for the pod, once", answer(1, http.MethodGet, 429), 0},
		{"500 for everything read, twice", answer(2, http.MethodGet, 500), 0},
		{"503 for the status, once", answer(1, http.MethodPatch, 503), 0},
		{"slow by 5 s", func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/pods/") {
				time.Sleep(5 * time.Second)
			}
			return false
		}, 0},
		{"500 for the status, for ever", answer(1<<30, http.MethodPatch, 500), types.ErrTryAgainLater},
		{"403 for the pod", answer(1<<30, http.MethodGet, 403), 999},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n.t = t
			p := n.podWith(fmt.Sprintf("web-%d", i), "storage")
			n.proxy.Set(tt.fault)
			defer n.proxy.Set(nil)
			_, err := p.add()
			var coded *types.Error
			switch {
			case tt.code == 0 && err != nil:
				t.Errorf("ADD: %v", err)
			case tt.code != 0 && (!errors.As(err, &coded) || coded.Code != tt.code):
				t.Errorf("ADD: %v, want code %d", err, tt.code)
			case tt.code == 0 && len(p.status()) != 2:
				t.Errorf("network-status: %q", p.status())
			}
			if tt.code != 0 {
				if links := p.ns.Links(t); len(links) > 0 {
					t.Errorf("links after a failed ADD: %q", links)
				}
				n.left()
			}
			p.mustDel()
			n.left()
		})
	}
	n.t = t
	n.removeBridges()
}

// TestClusterPods: pods that are not what the runtime says, or not there.
func TestClusterPods(t *testing.T) {
	n := newClusterNode(t)
	n.keys += `, "deadlines": {"resolve": "3s"}`
	wantCode := func(t *testing.T, p *clusterPod, code uint) {
		t.Helper()
		_, err := p.add()
		var coded *types.Error
		if !errors.As(err, &coded) || coded.Code != code {
			t.Errorf("ADD: %v, want code %d", err, code)
		}
		n.left()
	}
	t.Run("another pod has the name now", func(t *testing.T) {
		n.t = t
		p := n.podWith("replaced", "storage")
		p.args[3][1] = "00000000-0000-0000-0000-000000000000"
		wantCode(t, p, types.ErrTryAgainLater)
	})
	t.Run("deleted", func(t *testing.T) {
		n.t = t
		p := n.podWith("deleted", "storage")
		p.delete()
		wantCode(t, p, types.ErrTryAgainLater)
	})
	t.Run("network missing", func(t *testing.T) {
		n.t = t
		p := n.podWith("missing", "nowhere")
		wantCode(t, p, types.ErrInvalidNetworkConfig)
		if events := p.events(); len(events) != 1 || !strings.HasPrefix(events[0], "Warning NoNetworkFound") {
			t.Errorf("events: %q", events)
		}
	})
	t.Run("API server stopped", func(t *testing.T) {
		n.t = t
		p := n.podWith("stopped", "storage")
		n.cluster.StopAPIServer()
		wantCode(t, p, types.ErrTryAgainLater)
		if err := p.del(); err != nil {
			t.Errorf("DEL: %v", err)
		}
	})
	n.t = t
	n.removeBridges()
}

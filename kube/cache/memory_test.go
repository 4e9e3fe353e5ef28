package cache_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/kube/kubetest"
)

// TestMemory: 5,000 networks and 250 pods of usual sizes. The API server is in the same process, and all it keeps is
// there before.
func TestMemory(t *testing.T) {
	const pods, nads, limit = 250, 5000, 20 << 20
	s := kubetest.New(t)
	managed := []metav1.ManagedFieldsEntry{{
		Manager: "kubectl", Operation: "Update", FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:annotations":{"f:` + strings.Repeat("x", 1000) + `":{}}}}`),
	}}
	for i := range nads {
		config := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net-%d","plugins":[{"type":"macvlan","master":"eth1","ipam":{"type":"host-local","%s":1}}]}`, i, strings.Repeat("x", 900))
		s.AddNAD(&netv1.NetworkAttachmentDefinition{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: fmt.Sprintf("tenant-%d", i%100), Name: fmt.Sprintf("net-%d", i), ManagedFields: managed,
				Annotations: map[string]string{"kubectl.kubernetes.io/last-applied-configuration": config},
			},
			Spec: netv1.NetworkAttachmentDefinitionSpec{Config: config},
		})
	}
	for i := range pods {
		many := map[string]string{networks: "net-1,net-2"}
		labels := map[string]string{}
		for j := range 30 {
			many[fmt.Sprintf("example.org/annotation-%d", j)] = strings.Repeat("a", 200)
			labels[fmt.Sprintf("example.org/label-%d", j)] = strings.Repeat("l", 40)
		}
		s.AddPod(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("pod-%d", i), Annotations: many, Labels: labels, ManagedFields: managed},
			Spec:       corev1.PodSpec{NodeName: "node"},
		})
	}
	before := heap()
	d := start(t, s)
	if p, n := d.Len(); p != pods || n != nads {
		t.Fatalf("found %d pods and %d networks", p, n)
	}
	var used int64
	eventually(t, "what the lists took to be free", func() bool {
		used = int64(heap() - before)
		return used < limit
	})
	t.Logf("%d pods and %d networks: %.1f MB of heap", pods, nads, float64(used)/1e6)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers and pools have let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

package delegate

import (
	"fmt"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/internal/memo"
	"github.com/braid-cni/braid/resolve"
)

// A pod with n networks besides the default one.
func BenchmarkPlan(b *testing.B) {
	for _, n := range []int{1, 8} {
		for memory, m := range map[string]*memo.Memory{"anew": nil, "remembered": new(memo.Memory)} {
			b.Run(fmt.Sprintf("%d networks/%s", n, memory), func(b *testing.B) { benchmarkPlan(b, n, m) })
		}
	}
}

func benchmarkPlan(b *testing.B, n int, m *memo.Memory) {
	c, err := conf.ParseWith(m, []byte(`{"cniVersion":"1.1.0","name":"pods","type":"braid","kubeconfig":"/k","delegates":[
				{"cniVersion":"1.1.0","name":"cluster","type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.1.0.0/16"}]]}}]}`))
	if err != nil {
		b.Fatal(err)
	}
	pod := &resolve.Answer{Pod: resolve.Pod{Namespace: "blue", Name: "web"}, Networks: map[string]resolve.Network{}}
	var names []string
	for i := range n {
		name := fmt.Sprint("net", i)
		names = append(names, name)
		pod.Networks["blue/"+name] = resolve.Network{Config: fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"type":"macvlan",
					"mode":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.2.0.0/16"}]]}}`, name)}
	}
	pod.Annotations = map[string]string{conf.AnnotationNetworks: strings.Join(names, ",")}
	for b.Loop() {
		plan, err := NewPlan(c, pod, "eth0", []string{"lo"})
		if err != nil || len(plan) != n+1 {
			b.Fatalf("%d planned, %v", len(plan), err)
		}
	}
}

func BenchmarkMerge(b *testing.B) {
	var results []*types100.Result
	for i := range 9 {
		results = append(results, result(b, fmt.Sprintf(`{"cniVersion":"1.1.0","interfaces":[{"name":"br%d"},{"name":"veth%d"},
			{"name":"net%d","mac":"02:00:00:00:00:0%d","sandbox":"/n"}],"ips":[{"address":"10.%d.0.2/16","interface":2}],"routes":[{"dst":"10.200.%d.0/24"}]}`, i, i, i, i, i, i)))
	}
	for b.Loop() {
		if m := merge(results); len(m.IPs) != 9 {
			b.Fatalf("%d addresses", len(m.IPs))
		}
	}
}

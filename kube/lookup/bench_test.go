package lookup_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/resolve"
)

// warm is a cache that knows everything.
type warm struct {
	lookup.Source
	pod      lookup.Pod
	networks map[resolve.NetworkName]resolve.Network
}

func (w *warm) Known(string, string) (*lookup.Pod, bool) { return &w.pod, true }
func (w *warm) KnownNetwork(name resolve.NetworkName) *resolve.Network {
	n := w.networks[name]
	return &n
}
func (w *warm) Network(_ context.Context, name resolve.NetworkName) (*resolve.Network, error) {
	return w.KnownNetwork(name), nil
}

// What the daemon does for an ADD.
func BenchmarkResolve(b *testing.B) {
	for _, n := range []int{1, 8} {
		b.Run(fmt.Sprintf("%d networks", n), func(b *testing.B) {
			w := &warm{networks: make(map[resolve.NetworkName]resolve.Network)}
			var names []string
			for i := range n {
				name := resolve.NetworkName{Namespace: "blue", Name: fmt.Sprint("net", i)}
				names = append(names, name.Name)
				w.networks[name] = resolve.Network{Config: `{"cniVersion": "1.1.0", "type": "macvlan", "master": "eth1"}`}
			}
			w.pod = lookup.Pod{UID: "6f1c", Annotations: map[string]string{"k8s.v1.cni.cncf.io/networks": strings.Join(names, ",")}}
			q := &resolve.Query{Pod: resolve.Pod{Namespace: "blue", Name: "web", UID: "6f1c"}}
			for b.Loop() {
				if a, _, err := lookup.Resolve(b.Context(), w, q); err != nil || len(a.Networks) != n {
					b.Fatal(a, err)
				}
			}
		})
	}
}

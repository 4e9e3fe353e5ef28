package lookup_test

import (
	"errors"
	"testing"

	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/resolve"
)

// A broken cache panics when it is asked for a network.
type broken struct{ *warm }

func (broken) KnownNetwork(resolve.NetworkName) *resolve.Network { panic("of the cache") }

// A panic of a source is an error, in whichever of its methods, and nobody waits for what will not come.
func TestPanic(t *testing.T) {
	annotations := map[string]string{"k8s.v1.cni.cncf.io/networks": "a,b"}
	src := broken{&warm{pod: lookup.Pod{UID: "6f1c", Annotations: annotations}}}
	_, _, err := lookup.Resolve(t.Context(), src, &resolve.Query{Pod: resolve.Pod{Namespace: "blue", Name: "web", UID: "6f1c"}})
	if e, ok := errors.AsType[*resolve.Error](err); !ok || e.Reason != resolve.Unavailable {
		t.Errorf("found %v, want that it is unavailable", err)
	}
}

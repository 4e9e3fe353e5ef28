package api

import (
	"context"

	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/resolve"
)

// inMemory asks for what the API server has in memory, which costs it a fraction of reading its storage. That is what those
// who watch get too, the kubelet and Braid's daemon among them: complete, and perhaps a moment old.
type inMemory struct{ *Resolver }

var _ lookup.Source = inMemory{}

// Pod implements [lookup.Source]. Without a UID, an earlier pod of the name could be taken for the one that is meant.
func (m inMemory) Pod(ctx context.Context, want resolve.Pod) (*lookup.Pod, error) {
	return m.pod(ctx, want, want.UID != "")
}

// Network implements [lookup.Source].
func (m inMemory) Network(ctx context.Context, name resolve.NetworkName) (*resolve.Network, error) {
	return m.network(ctx, name, true)
}

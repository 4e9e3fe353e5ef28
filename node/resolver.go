package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/node/status"
	"github.com/braid-cni/braid/resolve"
)

// A resolver answers the plugin: from the source, and by way of the status queue.
type resolver struct {
	source  lookup.Source
	queue   *status.Queue
	journal string // folder
}

func (r *resolver) Resolve(ctx context.Context, q *resolve.Query) (*resolve.Answer, error) {
	a, err := lookup.Resolve(ctx, r.source, q)
	if err != nil {
		return nil, err
	}
	a.Queues = q.Journal != "" && sameFolder(q.Journal, r.journal)
	return a, nil
}

func (r *resolver) Report(ctx context.Context, report *resolve.Report) error {
	return r.queue.Report(ctx, report)
}

func sameFolder(a, b string) bool {
	if filepath.Clean(a) == filepath.Clean(b) {
		return true
	}
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}

// A guarded source makes errors of panics: networks are looked up on goroutines of their own, where nobody else would
// recover, and tenants write them.
type guarded struct {
	lookup.Source
	log *slog.Logger
}

func (g guarded) Pod(ctx context.Context, pod resolve.Pod) (p *lookup.Pod, err error) {
	defer g.recover(&err)
	return g.Source.Pod(ctx, pod)
}

func (g guarded) Network(ctx context.Context, name resolve.NetworkName) (n *resolve.Network, err error) {
	defer g.recover(&err)
	return g.Source.Network(ctx, name)
}

func (g guarded) recover(err *error) {
	if p := recover(); p != nil {
		g.log.Error("panic", "value", p, "stack", string(debug.Stack()))
		*err = &resolve.Error{Reason: resolve.Unavailable, Message: fmt.Sprintf("panic of braidd: %v", p)}
	}
}

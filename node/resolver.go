package node

import (
	"context"
	"os"
	"path/filepath"

	"github.com/braid-cni/braid/node/status"
	"github.com/braid-cni/braid/resolve"
)

// A Source resolves pods and networks: from a cache of them, or from an API server. It is safe for concurrent use, and its
// errors are of type *resolve.Error.
type Source interface {
	Resolve(ctx context.Context, q *resolve.Query) (*resolve.Answer, error)
}

// A resolver answers the plugin: from the source, and by way of the status queue.
type resolver struct {
	source  Source
	queue   *status.Queue
	journal string // folder
}

func (r *resolver) Resolve(ctx context.Context, q *resolve.Query) (*resolve.Answer, error) {
	r.queue.Busy()
	a, err := r.source.Resolve(ctx, q)
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

//go:build storm && linux

package storm

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/braid-cni/braid/kube/manifests"
	"github.com/braid-cni/braid/node/server"
	"github.com/braid-cni/braid/resolve"
)

// withDaemon has the plugin ask on the daemon's socket.
func withDaemon(w *world) {
	socket := filepath.Join(w.dir, "braidd.sock")
	w.keys = `, "kubeconfig": "/nowhere", "daemonSocket": "` + socket + `"`
	s := server.New(server.Options{
		Socket:   socket,
		Resolver: &queue{manifests.Resolver{Dir: filepath.Join(w.dir, "manifests")}},
		Log:      slog.New(slog.DiscardHandler),
		Observe: func(o *resolve.Observation) {
			if o.Worker {
				w.byWorker.Add(1)
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.Error(err)
		}
	})
	if complaint := wait(func() string {
		if s.State() != server.Serving {
			return s.State()
		}
		return ""
	}); complaint != "" {
		w.Fatalf("the daemon does not serve: %s", complaint)
	}
}

// A queue takes reports, as the daemon does. They stay in the journal.
type queue struct{ manifests.Resolver }

func (q *queue) Resolve(ctx context.Context, query *resolve.Query) (*resolve.Answer, error) {
	answer, err := q.Resolver.Resolve(ctx, query)
	if err == nil {
		answer.Queues = true
	}
	return answer, err
}

func (q *queue) Report(context.Context, *resolve.Report) error { return nil }

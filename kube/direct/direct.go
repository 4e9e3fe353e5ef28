// Package direct asks an API server from the process of the plugin, for the length of one ADD, where no daemon answers.
//
// What could harm an ADD stays within bounds: a request ends with its context, a panic while one is prepared or its answer
// read is an error of that request, and the answers to all requests are limited together.
package direct

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/braid-cni/braid/kube/api"
	"github.com/braid-cni/braid/kube/devices"
	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/resolve"
)

// maxAnswers is in bytes, and as much as an answer of the daemon may have: more than all that a pod may select.
const maxAnswers = 32 << 20

// A Resolver asks an API server itself if its kubeconfig is plain, and has a child ask otherwise. Nothing is read or begun
// before the first request. It is safe for concurrent use.
type Resolver struct {
	Kubeconfig   string
	Session      string // path of the file that keeps the TLS session from one ADD to the next; empty keeps none
	PodResources string // socket of the kubelet; empty for the usual one
	// Child knows all kubeconfigs.
	Child *resolve.Child
	// Log takes what is no error of a request; required.
	Log *slog.Logger

	mu     sync.Mutex
	server *api.Server // nil if the child asks
	asks   resolve.Resolver
	reason error // why the child does
}

var _ resolve.Resolver = (*Resolver)(nil)

// Resolve implements [resolve.Resolver].
func (r *Resolver) Resolve(ctx context.Context, q *resolve.Query) (_ *resolve.Answer, err error) {
	defer lookup.Recovered(&err)
	asks, reason := r.open()
	a, err := asks.Resolve(ctx, q)
	return a, because(reason, err)
}

// Report implements [resolve.Resolver].
func (r *Resolver) Report(ctx context.Context, report *resolve.Report) (err error) {
	defer lookup.Recovered(&err)
	asks, reason := r.open()
	return because(reason, asks.Report(ctx, report))
}

// Close ends the connection and what is still at work for it, or the child. There may be requests after it, which begin anew.
func (r *Resolver) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server != nil {
		r.server.Close()
	}
	r.server, r.asks, r.reason = nil, nil, nil
	return r.Child.Close()
}

// open returns who asks and, if that is the child, why.
func (r *Resolver) open() (resolve.Resolver, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asks != nil {
		return r.asks, r.reason
	}
	server, err := api.Login(r.Kubeconfig)
	if err != nil {
		r.asks, r.reason = r.Child, err
		return r.asks, r.reason
	}
	if r.Session != "" {
		server.KeepSession(r.Session)
	}
	server.LimitAnswers(maxAnswers)
	server.Connect()
	r.server = server
	r.asks = &devices.Resolver{Resolver: api.New(server, api.Options{Log: r.Log}), Socket: r.PodResources}
	return r.asks, nil
}

// because adds why a child was asked to what that says: it may be of no use with a kubeconfig that should have been plain.
func because(reason, err error) error {
	e, ok := errors.AsType[*resolve.Error](err)
	if reason == nil || !ok {
		return err
	}
	return &resolve.Error{Reason: e.Reason, Message: fmt.Sprintf("%s; braidd was asked: %v", e.Message, reason)}
}

// Package leases keeps DHCP leases inside the daemon, and notes in the journal what becomes of them.
package leases

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/braid-cni/braid/ipam/dhcp/keeper"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// A Part runs a lease keeper whenever it can: another one may have the socket, that of an earlier daemon which is about to
// end, `braidd dhcp`, or the daemon of the reference plugin.
type Part struct {
	options keeper.Options
	log     *slog.Logger

	mu     sync.Mutex
	keeper *keeper.Keeper // nil while none runs
	err    error          // why none runs
}

// New returns a part that keeps nothing yet.
func New(o keeper.Options) *Part {
	return &Part{options: o, log: cmp.Or(o.Log, slog.Default()), err: errors.New("the lease keeper has not started yet")}
}

const (
	// handOverPause is how soon it is seen that an earlier keeper has ended: plugins wait.
	handOverPause = 50 * time.Millisecond
	// otherPause is how soon it is seen that something else has changed.
	otherPause = 10 * time.Second
)

// Run keeps leases until ctx ends. They outlive it. It waits for as long as there is another keeper.
func (p *Part) Run(ctx context.Context) error {
	for {
		k, err := keeper.New(p.options)
		if err == nil {
			p.set(k, nil)
			p.log.Info("lease keeper started", "socket", k.Socket, "attachments", k.Len())
			err = k.Serve(ctx)
			p.set(nil, err)
			if err == nil && ctx.Err() != nil {
				return nil
			}
		}
		pause := otherPause
		if errors.Is(err, lease.ErrBusy) {
			pause = handOverPause
		}
		p.failed(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

func (p *Part) set(k *keeper.Keeper, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keeper, p.err = k, err
}

// failed notes why no keeper runs, and says so once.
func (p *Part) failed(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil || p.err.Error() != err.Error() {
		p.log.Warn("no lease keeper in this daemon for now", "err", err)
	}
	p.err = err
}

// State returns how many attachments have leases, and an error if no keeper runs in this daemon.
func (p *Part) State() (attachments int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keeper == nil {
		return 0, p.err
	}
	return p.keeper.Len(), nil
}

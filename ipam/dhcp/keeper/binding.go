package keeper

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// A binding is one lease of an attachment, and how it is kept.
type binding struct {
	a      *attachment
	client client
	in     **lease.Binding // its place in the record of the attachment, guarded by the mutex of that
}

// current returns the lease, nil if there is none at the moment.
func (b *binding) current() *lease.Lease {
	b.a.mu.Lock()
	defer b.a.mu.Unlock()
	if *b.in == nil || (*b.in).Lost {
		return nil
	}
	l := (*b.in).Lease
	return &l
}

// acquire gets the first lease.
func (b *binding) acquire(ctx context.Context, k *Keeper) (err error) {
	defer k.guard(&err)
	l, err := b.client.Acquire(ctx, netip.Addr{})
	if err != nil {
		return err
	}
	if err := k.claim(b, l); err != nil {
		return err // and do not release it: it is the other one's
	}
	return b.setMTU(l)
}

func (b *binding) set(to *lease.Binding) {
	b.a.mu.Lock()
	defer b.a.mu.Unlock()
	*b.in = to
}

// hold keeps the lease, or tries to get one again, until the context ends or the interface is gone, and returns which.
func (b *binding) hold(ctx context.Context, k *Keeper, resumed bool) (err error) {
	defer k.guard(&err)
	for {
		next, err := b.next(ctx, k, resumed)
		resumed = false
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case lease.IsGone(err):
			return err
		case err != nil:
			b.lose(ctx, k, err)
		default:
			b.take(ctx, k, next)
		}
	}
}

// next returns the lease that follows the current one. When it fails, there is none any more.
func (b *binding) next(ctx context.Context, k *Keeper, resumed bool) (*lease.Lease, error) {
	held := b.current()
	if held == nil {
		return b.reacquire(ctx, k)
	}
	if resumed {
		if next, err := b.verify(ctx, k, held); err == nil || isFinal(ctx, err) {
			return next, err
		}
		// "If the client receives neither a DHCPACK or a DHCPNAK message [...] the client MAY choose to use the
		// previously allocated network address and configuration parameters for the remainder of the unexpired lease."
	}
	return b.extend(ctx, held)
}

// verify asks the servers about a lease that an earlier keeper has left. It gives up when it is time for more.
func (b *binding) verify(ctx context.Context, k *Keeper, held *lease.Lease) (*lease.Lease, error) {
	if !held.Rebind.IsZero() && held.Valid(time.Now()) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, held.Rebind)
		defer cancel()
	}
	select {
	case k.resuming <- struct{}{}:
		defer func() { <-k.resuming }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return b.client.Resume(ctx, held)
}

// extend sleeps until it is time to ask the server for more, and asks others when it does not answer.
func (b *binding) extend(ctx context.Context, held *lease.Lease) (*lease.Lease, error) {
	if held.Expire.IsZero() {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	if !sleep(ctx, time.Until(held.Renew)) {
		return nil, context.Cause(ctx)
	}
	next, err := before(ctx, held.Rebind, held, b.client.Renew)
	if err == nil || isFinal(ctx, err) {
		return next, err
	}
	b.a.log.Warn("DHCP server does not renew a lease; asking others", "address", held.Address, "error", err)
	return before(ctx, held.Expire, held, b.client.Rebind)
}

// before gives up at a deadline.
func before(ctx context.Context, deadline time.Time, held *lease.Lease,
	ask func(context.Context, *lease.Lease) (*lease.Lease, error)) (*lease.Lease, error) {
	ctx, cancel := context.WithDeadlineCause(ctx, deadline, errors.New("no answer in time"))
	defer cancel()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return ask(ctx, held)
}

// isFinal tells that it is of no use to ask again.
func isFinal(ctx context.Context, err error) bool {
	return ctx.Err() != nil || lease.IsGone(err) || errors.Is(err, lease.ErrRefused)
}

// Bounds of how long the keeper waits before it asks again for a lease that was lost.
const (
	reacquireFirst = 5 * time.Second
	reacquireLast  = 5 * time.Minute
)

// reacquire gets a lease again after one was lost, if it can the same address.
func (b *binding) reacquire(ctx context.Context, k *Keeper) (*lease.Lease, error) {
	b.a.mu.Lock()
	wish := (*b.in).Lease.Address.Addr()
	b.a.mu.Unlock()
	for delay := reacquireFirst; ; delay = min(2*delay, reacquireLast) {
		limited, cancel := context.WithTimeoutCause(ctx, k.AcquireTimeout, fmt.Errorf("no lease within %s", k.AcquireTimeout))
		l, err := b.client.Acquire(limited, wish)
		cancel()
		if err == nil || ctx.Err() != nil || lease.IsGone(err) {
			return l, err
		}
		b.a.log.Warn("reacquire a lost lease", "address", wish, "error", err)
		if !sleep(ctx, delay/2+rand.N(delay)) {
			return nil, context.Cause(ctx)
		}
	}
}

// take makes the interface and the record follow a new lease.
func (b *binding) take(ctx context.Context, k *Keeper, next *lease.Lease) {
	old := b.current()
	b.a.mu.Lock()
	state := **b.in
	b.a.mu.Unlock()
	state.Lease, state.Lost = *next, false
	changed := old == nil || !old.SameConfig(next)
	if !changed {
		b.a.log.Debug("lease extended", "address", next.Address, "expires", next.Expire)
		b.keep(k, &state)
		return
	}
	var err error
	state.NoDefault, err = b.change(ctx, old, next, state.NoDefault)
	if err != nil {
		b.a.log.Error("change the interface after its lease", "address", next.Address, "error", err)
	} else {
		b.a.log.Info("lease has changed", "address", next.Address, "expires", next.Expire)
	}
	b.keep(k, &state)
	b.report(k, err)
}

// lose takes the address off the interface: it belongs to somebody else now.
func (b *binding) lose(ctx context.Context, k *Keeper, reason error) {
	old := b.current()
	if old == nil {
		return
	}
	b.a.mu.Lock()
	state := **b.in
	b.a.mu.Unlock()
	b.a.log.Warn("lease is lost", "address", old.Address, "reason", reason)
	noDefault, err := b.remove(ctx, old)
	if err != nil && !lease.IsGone(err) {
		b.a.log.Error("remove a lost address", "address", old.Address, "error", err)
	}
	state.Lost, state.NoDefault = true, state.NoDefault || noDefault
	b.keep(k, &state)
	b.report(k, errors.Join(reason, err))
}

// keep changes the record, in memory and on disk.
func (b *binding) keep(k *Keeper, state *lease.Binding) {
	b.a.mu.Lock()
	defer b.a.mu.Unlock()
	*b.in = state
	if err := k.store.Put(&b.a.record); err != nil {
		b.a.log.Error("write the record of a lease", "error", err)
	}
}

func (b *binding) report(k *Keeper, err error) {
	if k.Changed != nil {
		b.a.reporting.Lock()
		defer b.a.reporting.Unlock()
		k.Changed(Change{Spec: *b.a.spec, Held: b.a.held(), Err: err})
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

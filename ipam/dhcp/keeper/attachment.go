package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/braid-cni/braid/ipam/dhcp/client4"
	"github.com/braid-cni/braid/ipam/dhcp/client6"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// A client speaks to servers, as client4 and client6 do.
type client interface {
	Acquire(ctx context.Context, wish netip.Addr) (*lease.Lease, error)
	Resume(ctx context.Context, held *lease.Lease) (*lease.Lease, error)
	Renew(ctx context.Context, held *lease.Lease) (*lease.Lease, error)
	Rebind(ctx context.Context, held *lease.Lease) (*lease.Lease, error)
	Release(ctx context.Context, held *lease.Lease) error
}

// An attachment has one goroutine for each of its leases.
type attachment struct {
	spec   *lease.Spec
	iface  lease.Interface
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelCauseFunc

	ready chan struct{} // closed when its leases are there, or err is set
	err   error
	done  chan struct{} // closed when nothing is left of it

	reporting sync.Mutex // held while Options.Changed is called

	mu     sync.Mutex // guards what follows
	record lease.Record
}

func (k *Keeper) newAttachment(spec *lease.Spec, iface lease.Interface) *attachment {
	a := &attachment{
		spec:  spec,
		iface: iface,
		log:   k.Log.With("container", spec.ContainerID, "network", spec.Network, "ifname", spec.IfName),
		ready: make(chan struct{}),
		done:  make(chan struct{}),

		record: lease.Record{Spec: *spec, Interface: iface},
	}
	a.ctx, a.cancel = context.WithCancelCause(k.ctx)
	return a
}

// wait waits for one of the channels of the attachment.
func (a *attachment) wait(ctx context.Context, c chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return tryAgain(context.Cause(ctx))
	}
}

// held returns the leases that there are.
func (a *attachment) held() lease.Held {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.record.Held()
}

// valid returns the leases if all are there that are wanted.
func (a *attachment) valid() (lease.Held, error) {
	held := a.held()
	now := time.Now()
	if a.spec.IPv4 && !held.IPv4.Valid(now) {
		return held, errors.New("the DHCPv4 lease has been lost; the lease keeper tries to get it again")
	}
	if a.spec.IPv6 && !held.IPv6.Valid(now) {
		return held, errors.New("the DHCPv6 lease has been lost; the lease keeper tries to get it again")
	}
	return held, nil
}

// live is the life of a new attachment.
func (k *Keeper) live(a *attachment) {
	defer k.forget(a)
	if a.err = k.acquire(a); a.err != nil {
		close(a.ready)
		return
	}
	close(a.ready)
	k.end(a, a.hold(k, false))
}

// resume is the life of one that an earlier keeper has left.
func (k *Keeper) resume(a *attachment) {
	defer k.forget(a)
	k.end(a, a.hold(k, true))
}

func (k *Keeper) forget(a *attachment) {
	a.cancel(nil)
	k.mu.Lock()
	delete(k.attachments, a.spec.Key)
	k.mu.Unlock()
	close(a.done)
}

// acquire gets all leases of the attachment, or none.
func (k *Keeper) acquire(a *attachment) (err error) {
	ctx, cancel := context.WithTimeoutCause(a.ctx, k.AcquireTimeout,
		fmt.Errorf("no lease within %s", k.AcquireTimeout))
	defer cancel()
	defer func() { // when the mutex is free again
		if err != nil {
			a.release()
			err = fmt.Errorf("acquire a lease on %s: %w", a.spec.IfName, err)
		}
	}()
	results := make(chan error)
	bindings := a.bindings()
	for _, b := range bindings {
		go func() { results <- b.acquire(ctx, k) }()
	}
	for range bindings {
		if failed := <-results; failed != nil && err == nil {
			err = failed
			cancel() // the other one
		}
	}
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return k.store.Put(&a.record)
}

// hold keeps the leases until the context of the attachment ends, or the interface is gone. It returns which.
func (a *attachment) hold(k *Keeper, resumed bool) error {
	bindings := a.bindings()
	var others sync.WaitGroup
	for _, b := range bindings[1:] {
		others.Go(func() { a.cancel(b.hold(a.ctx, k, resumed)) })
	}
	a.cancel(bindings[0].hold(a.ctx, k, resumed))
	others.Wait()
	return context.Cause(a.ctx)
}

// end does what is left to be done, by the reason for the end.
func (k *Keeper) end(a *attachment, reason error) {
	if errors.Is(reason, errShutdown) {
		return // the next keeper goes on
	}
	a.log.Info("lease ends", "reason", reason)
	a.release()
	if err := k.store.Remove(a.spec.Key); err != nil {
		a.log.Error("remove the record of a lease", "error", err)
	}
}

// releaseTime bounds how long a DEL waits for servers and neighbours that do not answer.
const releaseTime = 5 * time.Second

// release gives the leases back that there are.
func (a *attachment) release() {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	defer cancel()
	var all sync.WaitGroup
	for _, b := range a.bindings() {
		if held := b.current(); held != nil {
			all.Go(func() {
				err := b.client.Release(ctx, held)
				if err != nil && !lease.IsGone(err) {
					a.log.Warn("release a lease", "address", held.Address, "error", err)
				}
			})
		}
	}
	all.Wait()
}

// bindings returns a binding for each lease that is wanted.
func (a *attachment) bindings() (all []*binding) {
	if a.spec.IPv4 {
		all = append(all, &binding{a: a, client: &client4.Client{Interface: a.iface, Spec: a.spec}, in: &a.record.IPv4})
	}
	if a.spec.IPv6 {
		all = append(all, &binding{a: a, client: &client6.Client{Interface: a.iface, Spec: a.spec}, in: &a.record.IPv6})
	}
	return slices.Clip(all)
}

package keeper

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// add returns the leases of an attachment, and gets them first unless they are there. Two at the same time get the
// same.
func (k *Keeper) add(ctx context.Context, spec *lease.Spec) (lease.Held, error) {
	iface, err := lease.Find(spec.Netns, spec.IfName)
	if err != nil {
		return lease.Held{}, err
	}
	for {
		a, isNew, err := k.attach(spec, iface)
		if err != nil {
			return lease.Held{}, err
		}
		if isNew {
			return k.begin(ctx, a)
		}
		held, err := k.adopt(ctx, a, spec, iface)
		if err == nil || ctx.Err() != nil {
			return held, err
		}
		// It was of no use: of a namespace that had the same path once, or about to end. Then it is made anew.
		a.cancel(errReplaced)
		if err := a.wait(ctx, a.done); err != nil {
			return lease.Held{}, err
		}
	}
}

// attach returns the attachment of a key, a new one if there is none.
func (k *Keeper) attach(spec *lease.Spec, iface lease.Interface) (a *attachment, isNew bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if a := k.attachments[spec.Key]; a != nil {
		return a, false, nil
	}
	if k.ctx.Err() != nil {
		return nil, false, tryAgain(errShutdown)
	}
	if len(k.attachments) >= k.MaxLeases {
		return nil, false, tryAgain(fmt.Errorf("the lease keeper has %d leases, as many as it may", k.MaxLeases))
	}
	a = k.newAttachment(spec, iface)
	k.attachments[spec.Key] = a
	return a, true, nil
}

// begin gets the leases of a new attachment. If the caller goes away before, they are given back.
func (k *Keeper) begin(ctx context.Context, a *attachment) (lease.Held, error) {
	keep := context.AfterFunc(ctx, func() { a.cancel(errAbandoned) })
	k.lives.Go(func() { k.live(a) })
	<-a.ready
	if a.err != nil {
		<-a.done
		return lease.Held{}, tryAgain(a.err)
	}
	if !keep() {
		<-a.done
		return lease.Held{}, tryAgain(errAbandoned)
	}
	return a.held(), nil
}

// adopt returns the leases of an attachment that is there already, if they are what is wanted.
func (k *Keeper) adopt(ctx context.Context, a *attachment, spec *lease.Spec, iface lease.Interface) (lease.Held, error) {
	if err := a.wait(ctx, a.ready); err != nil {
		return lease.Held{}, err
	}
	switch {
	case a.err != nil:
		return lease.Held{}, a.err
	case !a.iface.Same(iface) || !a.spec.Equal(spec):
		return lease.Held{}, errReplaced
	}
	return a.valid()
}

// check returns the leases of an attachment. It fails if one is missing or over.
func (k *Keeper) check(ctx context.Context, key lease.Key) (lease.Held, error) {
	a := k.lookUp(key)
	if a == nil {
		return lease.Held{}, fmt.Errorf("the lease keeper has no lease for %s", key)
	}
	if err := a.wait(ctx, a.ready); err != nil {
		return lease.Held{}, err
	}
	if a.err != nil {
		return lease.Held{}, a.err
	}
	return a.valid()
}

func (k *Keeper) lookUp(key lease.Key) *attachment {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.attachments[key]
}

// del gives the leases of an attachment back, and ends an ADD that is still waiting for them. It returns when there is
// nothing left of the attachment.
//
// "since DHCP leases have a lifetime this release action would not be considered critical and no error should be
// returned if this action fails": whether the server has heard is not said.
func (k *Keeper) del(ctx context.Context, key lease.Key) error {
	a := k.lookUp(key)
	if a == nil {
		return nil
	}
	a.cancel(errReleased)
	return a.wait(ctx, a.done)
}

// gc deletes the attachments of a network that are not in the list.
func (k *Keeper) gc(ctx context.Context, network string, valid []types.GCAttachment) error {
	keep := make(map[types.GCAttachment]bool, len(valid))
	for _, v := range valid {
		keep[v] = true
	}
	k.mu.Lock()
	var stale []*attachment
	for key, a := range k.attachments {
		if key.Network == network && !keep[types.GCAttachment{ContainerID: key.ContainerID, IfName: key.IfName}] {
			stale = append(stale, a)
		}
	}
	k.mu.Unlock()
	for _, a := range stale {
		a.cancel(errReleased)
	}
	var errs []error
	for _, a := range stale {
		errs = append(errs, a.wait(ctx, a.done))
	}
	return errors.Join(errs...)
}

// tryAgain is an error with code 11, "Try again later".
func tryAgain(err error) error {
	return types.NewError(types.ErrTryAgainLater, err.Error(), "")
}

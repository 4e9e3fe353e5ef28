// Package keeper keeps the DHCP leases of pods: it gets them, extends them, and gives them back.
//
// A plugin process ends with the ADD, a lease must be extended for as long as the pod lives. The keeper does that, for
// all pods of a node: one goroutine for each lease, which sleeps for nearly all of its life and holds nothing
// open meanwhile. It needs no Kubernetes. Leases are on disk before anybody hears of them; after a crash or an upgrade
// the next keeper takes them up again and asks the servers whether they still hold.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// Options configure a Keeper. The zero value of each field stands for its default.
type Options struct {
	Socket         string        // path of the unix socket that plugins connect to; default lease.DefaultSocket
	AcquireTimeout time.Duration // how long an ADD waits for a server; default one minute
	MaxLeases      int           // how many attachments can have leases at a time; default 10000
	Log            *slog.Logger  // default slog.Default()

	// Changed is called when the leases of an attachment are no longer what its ADD returned, and after every later
	// change. Calls for one attachment do not overlap. May be nil.
	Changed func(Change)
}

// A Change is what has become of the leases of an attachment. The interface has been changed accordingly.
type Change struct {
	Spec lease.Spec
	Held lease.Held // a lease that is lost is nil
	Err  error      // why a lease was lost, or why the interface could not be changed
}

// A Keeper keeps leases from [New] until the context of [Keeper.Serve] ends.
type Keeper struct {
	Options
	store    *lease.Store
	listener net.Listener

	ctx   context.Context // of all leases
	stop  context.CancelCauseFunc
	lives sync.WaitGroup

	// resuming bounds how many leases are taken up at once, so that a restart does not hit the servers, and the
	// processors of the node, with all of them.
	resuming chan struct{}

	mu          sync.Mutex // guards the map only
	attachments map[lease.Key]*attachment
}

// Why the context of an attachment ends.
var (
	errShutdown  = errors.New("the lease keeper is shutting down")
	errReleased  = errors.New("the attachment has been deleted")
	errReplaced  = errors.New("the attachment is made anew")
	errAbandoned = errors.New("the request has been given up")
	errVanished  = errors.New("the network namespace is gone")
)

// New opens the socket and takes up the leases that an earlier keeper has left. It fails if another keeper runs.
func New(o Options) (*Keeper, error) {
	k := &Keeper{Options: o.withDefaults(), attachments: map[lease.Key]*attachment{}, resuming: make(chan struct{}, 32)}
	var err error
	if k.store, err = lease.CreateStore(lease.Dir(k.Socket)); err != nil {
		return nil, err
	}
	if k.listener, err = listen(k.Socket); err != nil {
		return nil, errors.Join(err, k.store.Close())
	}
	k.ctx, k.stop = context.WithCancelCause(context.Background())
	k.takeUp()
	return k, nil
}

func (o Options) withDefaults() Options {
	if o.Socket == "" {
		o.Socket = lease.DefaultSocket
	}
	if o.AcquireTimeout == 0 {
		o.AcquireTimeout = time.Minute
	}
	if o.MaxLeases == 0 {
		o.MaxLeases = 10000
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return o
}

// takeUp starts to keep the leases of the store.
func (k *Keeper) takeUp() {
	records, err := k.store.All()
	if err != nil {
		k.Log.Error("some leases of an earlier keeper cannot be read and are lost", "error", err)
	}
	for _, r := range records {
		a := k.newAttachment(&r.Spec, r.Interface)
		a.record = *r
		close(a.ready)
		k.attachments[a.spec.Key] = a
		k.lives.Go(func() { k.resume(a) })
	}
	if len(records) > 0 {
		k.Log.Info("leases of an earlier keeper taken up", "attachments", len(records))
	}
}

// close ends all goroutines. The leases stay, on the servers and on disk.
func (k *Keeper) close() error {
	k.stop(errShutdown)
	k.lives.Wait()
	return k.store.Close()
}

// Len returns how many attachments have leases or are about to.
func (k *Keeper) Len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.attachments)
}

// sweepInterval is how long the lease of a pod can be kept that has died without a DEL.
const sweepInterval = 30 * time.Second

// sweep looks for attachments whose namespaces are gone, until the context ends.
func (k *Keeper) sweep(ctx context.Context) {
	t := time.NewTicker(sweepInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			k.endVanished()
		}
	}
}

// endVanished ends the attachments whose namespaces are gone. Nobody can give their leases back: that takes the
// interface.
func (k *Keeper) endVanished() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range k.attachments {
		if a.iface.Gone() {
			a.cancel(errVanished)
		}
	}
}

// claim gives an attachment its first lease, unless another one has the address, on an interface of the same MAC. Such
// interfaces (ipvlan) get the same address from a server that tells clients apart by their MAC only.
func (k *Keeper) claim(b *binding, l *lease.Lease) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, other := range k.attachments {
		if other == b.a || other.iface.MAC != b.a.iface.MAC {
			continue
		}
		held := other.held()
		for _, have := range held.Leases() {
			if have.Address.Addr() == l.Address.Addr() {
				return fmt.Errorf("the DHCP server gives %s to several interfaces that share the MAC %s: "+
					"it must tell clients apart by their client identifier", l.Address.Addr(), b.a.iface.MAC)
			}
		}
	}
	b.set(&lease.Binding{Lease: *l})
	return nil
}

package leases

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/ipam/dhcp/keeper"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
	"github.com/braid-cni/braid/journal"
)

// recordTime is how long a change waits for an ADD or DEL of the same container.
const recordTime = 5 * time.Minute

// A Recorder notes in the journal what has become of leases, so that CHECK knows. The keeper does not wait for it: a DEL
// that waits for the keeper has the lock of the container.
type Recorder struct {
	journal *journal.Journal
	log     *slog.Logger

	mu     sync.Mutex
	latest map[lease.Key]keeper.Change // not noted yet
}

// NewRecorder returns a recorder that has noted nothing yet.
func NewRecorder(j *journal.Journal, log *slog.Logger) *Recorder {
	return &Recorder{journal: j, log: log, latest: make(map[lease.Key]keeper.Change)}
}

// Changed is for [keeper.Options]. It does not wait.
func (r *Recorder) Changed(c keeper.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, underWay := r.latest[c.Spec.Key]
	r.latest[c.Spec.Key] = c
	if !underWay {
		go r.note(c.Spec.Key)
	}
}

// note writes the latest change there is when the container's lock has been got. An attachment that Braid has not made
// has no record.
func (r *Recorder) note(key lease.Key) {
	ctx, cancel := context.WithTimeout(context.Background(), recordTime)
	defer cancel()
	err := r.journal.Update(ctx, key.ContainerID, key.Network, key.IfName, func(res *types100.Result) {
		if c, ok := r.take(key); ok {
			apply(&c, res)
		}
	})
	if err == nil {
		return
	}
	r.take(key) // the change came to nothing
	if !errors.Is(err, journal.ErrNotFound) {
		r.log.Error("note a changed lease in the journal", "attachment", key.String(), "error", err)
	}
}

func (r *Recorder) take(key lease.Key) (c keeper.Change, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok = r.latest[key]
	delete(r.latest, key)
	return c, ok
}

// apply puts the leases in the place of those that the result has: addresses of the pod's interface and routes of the
// families that are leased. A default route that was taken from the attachment for another one's is not put back.
func apply(c *keeper.Change, res *types100.Result) {
	inPod := slices.IndexFunc(res.Interfaces, func(i *types100.Interface) bool { return i.Name == c.Spec.IfName && i.Sandbox != "" })
	if inPod < 0 {
		return
	}
	leased := func(v4 bool) bool { return v4 && c.Spec.IPv4 || !v4 && c.Spec.IPv6 }
	hadDefault := map[bool]bool{} // by whether it is IPv4
	for _, route := range res.Routes {
		if isDefault(route) {
			hadDefault[route.Dst.IP.To4() != nil] = true
		}
	}
	res.IPs = slices.DeleteFunc(res.IPs, func(ip *types100.IPConfig) bool {
		return ip.Interface != nil && *ip.Interface == inPod && leased(ip.Address.IP.To4() != nil)
	})
	res.Routes = slices.DeleteFunc(res.Routes, func(route *types.Route) bool { return leased(route.Dst.IP.To4() != nil) })
	now := c.Held.Result()
	for _, ip := range now.IPs {
		ip.Interface = types100.Int(inPod)
		res.IPs = append(res.IPs, ip)
	}
	for _, route := range now.Routes {
		if !isDefault(route) || hadDefault[route.Dst.IP.To4() != nil] {
			res.Routes = append(res.Routes, route)
		}
	}
}

func isDefault(route *types.Route) bool {
	ones, _ := route.Dst.Mask.Size()
	return ones == 0 && route.Dst.IP.IsUnspecified()
}

//go:build storm && linux

package storm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// addresses that there are in a pool which is too small.
const scarce = 16

// TestPool has three times as many pods come up at once as one of their networks has addresses. As many get theirs as there
// are; the others get nothing, on no network, and are told which range it is.
func TestPool(t *testing.T) {
	for _, tt := range []struct{ name, network, ranges, want string }{
		{"the default network", "CLUSTER", `[[{"subnet": "10.244.0.0/16", "rangeStart": "10.244.9.2", "rangeEnd": "10.244.9.17"}], [{"subnet": "fd00:244::/64"}]]`, "10.244.9.2-10.244.9.17"},
		{"its IPv6", "CLUSTER", `[[{"subnet": "10.244.0.0/16"}], [{"subnet": "fd00:244::/64", "rangeStart": "fd00:244::9:2", "rangeEnd": "fd00:244::9:11"}]]`, "fd00:244::9:2-fd00:244::9:11"},
		{"a bridge", "STORAGE", `[[{"subnet": "10.10.0.0/16", "rangeStart": "10.10.9.2", "rangeEnd": "10.10.9.17"}]]`, "10.10.9.2-10.10.9.17"},
		{"two ranges", "LAN", `[[{"subnet": "10.30.0.0/24", "rangeStart": "10.30.0.2", "rangeEnd": "10.30.0.9"}, {"subnet": "10.31.0.0/28", "rangeStart": "10.31.0.7", "rangeEnd": "10.31.0.14"}]]`, "10.30.0.2-10.30.0.9, 10.31.0.7-10.31.0.14"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, ranges(tt.network, tt.ranges))
			w.begin()
			free := scarce - 1 // without that of the witness
			storm := func(pods []*pod) (living, excess []*pod) {
				for i, err := range w.atOnce(pods, (*pod).startAdd) {
					switch {
					case err == nil:
						living = append(living, pods[i])
					case strings.Contains(err.Error(), "no address is free in "+tt.want) && strings.Contains(err.Error(), fmt.Sprintf("%d used, 0 free", scarce)):
						pods[i].result = nil
						excess = append(excess, pods[i])
					default:
						t.Error(err)
					}
				}
				if len(living) != free {
					t.Errorf("%d of %d ADDs made it, and there are %d addresses", len(living), len(pods), free)
				}
				w.right(living...)
				for _, p := range excess {
					p.gone()
				}
				return living, excess
			}
			excess := w.newPods(3 * scarce)
			inExcess := 0
			for range rounds(1) {
				var living []*pod
				pods := excess
				living, excess = storm(pods)
				inExcess += len(excess)
				// Runtimes send a DEL for those that failed too.
				w.all(pods, (*pod).startDel)
				for _, p := range living {
					p.gone()
				}
				w.clean()
				excess = pods
			}
			// All of the pool can be used again, by as many as there are addresses.
			pods := excess[:free]
			w.all(pods, (*pod).startAdd)
			w.right(pods...)
			w.all(pods, (*pod).startDel)
			w.end()
			w.note("ADDs for which there was no address", inExcess)
		})
	}
}

// TestChurn has pods come and go all the time, more than there are addresses: as soon as one goes another has its address.
// No address is ever had by two.
func TestChurn(t *testing.T) {
	w := newWorld(t, ranges("STORAGE", `[[{"subnet": "10.10.0.0/29"}]]`)) // five, without the gateway's
	w.begin()
	var mu sync.Mutex
	owners := make(map[string]*pod)
	var had, none atomic.Int64
	const atWork = 8
	turns := rounds(14)
	workers(atWork, func(int) {
		p := w.pod()
		for range turns {
			if err := p.add(); err != nil {
				if !strings.Contains(err.Error(), "no address is free in 10.10.0.1-10.10.0.6") {
					t.Error(err)
				}
				p.gone()
				none.Add(1)
				continue
			}
			had.Add(1)
			addresses := p.byResult()
			mu.Lock()
			for _, a := range addresses {
				if o := owners[a]; o != nil {
					t.Errorf("%s was given to %s, and %s has it", a, p.id, o.id)
				}
				owners[a] = p
			}
			mu.Unlock()
			if kernel := p.byKernel(); !slices.Equal(kernel, addresses) {
				t.Errorf("%s has %q, by its result %q", p.id, kernel, addresses)
			}
			if rand.N(2) == 0 {
				w.check0(p.check())
			}
			mu.Lock()
			for _, a := range addresses {
				delete(owners, a)
			}
			mu.Unlock()
			w.check0(p.del())
			p.gone()
		}
	})
	t.Logf("%d ADDs had an address, %d had none", had.Load(), none.Load())
	if had.Load() < int64(turns) || none.Load() == 0 {
		t.Error("there was no competition")
	}
	w.end()
	w.note("ADDs that took what others had just left", int(had.Load()))
}

//go:build crash && linux && amd64

package crash

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/braid-cni/braid/e2e/crash/tracer"
)

// bare takes bridges from the node, which stay when pods go.
func (w *world) bare(bridges ...string) {
	w.Helper()
	for _, name := range w.node.Links(w) {
		if slices.Contains(bridges, name) {
			w.must(w.node.Handle().LinkDel(w.node.Link(w, name)))
		}
	}
}

// withoutWitness takes stock of a node that pods have left, as if none had ever come.
func (w *world) withoutWitness() {
	w.Helper()
	w.settle()
	w.end()
	w.witness.removeNS()
	w.witness = nil
	w.bare("cluster0", "storage0")
	w.baseline = w.state()
	w.eventually("the server has all leases back", func() string { return strings.Join(w.serverLeases().Minus(nil), "\n") })
	w.served = w.serverLeases()
}

// TestFirstFault has requests to the kernel fail of the first ADD of a node, which makes what others will share as well.
func TestFirstFault(t *testing.T) {
	t.Parallel()
	within(t, func(w *world) {
		w.withoutWitness()
		i := &injector{
			world: w, victim: victim{verbs[0], func(w *world, p *pod, failed error) error {
				// The bridge that an ADD of the plugin has succeeded on stays, whatever fails after it.
				if failed != nil && !strings.Contains(failed.Error(), "network cluster: eth0: plugin bridge: ") {
					w.bare("cluster0")
					if !strings.Contains(failed.Error(), "network blue/storage: net1: plugin bridge: ") {
						w.bare("storage0")
					}
				}
				err := w.judgeAdd(p, failed)
				w.bare("cluster0", "storage0")
				return err
			}}, tally: newTally(t),
			only: func(c *tracer.Call) bool {
				return strings.HasPrefix(c.Object, "netlink-") &&
					(c.Name == "recvfrom" || slices.ContainsFunc(c.Requests, func(r string) bool { return !strings.HasPrefix(r, "GET") }))
			},
		}
		i.sample(4)
	})
}

// TestFirstKilled kills the first ADD of a node. The next pod takes nothing for finished that the other one has only begun.
func TestFirstKilled(t *testing.T) {
	t.Parallel()
	within(t, func(w *world) {
		w.withoutWitness()
		killed := 0
		for n, reached := 1, true; reached; n += every(8) {
			p, at := w.killed(verbs[0], n)
			if reached = at != nil; reached {
				killed++
			}
			o, what := w.pod(), fmt.Sprintf("the first ADD killed at %v", at)
			if err := o.add(); err != nil {
				t.Errorf("%s, then that of another pod: %v", what, err)
			} else if err := o.check(); err != nil {
				t.Errorf("%s, then CHECK of another pod: %v", what, err)
			}
			w.must(errors.Join(p.del(), o.del()))
			w.bare("cluster0", "storage0")
			w.clean(p, what, false)
			w.clean(o, what, false)
			p.removeNS()
			o.removeNS()
		}
		if killed < 8 {
			t.Errorf("killed %d times", killed)
		}
		t.Logf("killed %d times", killed)
	})
}

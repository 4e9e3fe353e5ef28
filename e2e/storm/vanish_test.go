//go:build storm && linux

package storm

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"time"
)

// TestVanish takes the namespaces of pods away in the middle of their ADDs and DELs, some of which are killed at the same
// moment. DEL, where there is one, and a sweep leave nothing.
func TestVanish(t *testing.T) {
	const n = 40
	w := newWorld(t)
	w.begin()
	adds, dels, undone := 0, 0, 0
	// vanish removes the namespaces at some moment of the calls, and ends some of those.
	vanish := func(pods []*pod, calls []*call, most time.Duration) {
		for i, p := range pods {
			time.Sleep(rand.N(2 * most / n))
			if i%5 == 0 {
				calls[i].kill()
			}
			p.ns.Remove(t)
		}
	}
	start := func(pods []*pod, start func(*pod, gate) *call) (calls []*call) {
		g := make(gate)
		for _, p := range pods {
			calls = append(calls, start(p, g))
		}
		close(g)
		return calls
	}
	for range rounds(2) {
		// ADD: it may fail, or come to its end before.
		pods := w.newPods(n)
		calls := start(pods, (*pod).startAdd)
		vanish(pods, calls, time.Second)
		for i, p := range pods {
			if p.added(calls[i]) == nil {
				adds++
			}
		}
		// Half of them get their DEL, with the path as it was or without any, and all of those are rid of everything.
		for i, p := range pods[:n/2] {
			netns := p.ns.Path()
			if i%2 == 0 {
				netns = ""
			}
			_, err := p.start(p.env("DEL", netns), bytes.NewReader(p.attachmentConfig())).wait()
			w.check0(err)
			if r := p.record(); r != nil || len(p.reserved()) > 0 {
				t.Errorf("left of %s after DEL: %+v, %q", p.id, r, p.reserved())
			}
		}
		swept, err := w.sweep()
		w.check0(err)
		undone += swept
		w.clean()

		// DEL: it makes no difference to it.
		pods = w.newPods(n)
		w.all(pods, (*pod).startAdd)
		calls = start(pods, (*pod).startDel)
		vanish(pods, calls, time.Second)
		for i, p := range pods {
			_, err := calls[i].wait()
			if calls[i].killed() {
				continue // for the sweep
			}
			dels++
			if err != nil {
				t.Errorf("DEL of %s: %v", p.id, err)
			}
			if r := p.record(); r != nil || len(p.reserved()) > 0 {
				t.Errorf("left of %s after DEL: %+v, %q", p.id, r, p.reserved())
			}
		}
		swept, err = w.sweep()
		w.check0(err)
		undone += swept
		w.clean()
		w.right(w.witness)
	}
	t.Logf("%d ADDs came to their end before, %d DELs did without; %d were undone by sweeps", adds, dels, undone)
	if adds == 0 || adds == rounds(2)*n || undone == 0 {
		t.Error("the namespaces went at the wrong moments")
	}
	w.tidied()
	w.end()
	w.note("namespaces that vanished during ADD or DEL", 2*n*rounds(2))
}

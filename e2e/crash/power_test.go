//go:build crash && linux && amd64

package crash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/braid-cni/braid/e2e/crash/tracer"
)

// firstAdd is the first one of a node, which has no folders yet.
var firstAdd = verb{
	"first ADD", func(p *pod) {
		for _, root := range roots {
			p.must(os.RemoveAll(filepath.Join(p.dir, root)))
		}
	},
	verbs[0].command, 0,
}

// TestPowerLoss takes the power away at every call that changes a file. What was not synced by then is lost, in one of the
// ways that file systems have, which take turns, and the node starts again: nothing stays of what was before.
func TestPowerLoss(t *testing.T) {
	boots := newBoots(t)
	tally := newTally(t)
	within(t, func(w *world) {
		turn := 0
		for _, v := range append([]verb{firstAdd}, verbs...) {
			points := 0
			for n := every(8); ; n += every(8) {
				l := losses[turn%len(losses)]
				if !w.powerFails(boots, v, n, l, rebooters[turn%len(rebooters)]) {
					break
				}
				tally.add(1, "what a loss of power left: %s", l.name)
				turn++
				points++
			}
			t.Logf("the power went at %d points of %s", points, v.name)
			tally.add(points, "losses of power: %s", v.name)
			if points < 30/every(8) {
				t.Errorf("the power went at %d points of %s", points, v.name)
			}
		}
	})
}

// changesFile says that a call is about what is on disk.
func changesFile(c *tracer.Call) bool {
	switch c.Name {
	case "openat", "write", "pwrite64", "ftruncate", "fsync", "mkdirat", "unlinkat", "renameat", "renameat2", "linkat", "fchmod", "utimensat":
		return true
	}
	return false
}

// powerFails takes the power away at the n-th call of a verb that is about what is on disk.
func (w *world) powerFails(b *boots, v verb, n int, l loss, after rebooter) (reached bool) {
	w.Helper()
	p := w.pod()
	before := []*pod{p}
	if v.name != firstAdd.name {
		w.witness = w.pod()
		w.witness.mustAdd()
		before = append(before, w.witness)
	}
	v.prepare(p)
	d := w.newDisk()
	c := v.command(p)
	calls := 0
	c.At = func(call *tracer.Call) tracer.Action {
		if changesFile(call) {
			if calls++; calls == n {
				return tracer.Action{Do: tracer.KillAtEntry}
			}
		}
		d.called(call)
		return tracer.Action{}
	}
	r, err := tracer.Run(c)
	w.must(err)
	if r.Hit == nil {
		for _, p := range before {
			w.must(p.del())
			p.removeNS()
		}
		return false
	}
	what := fmt.Sprintf("no power at %v of %s, %s, then %s", r.Hit, v.name, l.name, after.name)
	w.reboot(b, before, func() { d.lose(l) })
	newcomer := w.pod()
	if err := newcomer.add(); err != nil {
		w.Errorf("%s: ADD: %v", what, err)
	}
	err = errors.Join(after.do(w, before, newcomer), newcomer.check())
	if l.mixed && !strings.HasSuffix(v.name, "ADD") {
		// A reservation that was freed is there again, and the index does not have it: it costs an address until GC.
		w.witness = newcomer
		err = errors.Join(err, w.gc())
	}
	if err = errors.Join(err, newcomer.check(), newcomer.del()); err != nil {
		w.Errorf("%s: %v", what, err)
	}
	newcomer.removeNS()
	w.empty()
	if w.Failed() {
		w.Fatal(what)
	}
	return true
}

//go:build storm && linux

package storm

import (
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestKilled kills ADDs and DELs at random moments, several at a time. The process of a DEL, or of the next try, is there
// already, and begins at the same moment.
func TestKilled(t *testing.T) {
	const atWork = 6
	for _, tt := range []struct {
		name   string
		victim func(*pod) *call       // is killed
		had    bool                   // the container had been added before
		then   func(*pod, gate) error // follows
		gone   bool                   // nothing is left then
		rounds int
	}{
		{"ADD, then DEL", func(p *pod) *call { return p.startAdd(nil) }, false, (*pod).delAfter, true, 14},
		{"ADD, then ADD", func(p *pod) *call { return p.startAdd(nil) }, false, (*pod).addAfter, false, 8},
		{"DEL, then DEL", func(p *pod) *call { return p.startDel(nil) }, true, (*pod).delAfter, true, 7},
		{"DEL, then ADD", func(p *pod) *call { return p.startDel(nil) }, true, (*pod).addAfter, false, 7},
	} {
		for _, by := range bothWays {
			t.Run(tt.name+by.name, func(t *testing.T) {
				w := newWorld(t, by.option)
				w.begin()
				var kills, survived atomic.Int64
				workers(atWork, func(int) {
					p := w.pod()
					for range rounds(tt.rounds) {
						if tt.had {
							w.ok(p.add())
						}
						p.result = nil
						c := tt.victim(p)
						g, err := make(gate), make(chan error)
						go func() { err <- tt.then(p, g) }()
						time.Sleep(rand.N(120 * time.Millisecond))
						early := rand.N(3) == 0 // the follower begins before the kill
						if !early {
							c.kill()
						}
						time.Sleep(rand.N(time.Millisecond))
						close(g)
						if early {
							time.Sleep(rand.N(20 * time.Millisecond))
							c.kill()
						}
						followed := <-err
						w.ok(followed)
						_, _ = c.wait()
						if c.killed() {
							kills.Add(1)
						} else {
							survived.Add(1)
						}
						switch {
						case tt.gone:
							if early && p.record() != nil { // it came before the ADD did anything
								w.ok(p.del())
							}
							p.gone()
						case followed == nil:
							p.stands([][]byte{p.result})
							p.result = nil
							w.ok(p.del())
							p.gone()
						}
					}
				})
				t.Logf("%d were killed, %d had come to their end", kills.Load(), survived.Load())
				if kills.Load() < survived.Load()/4 {
					t.Error("too few were killed")
				}
				w.tidied()
				w.end()
				w.note("calls killed at some moment", int(kills.Load()))
			})
		}
	}
}

// delAfter is a runtime that gives up.
func (p *pod) delAfter(g gate) error {
	_, err := p.startDel(g).wait()
	return err
}

// addAfter is a runtime that tries once more. An ADD that was killed when all was done is one that has been done: it wants a DEL.
func (p *pod) addAfter(g gate) error {
	err := p.added(p.startAdd(g))
	if err != nil && strings.Contains(err.Error(), refused) {
		if err = p.del(); err == nil {
			err = p.add()
		}
	}
	return err
}

// tidied has a sweep remove what killed processes have left of writing records, and an ADD what they have prepared.
func (w *world) tidied() {
	w.Helper()
	next := w.pod()
	w.must(errors.Join(next.add(), next.del()))
	next.ns.Remove(w)
	undone, err := w.sweep()
	w.ok(err)
	if undone > 0 {
		w.Errorf("a sweep undid %d records, of containers that had their DEL", undone)
	}
}

//go:build storm && linux

package storm

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// refused is what an ADD says that comes second.
const refused = "DEL it first"

// settled is a random time until an ADD or DEL is over, mostly; all that matters happens before.
func settled() time.Duration { return rand.N(60 * time.Millisecond) }

// TestSameContainer lets calls for one container race each other, which no runtime may but those do that give up on a call
// while it runs. Whichever is first: a DEL leaves nothing, and an ADD makes all or is refused.
func TestSameContainer(t *testing.T) {
	const atWork = 6 // containers at the same time
	for _, tt := range []struct {
		name       string
		adds, dels int
		had        bool // the container had been added before
		rounds     int
	}{
		{"ADD and DEL", 1, 1, false, 7},
		{"two ADDs", 2, 0, false, 4},
		{"two DELs", 0, 2, true, 3},
		{"DEL and the next ADD", 1, 1, true, 4},
		{"three ADDs and three DELs", 3, 3, false, 3},
	} {
		for _, by := range bothWays {
			t.Run(tt.name+by.name, func(t *testing.T) {
				w := newWorld(t, by.option)
				w.begin()
				var stood, lost atomic.Int64
				workers(atWork, func(int) {
					p := w.pod()
					for range rounds(tt.rounds) {
						if tt.had {
							w.ok(p.add())
						}
						made := p.race(tt.adds, tt.dels)
						switch {
						case tt.dels == 0 && len(made) != 1:
							t.Errorf("%d ADDs of %s at once: %d made it", tt.adds, p.id, len(made))
						case len(made) > tt.dels+1:
							t.Errorf("%d ADDs of %s made it, beside %d DELs", len(made), p.id, tt.dels)
						}
						if r := p.record(); r == nil {
							lost.Add(1)
							p.gone()
						} else {
							stood.Add(1)
							p.stands(made)
						}
						// At the end the runtime has one of the two. What came last was not heard of by it.
						if rand.N(2) == 0 {
							p.result = nil
							w.ok(p.del())
							p.gone()
							w.ok(p.del())
						}
						if err := p.add(); err == nil || !strings.Contains(err.Error(), refused) {
							w.ok(err)
							p.stands([][]byte{p.result})
						}
						p.result = nil
						w.ok(p.del())
						p.gone()
					}
				})
				t.Logf("%d times an ADD came last, %d times a DEL", stood.Load(), lost.Load())
				w.end()
				w.note("races of calls for one container", int(stood.Load()+lost.Load()))
			})
		}
	}
}

// ok fails the test, and lets it go on, if there is an error.
func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Error(err)
	}
}

// race starts calls for the pod, in any order and with any pause between them, and returns the results of those ADDs that
// made it. The DELs come from a runtime that has heard of no result.
func (p *pod) race(adds, dels int) (made [][]byte) {
	p.Helper()
	p.result = nil
	var add, del []*call
	order := slices.Concat(slices.Repeat([]bool{true}, adds), slices.Repeat([]bool{false}, dels))
	rand.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	for i, isAdd := range order {
		if i > 0 && rand.N(4) != 0 {
			time.Sleep(settled())
		}
		if isAdd {
			add = append(add, p.startAdd(nil))
		} else {
			del = append(del, p.startDel(nil))
		}
	}
	for _, c := range add {
		out, err := c.wait()
		switch {
		case err == nil:
			made = append(made, out)
		case !strings.Contains(err.Error(), refused):
			p.Errorf("ADD of %s: %v", p.id, err)
		}
	}
	for _, c := range del {
		if _, err := c.wait(); err != nil {
			p.Errorf("DEL of %s: %v", p.id, err)
		}
	}
	return made
}

// stands fails the test unless the pod has all that one of the results says, and nothing else.
func (p *pod) stands(results [][]byte) {
	p.Helper()
	kernel := p.byKernel()
	i := slices.IndexFunc(results, func(result []byte) bool {
		p.result = result
		return slices.Equal(p.byResult(), kernel)
	})
	if i < 0 {
		p.Errorf("%s has %q, which none of %d results says", p.id, kernel, len(results))
		return
	}
	p.ok(p.check())
	var addresses []string
	for _, a := range kernel {
		address, ifName, _ := strings.Cut(a, " ")
		if address, _, _ = strings.Cut(address, "/"); !leased(address) {
			addresses = append(addresses, address+" "+ifName)
		}
	}
	slices.Sort(addresses)
	if reserved := p.reserved(); !slices.Equal(reserved, addresses) {
		p.Errorf("%s has %q in the store, and %q in the kernel", p.id, reserved, addresses)
	}
}

//go:build storm && linux

package storm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/journal"
)

// A runtime keeps books of its containers: those that it lists when it calls GC, the ones included whose ADD is going on.
type runtime struct {
	*world
	beginning sync.RWMutex // held by GC from the list to its turn: an ADD begins before the list is made, or after that
	mu        sync.Mutex
	valid     map[*pod]bool
}

// add notes the container, and then begins.
func (r *runtime) add(p *pod) error {
	r.beginning.RLock()
	r.mu.Lock()
	r.valid[p] = true
	r.mu.Unlock()
	c := p.startAdd(nil)
	r.beginning.RUnlock()
	return p.added(c)
}

func (r *runtime) forget(p *pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.valid, p)
}

func (r *runtime) list() (valid []*pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.valid {
		valid = append(valid, p)
	}
	return valid
}

// gc calls GC with the list of the moment. No runtime may have ADDs and DELs go on meanwhile, and yet they do: those go on
// that are, and others begin as soon as GC has called for its turn.
func (r *runtime) gc() error {
	r.beginning.Lock()
	c := r.startGC(r.list()...)
	ended := make(chan error, 1)
	go func() {
		_, err := c.wait()
		ended <- err
	}()
	for !r.gcAhead() {
		select {
		case err := <-ended:
			r.beginning.Unlock()
			return err
		case <-time.After(200 * time.Microsecond):
		}
	}
	r.beginning.Unlock()
	return <-ended
}

// gcAhead says whether somebody has the first byte of the journal's lock for writing, which each ADD has to pass.
func (w *world) gcAhead() bool {
	var st unix.Stat_t
	w.ok(unix.Stat(w.dir+"/braid/attachments/lock", &st))
	locks, err := os.ReadFile("/proc/locks")
	w.ok(err)
	for line := range bytes.Lines(locks) {
		f := strings.Fields(string(line)) // 1: OFDLCK ADVISORY WRITE -1 08:01:1234 0 EOF
		if len(f) == 8 && f[1] == "OFDLCK" && f[3] == "WRITE" && f[6] == "0" && strings.HasSuffix(f[5], fmt.Sprint(":", st.Ino)) {
			return true
		}
	}
	return false
}

// TestGCAndSweep has GC and sweeps go on all the time while containers come and go, in every way that they can go. What
// lives loses nothing.
func TestGCAndSweep(t *testing.T) {
	w := newWorld(t)
	w.begin()
	r := &runtime{world: w, valid: make(map[*pod]bool)}
	stop := make(chan struct{})
	var collectors sync.WaitGroup
	var gcs, sweeps, swept atomic.Int64
	again := func(do func()) {
		for {
			select {
			case <-stop:
				return
			default:
				do()
			}
		}
	}
	collectors.Go(func() {
		again(func() {
			w.ok(r.gc())
			gcs.Add(1)
			time.Sleep(30 * time.Millisecond)
		})
	})
	collectors.Go(func() {
		again(func() {
			undone, err := w.sweep()
			w.ok(err)
			sweeps.Add(1)
			swept.Add(int64(undone))
		})
	})
	const atWork = 6
	turns := rounds(8)
	abandoned := make([][]*pod, atWork)
	workers(atWork, func(worker int) {
		up := func(p *pod) {
			w.ok(r.add(p))
			w.ok(p.check())
			time.Sleep(settled())
			p.stands([][]byte{p.result})
		}
		for turn := range turns {
			p := w.pod()
			up(p)
			switch turn % 4 {
			case 0: // GC may be first
				r.forget(p)
				w.ok(p.del())
			case 1: // no DEL comes, and another namespace: a sweep may be first
				p.ns.Remove(t)
				r.forget(p)
				p = &pod{world: w, id: p.id, ns: nettest.NewNS(w)}
				up(p)
				w.ok(p.del())
				r.forget(p)
			case 2: // it is for GC alone, as the namespace stays
				r.forget(p)
				abandoned[worker] = append(abandoned[worker], p)
				continue
			case 3: // it is for a sweep alone, as the runtime does not know yet
				p.ns.Remove(t)
				continue
			}
			p.gone()
			p.ns.Remove(t)
			if t.Failed() {
				return
			}
		}
	})
	close(stop)
	collectors.Wait()
	w.ok(r.gc())
	undone, err := w.sweep()
	w.ok(err)
	swept.Add(int64(undone))
	for _, pods := range abandoned {
		for _, p := range pods {
			p.gone()
		}
	}
	t.Logf("%d GCs and %d sweeps, which undid %d records", gcs.Load(), sweeps.Load(), swept.Load())
	if gcs.Load() < 5 || sweeps.Load() < 5 || swept.Load() == 0 {
		t.Error("there were too few of them to say anything")
	}
	w.end()
	w.note("containers that came and went while GC and sweeps ran", atWork*turns*5/4)
	w.note("GCs while containers came and went", int(gcs.Load()))
	w.note("sweeps while containers came and went", int(sweeps.Load()))
}

// TestCarelessGC is a runtime that lists, when it calls GC, only those containers whose ADD it has heard the end of. An ADD that
// GC has to wait for is safe all the same. One that came to its end right before may be lost, but never the half of it; and CHECK
// says so.
func TestCarelessGC(t *testing.T) {
	w := newWorld(t)
	w.begin()
	j, err := journal.Open(filepath.Join(w.dir, "braid", "attachments"))
	w.must(err)
	lost, kept := 0, 0
	for round := range rounds(3) {
		pods := w.newPods(16)
		g := make(gate)
		var mu sync.Mutex
		var heard []*pod
		var adds sync.WaitGroup
		for _, p := range pods {
			c := p.startAdd(g)
			adds.Go(func() {
				w.ok(p.added(c))
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, p)
			})
		}
		close(g)
		time.Sleep(settled() * time.Duration(2+2*(round%3)))
		unlock, err := j.Lock(t.Context(), "somebody") // GC has to wait, having seen which ADDs are over
		w.must(err)
		mu.Lock()
		collect := w.startGC(heard...)
		mu.Unlock()
		for began := time.Now(); !w.gcAhead(); time.Sleep(200 * time.Microsecond) {
			if time.Since(began) > 10*time.Second {
				t.Fatal("GC does not wait for somebody")
			}
		}
		waited := make(map[*pod]bool)
		for _, p := range pods {
			r := p.record()
			waited[p] = r == nil || !r.Done
		}
		unlock()
		_, err = collect.wait()
		w.ok(err)
		adds.Wait()
		var living []*pod
		for _, p := range pods {
			switch err := p.check(); {
			case err == nil:
				living = append(living, p)
			case strings.Contains(err.Error(), "code 3"): // the runtime does not know of it
				p.gone()
				lost++
				if waited[p] {
					t.Errorf("%s was lost, and GC had to wait for its ADD", p.id)
				}
			default:
				t.Error(err)
			}
		}
		kept += len(living)
		w.right(living...)
		w.all(pods, (*pod).startDel)
		for _, p := range pods {
			p.gone()
			p.ns.Remove(t)
		}
	}
	t.Logf("%d containers were lost, %d not", lost, kept)
	w.end()
	w.note("ADDs during a GC that does not know of them", lost+kept)
}

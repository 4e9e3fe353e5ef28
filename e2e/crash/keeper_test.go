//go:build crash && linux && amd64

package crash

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/e2e/crash/tracer"
	"github.com/braid-cni/braid/e2e/figures"
)

// TestKeeperIsKilled kills the lease keeper at every step, from its start to the DEL of a pod, and starts another one. The
// pod has its networks all the same, and nothing stays of it.
func TestKeeperIsKilled(t *testing.T) {
	t.Parallel()
	within(t, func(w *world) {
		w.settle()
		kills, calls := 0, 0
		for n := 1; ; n++ {
			w.stopKeeper()
			k := w.traceKeeper(n)
			p := w.pod()
			if err := p.add(); err != nil {
				t.Errorf("ADD, keeper killed at %v: %v", k.hit(), err)
			}
			if p.result != nil {
				p.distinct(w.witness)
			}
			if err := p.del(); err != nil {
				t.Errorf("DEL, keeper killed at %v: %v", k.hit(), err)
			}
			killed := k.end()
			w.clean(p, "the keeper was killed at "+k.hit(), true)
			p.removeNS()
			if !killed {
				calls = k.result.Calls
				break
			}
			kills++
		}
		if err := w.witness.check(); err != nil {
			t.Error(err)
		}
		w.end()
		figures.Note(t, tier, "points at which the lease keeper was killed", kills)
		t.Logf("the keeper was killed at %d of %d points", kills, calls)
		if kills < 25 {
			t.Errorf("the keeper was killed %d times", kills)
		}
	})
}

// A tracedKeeper is followed by another keeper as soon as it has been killed.
type tracedKeeper struct {
	*world
	pid    int
	done   chan struct{}
	result *tracer.Result
}

// traceKeeper starts a keeper that is to be killed at call n, and returns when it, or the one that follows, can be asked.
func (w *world) traceKeeper(n int) *tracedKeeper {
	k := &tracedKeeper{world: w, done: make(chan struct{})}
	started := make(chan int, 1)
	w.stopKeeper = func() {}
	go w.node.Do(w, func() {
		defer close(k.done)
		r, err := tracer.Run(&tracer.Command{
			Path: filepath.Join(binaries(), "braidd"), Args: w.keeperArgs(), Env: os.Environ(), Timeout: time.Minute, Watch: tracer.Changes(),
			At: func(c *tracer.Call) tracer.Action {
				if c.N == n {
					return tracer.Action{Do: tracer.KillAtEntry}
				}
				return tracer.Action{}
			},
			Started: func(pid int) { started <- pid },
		})
		if err != nil {
			w.Error(err)
			return
		}
		if k.result = r; r.Killed() {
			w.stopKeeper = w.keeper()
		}
	})
	k.pid = <-started
	w.eventually("a lease keeper listens", func() string {
		conn, err := net.Dial("unix", filepath.Join(w.dir, "dhcp.sock"))
		if err != nil {
			return err.Error()
		}
		conn.Close()
		return ""
	})
	return k
}

// end tells a keeper that was not killed to end, and starts the next one. It says whether it was killed.
func (k *tracedKeeper) end() bool {
	select {
	case <-k.done:
		return k.result.Killed()
	default:
	}
	_ = unix.Kill(k.pid, unix.SIGTERM)
	<-k.done
	if k.result != nil && k.result.Killed() {
		return true
	}
	k.stopKeeper = k.keeper()
	return false
}

// hit is where the keeper was killed, once it was.
func (k *tracedKeeper) hit() string {
	select {
	case <-k.done:
		if k.result != nil && k.result.Hit != nil {
			return k.result.Hit.String()
		}
		return "no point"
	default:
		return "no point yet"
	}
}

//go:build crash && linux && amd64

package crash

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestStuckLock: somebody holds the lock of the node and never gives it back, as a process that was stopped would. ADD and
// DEL end in time, say what they wait for, and the next DEL finishes.
func TestStuckLock(t *testing.T) {
	t.Parallel()
	within(t, func(w *world) {
		w.settle()
		lock, err := os.Open(w.node.Path())
		w.must(err)
		defer lock.Close()
		for _, tt := range []struct {
			verb    string
			prepare func(*pod)
			do      func(*pod) error
			most    time.Duration // deadline, what an undo may take, and some
		}{
			{"ADD", func(*pod) {}, (*pod).add, 43 * time.Second},
			{"DEL", (*pod).mustAdd, (*pod).del, 13 * time.Second},
		} {
			p := w.pod()
			tt.prepare(p)
			w.must(unix.Flock(int(lock.Fd()), unix.LOCK_EX))
			begin := time.Now()
			err := tt.do(p)
			took := time.Since(begin)
			w.must(unix.Flock(int(lock.Fd()), unix.LOCK_UN))
			if err == nil || !strings.Contains(err.Error(), "lock ") {
				t.Errorf("%s: found %v, want what it waits for", tt.verb, err)
			}
			if took > tt.most {
				t.Errorf("%s takes %s", tt.verb, took)
			}
			if err := p.del(); err != nil {
				t.Errorf("DEL after %s: %v", tt.verb, err)
			}
			w.clean(p, tt.verb+" while the lock is held, then DEL", false)
			p.removeNS()
			t.Logf("%s took %s: %v", tt.verb, took, err)
		}
		w.end()
	})
}

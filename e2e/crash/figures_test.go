//go:build crash && linux && amd64

package crash

import (
	"fmt"
	"sync"
	"testing"

	"github.com/braid-cni/braid/e2e/figures"
)

const tier = "test-crash"

// A tally counts what the parts of a test did, for the report.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

// newTally returns a tally that is noted when the test and all its parts have passed.
func newTally(t *testing.T) *tally {
	c := &tally{counts: make(map[string]int)}
	t.Cleanup(func() {
		for what, n := range c.counts {
			figures.Note(t, tier, what, n)
		}
	})
	return c
}

func (c *tally) add(n int, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[fmt.Sprintf(format, args...)] += n
}

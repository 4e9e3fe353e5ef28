//go:build storm && linux

package storm

import (
	"testing"
	"time"

	"github.com/braid-cni/braid/e2e/figures"
)

// counts are the figures of all tests so far.
var counts = make(map[string]int)

// note adds to a figure what a test has done that passes.
func (w *world) note(what string, n int) {
	if !w.Failed() {
		counts[what] += n
		figures.Note(w, tier, what, counts[what])
	}
}

// TestMany: 200 pods come up at the same moment, and go at the same moment.
func TestMany(t *testing.T) {
	const n = 200
	for _, tt := range []struct {
		name   string
		option option
	}{
		{"child", func(*world) {}},
		{"daemon", withDaemon},
		{"worker", withWorker},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.option)
			w.begin()
			for range rounds(1) {
				pods := w.newPods(n)
				start := time.Now()
				w.all(pods, (*pod).startAdd)
				t.Logf("%d ADDs: %s", n, time.Since(start))
				w.right(pods...)
				start = time.Now()
				w.all(pods, (*pod).startDel)
				t.Logf("%d DELs: %s", n, time.Since(start))
				for _, p := range pods {
					p.empty()
					p.ns.Remove(t)
				}
				w.clean()
			}
			w.end()
			w.note("ADDs in storms of 200", n*rounds(1))
			w.note("DELs in storms of 200", n*rounds(1))
		})
	}
}

//go:build crash && linux && amd64

package crash

import (
	"os"
	"slices"
	"strings"

	"github.com/braid-cni/braid/e2e/stock"
)

// A state is all that pods have on a node.
type state = stock.Stock

// state takes stock.
func (w *world) state() state {
	w.Helper()
	s := make(state)
	s.Kernel(w, w.node)
	s.Rules(w)
	s.Files(w, w.dir, "ipam", "braid", "dhcp.leases", "marks")
	return s
}

// serverLeases are what the DHCP server thinks to be in use.
func (w *world) serverLeases() state {
	b, err := os.ReadFile(w.leases)
	if err != nil && !os.IsNotExist(err) {
		w.Fatal(err)
	}
	s := make(state)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 5 {
			s.Add("lease of %s for %s", f[2], f[1])
		}
	}
	return s
}

// wrong says what is there that should not be, and what is missing.
func (w *world) wrong(want state) string {
	have := w.state()
	var lines []string
	for _, thing := range have.Minus(want) {
		if w.ignored[thing] == 0 {
			lines = append(lines, "left: "+thing)
		}
	}
	for _, thing := range want.Minus(have) {
		if w.ignored[thing] == 0 {
			lines = append(lines, "missing: "+thing)
		}
	}
	return strings.Join(lines, "\n")
}

// tolerate has nobody complain again of what is wrong now.
func (w *world) tolerate() {
	if w.ignored == nil {
		w.ignored = make(state)
	}
	have := w.state()
	for _, thing := range slices.Concat(have.Minus(w.baseline), w.baseline.Minus(have)) {
		w.ignored[thing]++
	}
}

//go:build crash && linux && amd64

package crash

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTorn damages every file that Braid keeps, as a power failure may. What is damaged is told from what is sound; nobody's
// address is given away, and nothing stays.
func TestTorn(t *testing.T) {
	t.Parallel()
	within(t, func(w *world) {
		w.settle()
		damages := map[string]func(content []byte) []byte{
			"empty":      func([]byte) []byte { return nil },
			"cut":        func(b []byte) []byte { return b[:len(b)/2] },
			"all zeroes": func(b []byte) []byte { return make([]byte, len(b)) },
			"junk":       func([]byte) []byte { return []byte("\x7fELF\x02\x01 no such thing\n") },
		}
		files := 0
		for name, damage := range damages {
			probe := w.pod()
			probe.mustAdd()
			paths := w.kept(probe)
			w.must(probe.del())
			probe.removeNS()
			for i := range paths {
				if w.torn(i, name, damage) {
					files++
				}
			}
		}
		w.end()
		t.Logf("%d files were damaged", files)
		if files < 40 {
			t.Errorf("%d files were damaged", files)
		}
	})
}

// kept lists the files that are about a pod, or about all of them, without those of the witness alone.
func (w *world) kept(p *pod) (paths []string) {
	for _, pattern := range []string{
		"ipam/*/last_reserved_ip.*", "ipam/*/.braid/index", "ipam/*/lock", "braid/attachments/lock",
		"braid/attachments/" + p.id + ":eth0.json", "dhcp.leases/*.json", "ipam/*/*.*.*.*", "ipam/*/*::*",
	} {
		found, err := filepath.Glob(filepath.Join(w.dir, pattern))
		w.must(err)
		for _, path := range found {
			b, err := os.ReadFile(path)
			w.must(err)
			own := strings.Contains(string(b), w.witness.id+"\r\n") || strings.Contains(string(b), `"`+w.witness.id+`"`)
			if !own {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// torn damages file i of a pod. The processes that had it open have ended with the power, but for the keeper.
func (w *world) torn(i int, name string, damage func([]byte) []byte) bool {
	w.Helper()
	p := w.pod()
	defer p.removeNS()
	p.mustAdd()
	paths := w.kept(p)
	if i >= len(paths) {
		return false
	}
	path := paths[i]
	reservation := net.ParseIP(filepath.Base(path)) != nil
	if reservation && name == "junk" {
		w.must(p.del())
		return false // that is somebody else's, and stays
	}
	what := fmt.Sprintf("%s %s", strings.TrimPrefix(path, w.dir+"/"), name)
	if strings.Contains(path, "/dhcp.leases/") {
		w.stopKeeper()
	}
	b, err := os.ReadFile(path)
	w.must(err)
	w.must(os.WriteFile(path, damage(b), 0o600))
	if strings.Contains(path, "/dhcp.leases/") {
		w.stopKeeper = w.keeper()
	}
	// Another pod comes first: it is given nothing that the two have.
	o := w.pod()
	defer o.removeNS()
	if err := o.add(); err != nil {
		w.Errorf("%s: ADD of another pod: %v", what, err)
	} else if reservation {
		o.distinct(w.witness) // one without an owner is of nobody: the power went before its ADD had ended
	} else {
		o.distinct(w.witness, p)
	}
	if err := p.del(); err != nil {
		w.Errorf("%s: DEL: %v", what, err)
	}
	if err := w.gc(o); err != nil {
		w.Errorf("%s: GC: %v", what, err)
	}
	w.must(o.check())
	w.must(o.del())
	p.removeNS()
	aside, err := filepath.Glob(filepath.Join(w.dir, "braid/attachments/*.corrupt"))
	w.must(err)
	for _, path := range aside {
		w.must(os.Remove(path)) // for whoever looks for the rest
	}
	w.clean(p, what, true)
	return true
}

//go:build crash && linux && amd64

package crash

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// damages are what a loss of power may make of the content of a file.
var damages = map[string]func(content []byte) []byte{
	"empty":      func([]byte) []byte { return nil },
	"cut":        func(b []byte) []byte { return b[:len(b)/2] },
	"all zeroes": func(b []byte) []byte { return make([]byte, len(b)) },
	"junk":       func([]byte) []byte { return []byte("\x7fELF\x02\x01 no such thing\n") },
}

// gone is a file that the folder does not name any more.
const gone = "gone"

// TestTorn damages every file that Braid keeps, as a power failure may. What is damaged is told from what is sound; nobody's
// address is given away, and nothing stays.
func TestTorn(t *testing.T) {
	t.Parallel()
	tally := newTally(t)
	within(t, func(w *world) {
		w.settle()
		files := 0
		for _, name := range append(slices.Sorted(maps.Keys(damages)), gone) {
			probe := w.pod()
			probe.mustAdd()
			paths := w.kept(probe)
			w.must(probe.del())
			probe.removeNS()
			for i := range paths {
				if w.torn(i, name) {
					files++
					tally.add(1, "files that were damaged, in what way: %s", name)
				}
			}
		}
		w.end()
		t.Logf("%d files were damaged", files)
		if files < 50 {
			t.Errorf("%d files were damaged", files)
		}
	})
}

// TestLeftovers: a file that was being written when the power went is there, in part or not, before the next ADD. Whoever
// comes next is not misled by it, and removes it or writes it anew.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	tally := newTally(t)
	within(t, func(w *world) {
		w.settle()
		lease := w.sample("dhcp.leases/*.json")
		record := w.sample("braid/attachments/*:eth0.json")
		reservation := w.sample("ipam/cluster/10.*")
		for _, name := range slices.Sorted(maps.Keys(damages)) {
			damage := damages[name]
			p := w.pod()
			w.stopKeeper()
			leftovers := map[string][]byte{
				"dhcp.leases/.tmp-1234567890":                   lease,
				"braid/attachments/" + p.id + ":eth0.json.tmp":  record,
				"braid/attachments/stranger" + ":eth0.json.tmp": record,
				"ipam/cluster/.braid/reservation":               reservation,
				"ipam/storage/.braid/reservation":               reservation,
				"ipam/lan/.braid/reservation":                   reservation,
			}
			for path, content := range leftovers {
				w.must(os.WriteFile(filepath.Join(w.dir, path), damage(content), 0o600))
				tally.add(1, "files that were being written, what there was: %s", name)
			}
			w.stopKeeper = w.keeper()
			p.mustAdd()
			p.distinct(w.witness)
			w.must(errors.Join(p.check(), p.del(), w.gc()))
			for path := range leftovers {
				if strings.HasSuffix(path, "/reservation") {
					continue // it was freed, and is the file of the next one
				}
				if _, err := os.Lstat(filepath.Join(w.dir, path)); !os.IsNotExist(err) {
					t.Errorf("%s, %s, is still there: %v", path, name, err)
				}
			}
			w.clean(p, "files that were being written: "+name, false)
			p.removeNS()
		}
		w.end()
	})
}

// sample returns the content of one of the files of a pattern.
func (w *world) sample(pattern string) []byte {
	w.Helper()
	found, err := filepath.Glob(filepath.Join(w.dir, pattern))
	if err != nil || len(found) == 0 {
		w.Fatalf("%s: found %q, %v", pattern, found, err)
	}
	b, err := os.ReadFile(found[0])
	w.must(err)
	return b
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
func (w *world) torn(i int, name string) bool {
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
	if name == gone {
		w.must(os.Remove(path))
	} else {
		b, err := os.ReadFile(path)
		w.must(err)
		w.must(os.WriteFile(path, damages[name](b), 0o600))
	}
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

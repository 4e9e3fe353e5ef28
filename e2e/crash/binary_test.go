//go:build crash && linux && amd64

package crash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestBrokenBinary: that of a third-party plugin cannot be executed. ADD fails, says which plugin it is, and leaves nothing
// of other networks; a DEL keeps the record of what could not be undone, and can be repeated when there is a binary again.
func TestBrokenBinary(t *testing.T) {
	t.Parallel()
	tally := newTally(t)
	bothWays(t, func(t *testing.T, w *world) {
		sound, err := os.ReadFile(filepath.Join(binaries(), "third"))
		w.must(err)
		w.bin = t.TempDir()
		path := filepath.Join(w.bin, "third")
		write := func(content []byte, mode os.FileMode) error {
			return errors.Join(os.WriteFile(path, content, mode), os.Chmod(path, mode))
		}
		w.must(write(sound, 0o755))
		w.settle()
		for _, tt := range []struct {
			name  string
			write func() error
			runs  bool // some of it
		}{
			{"is missing", func() error { return nil }, false},
			{"is not executable", func() error { return write(sound, 0o644) }, false},
			{"is empty", func() error { return write(nil, 0o755) }, false},
			{"is cut off", func() error { return write(sound[:len(sound)/2], 0o755) }, true},
			{"is of another machine", func() error { return write([]byte("\x7fELF\x02\x02\x01"), 0o755) }, false},
			{"has no interpreter", func() error { return write([]byte("#!/no/such/interpreter\n"), 0o755) }, false},
			{"is a folder", func() error { return os.Mkdir(path, 0o755) }, false},
		} {
			o := w.pod()
			o.mustAdd()
			before := w.state()
			w.must(errors.Join(os.Remove(path), tt.write()))
			p := w.pod()
			if err := namesThird(p.add()); err != nil {
				t.Errorf("ADD, when the binary %s: %v", tt.name, err)
			}
			// One that was executed may have done something, and a DEL is not possible either.
			for _, thing := range w.state().Minus(before) {
				if !tt.runs || thing != "file braid/attachments/"+p.id+":eth0.json" || !p.owes("net1") {
					t.Errorf("ADD, when the binary %s: left: %s", tt.name, thing)
				}
			}
			if left := p.inside(); len(left) > 0 {
				t.Errorf("ADD, when the binary %s: the pod has %q", tt.name, left)
			}
			if err := namesThird(o.del()); err != nil {
				t.Errorf("DEL, when the binary %s: %v", tt.name, err)
			}
			if !o.owes("net1") {
				t.Errorf("DEL, when the binary %s: the record is %+v: want what could not be undone, and nothing else", tt.name, o.record())
			}
			w.must(errors.Join(os.RemoveAll(path), write(sound, 0o755)))
			w.must(errors.Join(o.del(), p.add(), p.check(), p.del()))
			w.clean(p, fmt.Sprintf("the binary %s", tt.name), false)
			p.removeNS()
			o.removeNS()
			tally.add(1, "binaries that cannot be executed")
		}
		w.end()
	})
}

// owes says that the record of a pod is about one interface that could not be undone.
func (p *pod) owes(ifName string) bool {
	r := p.record()
	return r != nil && len(r.Attachments) == 1 && r.Attachments[0].IfName == ifName
}

// namesThird is about an error that does not tell which plugin of which network.
func namesThird(err error) error {
	return errors.Join(complains(err, "third"), complains(err, "blue/storage"))
}

//go:build crash && linux && amd64

package crash

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/e2e/crash/tracer"
)

// TestRecordFirst looks at every call of an ADD that changes something whether anything is there already that a loss of power
// leaves, and whether the record by which it is undone is safe then, with its name. Where that cannot be had, there never is.
func TestRecordFirst(t *testing.T) {
	tally := newTally(t)
	within(t, func(w *world) {
		w.settle()
		attachments := filepath.Join(w.dir, "braid", "attachments")
		for _, unsafe := range []string{"", "file", "folder"} {
			p := w.pod()
			record := filepath.Join(attachments, p.id+":eth0.json")
			d := w.newDisk()
			c := verbs[0].command(p)
			lasting, linked := 0, 0
			look := func(call *tracer.Call) bool {
				d.called(call)
				if what := p.lasting(); what != nil {
					if lasting++; !d.safely(record) {
						t.Errorf("%v: the record is not safe, and there is %q", call, what)
					}
				} else if len(p.ns.Links(p)) > 0 {
					linked++
				}
				return false
			}
			c.At = func(call *tracer.Call) tracer.Action {
				if call.Name == "fsync" && (unsafe == "file" && call.Object == record || unsafe == "folder" && call.Object == attachments) {
					return tracer.Action{Do: tracer.Fail, Errno: unix.EIO, Also: look}
				}
				look(call)
				return tracer.Action{}
			}
			r, err := tracer.Run(c)
			w.must(err)
			switch {
			case unsafe == "" && (r.Status != 0 || lasting == 0):
				t.Errorf("ADD: status %d, %s, and %d calls with something that lasts", r.Status, r.Stdout, lasting)
			case unsafe != "" && (r.Status == 0 || !strings.Contains(string(r.Stdout), unix.EIO.Error())):
				t.Errorf("ADD whose %s is not safe: status %d, %s", unsafe, r.Status, r.Stdout)
			case unsafe != "" && lasting > 0:
				t.Errorf("ADD whose %s is not safe: %d calls with something that lasts", unsafe, lasting)
			}
			if unsafe == "" {
				t.Logf("%d calls with an interface and nothing that lasts, %d with something that does", linked, lasting)
				w.must(p.del())
			}
			w.clean(p, "record first", false)
			p.removeNS()
			tally.add(1, "ADDs that were watched for what a loss of power leaves")
		}
		w.end()
	})
}

// lasting returns what a loss of power would leave of a pod: its reservations, and what the third-party plugin has written.
func (p *pod) lasting() (paths []string) {
	for _, pattern := range []string{"ipam/*/*.*.*.*", "ipam/*/*::*", "marks/" + p.id} {
		found, err := filepath.Glob(filepath.Join(p.dir, pattern))
		p.must(err)
		for _, path := range found {
			b, err := os.ReadFile(path)
			if err == nil && (strings.HasPrefix(string(b), p.id+"\r\n") || filepath.Base(path) == p.id) {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// safely says that a loss of power would leave a file as it is.
func (d *disk) safely(path string) bool {
	var st unix.Stat_t
	b, err := os.ReadFile(path)
	if err != nil || unix.Stat(path, &st) != nil {
		return false
	}
	return d.names[filepath.Dir(path)][filepath.Base(path)] == st.Ino && strings.HasPrefix(string(b), string(d.safe[st.Ino].bytes)) && len(d.safe[st.Ino].bytes) > 0
}

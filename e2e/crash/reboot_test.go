//go:build crash && linux && amd64

package crash

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/e2e/crash/tracer"
)

// A rebooter follows a reboot, when nothing of any pod is there any more but what is on disk. It is told which pods there
// were, and that the newcomer is to stay.
type rebooter struct {
	name string
	do   func(w *world, before []*pod, newcomer *pod) error
}

var rebooters = []rebooter{
	{"sweep", func(w *world, _ []*pod, _ *pod) error { return w.sweep() }},
	{"GC", func(w *world, _ []*pod, newcomer *pod) error {
		w.witness = newcomer
		return w.gc()
	}},
	{"DEL", func(w *world, before []*pod, _ *pod) error {
		var errs []error
		for _, p := range before {
			errs = append(errs, p.del()) // the path of its namespace is that of before
		}
		return errors.Join(errs...)
	}},
}

// TestReboot kills the verbs at every step, with a reboot of the node to follow, once for many. A pod that comes before
// anything has been tidied up works as any other.
func TestReboot(t *testing.T) {
	// Each pod that is left has the next GC take the more steps: with a smaller stride none would come to its end.
	const stride = 8
	boots, tally := newBoots(t), newTally(t)
	for i := range len(rebooters) * stride / every(stride) {
		after := rebooters[i%len(rebooters)]
		t.Run(fmt.Sprintf("then %s from %d", after.name, i), func(t *testing.T) {
			within(t, func(w *world) {
				w.witness = w.pod()
				w.witness.mustAdd()
				before := []*pod{w.witness}
				killed := make(map[string]int)
				for j := range verbs {
					v := verbs[(j+2)%len(verbs)] // GC and sweep first: they find what those before them have left
					for n := 1 + (i+j)%stride; ; n += stride {
						p, at := w.killed(v, n)
						before = append(before, p)
						if at == nil {
							break
						}
						killed[v.name]++
					}
				}
				wreckage := make(map[string]int)
				for thing := range w.state() {
					if path, ok := strings.CutPrefix(thing, "file "); ok {
						wreckage[filepath.Dir(path)]++
					}
				}
				w.reboot(boots, before, nil)
				newcomer := w.pod()
				newcomer.mustAdd()
				if err := after.do(w, before, newcomer); err != nil {
					t.Error(err)
				}
				if err := newcomer.check(); err != nil {
					t.Error(err)
				}
				w.must(newcomer.del())
				w.empty()
				for name, n := range killed {
					tally.add(n, "kills, followed by a reboot: %s", name)
				}
				t.Logf("killed before the reboot, at as many points: %v; what was left on disk: %v", killed, wreckage)
				if len(wreckage) != 6 { // of each network, of the journal, leases, and of the third-party plugin
					t.Errorf("found %v: want something of everything", wreckage)
				}
				for _, v := range verbs {
					if killed[v.name] < v.points/2/stride {
						t.Errorf("%s was killed at %d points", v.name, killed[v.name])
					}
				}
			})
		})
	}
}

// killed kills a verb at the entry of a call, and lets nothing follow. It returns the call, nil if there is no such one.
func (w *world) killed(v verb, n int) (p *pod, at *tracer.Call) {
	w.Helper()
	p = w.pod()
	v.prepare(p)
	c := v.command(p)
	c.At = func(call *tracer.Call) tracer.Action {
		if call.N == n {
			return tracer.Action{Do: tracer.KillAtEntry}
		}
		return tracer.Action{}
	}
	r, err := tracer.Run(c)
	w.must(err)
	if r.Hit == nil && v.name == "ADD" {
		p.result = r.Stdout
	}
	return p, r.Hit
}

// boots is the identity of the boot, as all processes of the test see it.
type boots struct{ file string }

func newBoots(t *testing.T) *boots {
	const id = "/proc/sys/kernel/random/boot_id"
	b := &boots{filepath.Join(t.TempDir(), "boot_id")}
	b.next(t)
	if err := unix.Mount(b.file, id, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(id, 0); err != nil {
			t.Error(err)
		}
	})
	return b
}

func (b *boots) next(t testing.TB) {
	uuid, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err == nil {
		err = os.WriteFile(b.file, uuid, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// reboot takes from the node whatever a reboot takes, and starts the lease keeper again. The DHCP server is another machine.
// What is done while the node is down may be nil.
func (w *world) reboot(b *boots, pods []*pod, down func()) {
	w.Helper()
	w.stopKeeper()
	if down != nil {
		down()
	}
	for _, p := range pods {
		p.removeNS()
	}
	h := w.node.Handle()
	w.eventually("the kernel has forgotten the pods", func() string {
		links, err := h.LinkList()
		w.must(err)
		var left []string
		for _, l := range links {
			if name := l.Attrs().Name; name != "lo" && name != w.nic.Name {
				if err := h.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
					w.Fatal(err)
				}
				left = append(left, name)
			}
		}
		return strings.Join(left, " ")
	})
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		w.Fatalf("%v: %s", err, out)
	}
	b.next(w)
	w.stopKeeper = w.keeper()
}

// empty fails the test if anything of any pod is left.
func (w *world) empty() {
	w.Helper()
	if complaint := wait(func() string {
		var left []string
		have := w.state()
		for thing := range maps.Keys(have) {
			kind, rest, _ := strings.Cut(thing, " ")
			switch {
			case kind == "file", kind == "nft", kind == "link" && strings.Contains(rest, "braid"):
				left = append(left, fmt.Sprint("left: ", thing))
			}
		}
		return strings.Join(left, "\n")
	}); complaint != "" {
		w.Error(complaint)
	}
}

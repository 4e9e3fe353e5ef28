//go:build crash && linux && amd64

package crash

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/braid-cni/braid/e2e/crash/tracer"
	"github.com/braid-cni/braid/internal/nettest"
)

// full asks for every follower at every point, rather than for one each, and for every fault of every call; the short run
// takes a sample, always the same one.
var full = os.Getenv("BRAID_CRASH") == "full"

// verbose prints each error that a fault leads to.
var verbose = os.Getenv("BRAID_CRASH_VERBOSE") != ""

// every returns how far it is from one point of a sample to the next.
func every(n int) int {
	if full {
		return 1
	}
	return n
}

// A verb is what is killed.
type verb struct {
	name string
	// prepare makes what the verb finds.
	prepare func(*pod)
	// command is the verb.
	command func(*pod) *tracer.Command
	// points are at least that many, counted at the entry and at the exit of each call. The short run takes the entries: what
	// the calls before have done is there then, each number of them once.
	points int
}

func braid(p *pod, env []string, config []byte) *tracer.Command {
	return &tracer.Command{
		Path: filepath.Join(binaries(), p.plugin), Env: env, Stdin: config, Timeout: 20 * time.Second, Watch: tracer.Changes(),
	}
}

var verbs = []verb{
	{
		"ADD", func(*pod) {},
		func(p *pod) *tracer.Command { return braid(p, p.env("ADD", p.ns.Path()), p.config("")) }, 170,
	},
	{
		"DEL", (*pod).mustAdd,
		func(p *pod) *tracer.Command { return braid(p, p.env("DEL", p.ns.Path()), p.attachmentConfig()) }, 100,
	},
	{
		"GC", (*pod).mustAdd,
		func(p *pod) *tracer.Command { return braid(p, p.gcEnv(), p.gcConfig()) }, 100,
	},
	{
		"sweep", func(p *pod) {
			p.mustAdd()
			p.removeNS()
		},
		func(p *pod) *tracer.Command {
			return &tracer.Command{
				Path: filepath.Join(binaries(), "braidd"), Args: p.sweepArgs(), Env: os.Environ(), Timeout: 20 * time.Second, Watch: tracer.Changes(),
			}
		}, 100,
	},
}

func (p *pod) mustAdd() {
	p.Helper()
	p.must(p.add())
}

// A follower is what comes after the kill. When it returns nil, nothing of the pod is to be left.
type follower struct {
	name string
	do   func(*pod) error
	// ends says that the namespace goes, and with it the last chance to tell the DHCP server.
	ends bool
}

var followers = []follower{
	{"ADD again", again, false},
	{"DEL", (*pod).del, false},
	{"DEL without namespace", func(p *pod) error {
		p.removeNS()
		return p.delWithoutNamespace()
	}, true},
	{"GC", func(p *pod) error { return p.gc(p.neighbours...) }, false},
	{"sweep", func(p *pod) error {
		p.removeNS()
		return p.sweep()
	}, true},
}

// again is a runtime that tries once more. An ADD that was killed when all was done is one that has been done: it says so,
// and wants a DEL, as does one after a DEL that has not come to its end.
func again(p *pod) error {
	if p.gone {
		p.ns, p.gone = nettest.NewNS(p), false
	}
	p.awaitLock() // a worker can be at work still: what it will have done its record does not tell yet
	record := p.record()
	err := p.add()
	if err != nil && strings.Contains(err.Error(), "DEL it first") && record != nil && record.Done {
		if err = p.del(); err == nil {
			err = p.add()
		}
	}
	if err != nil {
		return fmt.Errorf("ADD: %w", err)
	}
	p.distinct(append(p.neighbours, p.witness)...)
	if err := p.check(); err != nil {
		return fmt.Errorf("CHECK: %w", err)
	}
	return p.del()
}

// distinct fails the test if a pod has an address that others have.
func (p *pod) distinct(others ...*pod) {
	p.Helper()
	ips := p.ips()
	if len(ips) != addresses {
		p.Errorf("%s has the addresses %q", p.id, ips)
	}
	for _, o := range others {
		if o == nil { // there is no witness
			continue
		}
		for _, ip := range o.ips() {
			if slices.Contains(ips, ip) {
				p.Errorf("%s has the address %s, and so has %s", p.id, ip, o.id)
			}
		}
	}
}

// TestCrash kills a verb at every step, and sees to it that whatever follows puts everything right.
func TestCrash(t *testing.T) {
	t.Parallel()
	tally := newTally(t)
	for i, v := range verbs {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			within(t, func(w *world) {
				w.settle()
				m := matrix{world: w, verb: v, turn: i, tally: tally}
				m.run()
				t.Logf("%s has %d points, and was killed at %d of them, %d times", v.name, m.all, m.points, m.kills)
				if m.all < v.points || m.points < v.points/2 {
					t.Errorf("want %d points at least", v.points)
				}
				tally.add(m.points, "points at which a verb was killed: %s", v.name)
				w.end()
			})
		})
	}
}

// settle brings up the witness, has one pod come and go, so that there is all that stays, and takes stock.
func (w *world) settle() {
	w.Helper()
	w.witness = w.pod()
	w.witness.mustAdd()
	first := w.pod()
	first.mustAdd()
	w.must(first.del())
	first.ns.Remove(w)
	w.baseline = w.state()
	w.eventually("the server has the lease back", func() string {
		if n := len(w.serverLeases()); n != 1 {
			return fmt.Sprintf("it has %d", n)
		}
		return ""
	})
	w.served = w.serverLeases()
}

// end takes the witness down.
func (w *world) end() {
	w.Helper()
	w.must(w.witness.check())
	w.must(w.witness.del())
	if links := w.witness.ns.Links(w); len(links) > 0 {
		w.Errorf("the witness has %q after DEL", links)
	}
}

// A matrix is what one verb goes through.
type matrix struct {
	*world
	verb   verb
	turn   int // of the followers
	all    int // points that there are
	points int // at which the verb was killed
	kills  int
	tally  *tally
}

func (m *matrix) run() {
	for n := 1; ; n++ {
		reached := false
		actions := []int{tracer.KillAtEntry, tracer.KillAtExit}
		if !full {
			actions = actions[:1]
		}
		for _, action := range actions {
			set := followers
			if !full {
				set = followers[m.turn%len(followers):][:1]
				m.turn++
			}
			killed := 0
			for _, f := range set {
				if m.point(n, action, f) {
					killed++
					m.tally.add(1, "kills, each followed by a verb: %s", m.verb.name)
				}
			}
			m.kills += killed
			if killed > 0 {
				reached = true
				m.points++
			}
		}
		if !reached {
			return
		}
	}
}

// point kills the verb at one point, unless it ends before, and lets another one follow.
func (m *matrix) point(n, action int, f follower) (reached bool) {
	p := m.pod()
	defer func() { p.removeNS() }()
	m.verb.prepare(p)
	c := m.verb.command(p)
	c.At = func(call *tracer.Call) tracer.Action {
		if call.N == n {
			return tracer.Action{Do: action}
		}
		return tracer.Action{}
	}
	r, err := tracer.Run(c)
	m.must(err)
	if r.Hit == nil {
		m.all = 2 * r.Calls
	}
	if r.Hit == nil && (r.TimedOut || r.Status.ExitStatus() != 0) {
		m.Errorf("%s fails by itself: %#x %s %s", m.verb.name, r.Status, r.Stdout, r.Stderr)
	}
	what := fmt.Sprintf("%s killed at %s of %v", m.verb.name, [...]string{"", "entry", "exit"}[action], r.Hit)
	if r.Left > 0 {
		m.Errorf("%s: %d processes have outlived it", what, r.Left)
	}
	if full || n%4 == 0 {
		m.neighbour(p, what)
	}
	what += ", then " + f.name
	if err := f.do(p); err != nil {
		m.Errorf("%s: %v", what, err)
	}
	for _, o := range p.neighbours {
		if err := o.check(); err != nil {
			m.Errorf("%s: the pod that came meanwhile: %v", what, err)
		}
		m.must(o.del())
		o.ns.Remove(m)
	}
	m.clean(p, what, f.ends || p.gone)
	if r.Hit != nil && !r.Killed() && !comesToItsEnd(r, action) {
		m.Errorf("%s: it lives", what)
	}
	return r.Hit != nil
}

// comesToItsEnd tells that the verb was at its end when it was to be killed: there is no exit of exit_group, and a process without a
// worker may be told that interfaces are gone, and end, while the request that deletes them waits for a grace period of RCU.
func comesToItsEnd(r *tracer.Result, action int) bool {
	deletes := len(r.Hit.Requests) == 1 && r.Hit.Requests[0] == "DELLINK"
	return r.Hit.Name == "exit_group" || action == tracer.KillAtExit && deletes && r.Status.Exited() && r.Status.ExitStatus() == 0
}

// neighbour has another pod come right after the kill: nobody's addresses are given to it.
func (m *matrix) neighbour(p *pod, what string) {
	o := m.pod()
	if err := o.add(); err != nil {
		m.Errorf("%s: ADD of another pod: %v", what, err)
		return
	}
	p.neighbours = append(p.neighbours, o)
	o.distinct(m.witness)
	if p.gone {
		return
	}
	for _, ip := range p.kernelIPs() {
		if slices.Contains(o.ips(), ip) {
			m.Errorf("%s: another pod is given %s, which the pod has", what, ip)
		}
	}
}

// clean fails the test if anything of a pod is left, or anything else is missing.
func (w *world) clean(p *pod, what string, ended bool) {
	if complaint := wait(func() string { return w.wrong(w.baseline) }); complaint != "" {
		w.Errorf("%s:\n%s", what, complaint)
		w.tolerate()
	}
	if !p.gone {
		for _, thing := range p.inside() {
			w.Errorf("%s: left in the pod: %s", what, thing)
		}
	}
	complaint := ""
	if !ended {
		complaint = wait(func() string { return strings.Join(w.serverLeases().Minus(w.served), "\n") })
	}
	if complaint != "" {
		w.Errorf("%s: the DHCP server still has the %s", what, complaint)
	}
	w.served = w.serverLeases()
}

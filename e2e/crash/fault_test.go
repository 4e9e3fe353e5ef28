//go:build crash && linux && amd64

package crash

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/e2e/crash/tracer"
)

// A fault is how a call fails.
type fault struct {
	do      int
	errno   unix.Errno
	request int // of those of a netlink message
}

func fails(errnos ...unix.Errno) (list []fault) {
	for _, e := range errnos {
		list = append(list, fault{do: tracer.Fail, errno: e})
	}
	return list
}

// faults are how each kind of call can fail.
var faults = map[string][]fault{
	"openat":    fails(unix.ENOSPC, unix.EIO, unix.EMFILE, unix.EACCES),
	"read":      fails(unix.EIO),
	"write":     fails(unix.ENOSPC, unix.EIO),
	"pwrite64":  fails(unix.ENOSPC, unix.EIO),
	"ftruncate": fails(unix.EIO, unix.ENOSPC),
	"fsync":     fails(unix.EIO, unix.ENOSPC),
	"mkdirat":   fails(unix.ENOSPC, unix.EROFS),
	"unlinkat":  fails(unix.EIO, unix.EROFS),
	"renameat":  fails(unix.ENOSPC, unix.EIO),
	"linkat":    fails(unix.ENOSPC, unix.EEXIST, unix.EIO, unix.EMLINK),
	"connect":   fails(unix.ECONNREFUSED, unix.ENOENT),
	"flock":     fails(unix.EINTR, unix.ENOLCK),
	"fcntl":     fails(unix.EINTR, unix.ENOLCK),
	"socket":    fails(unix.EMFILE, unix.ENOBUFS),
	"bind":      fails(unix.EADDRINUSE, unix.ENODEV),
	"setns":     fails(unix.ENOMEM, unix.EPERM),
	"clone":     fails(unix.EAGAIN),
	"clone3":    fails(unix.EAGAIN),
	"pipe2":     fails(unix.EMFILE),
	"recvfrom":  fails(unix.ENOBUFS, unix.EINTR),
	"recvmsg":   fails(unix.ENOBUFS, unix.EINTR),
	"sendto":    append(fails(unix.ENOBUFS), refusals...),
	"sendmsg":   append(fails(unix.ENOBUFS), refusals...),
}

// refusals are how the kernel answers a netlink request.
var refusals = []fault{
	{do: tracer.Refuse, errno: unix.ENODEV}, {do: tracer.Refuse, errno: unix.EEXIST}, {do: tracer.Refuse, errno: unix.ENOBUFS},
	{do: tracer.Refuse, errno: unix.EINTR}, {do: tracer.Refuse, errno: unix.EBUSY}, {do: tracer.Refuse, errno: unix.ENOENT},
}

func faultsOf(c *tracer.Call) (list []fault) {
	if c.Name == "read" && strings.HasPrefix(c.Object, "pipe:") {
		return fails(unix.EINTR)
	}
	ways := faults[c.Name]
	if ways == nil {
		ways = fails(unix.EIO)
	}
	for _, f := range ways {
		switch {
		case f.do != tracer.Refuse:
			list = append(list, f)
		case c.Object == "netlink-netfilter" && len(c.Requests) > 1: // the first but the begin of a transaction
			f.request = 1
			list = appendBelievable(list, f, c.Requests...)
		default:
			for f.request = range c.Requests {
				list = appendBelievable(list, f, c.Requests[f.request])
			}
		}
	}
	return list
}

// appendBelievable leaves out what the kernel would not say of such requests, or what is no error.
func appendBelievable(list []fault, f fault, requests ...string) []fault {
	for _, r := range requests {
		switch {
		// That something is not there is no error then, and the kernel would not say so of what is.
		case (strings.HasPrefix(r, "DEL") || strings.HasPrefix(r, "GET")) && (f.errno == unix.ENODEV || f.errno == unix.ENOENT):
			return list
		// "The first one wins", as with the reference plugins.
		case (r == "NEWROUTE" || r == "NEWRULE") && f.errno == unix.EEXIST:
			return list
		}
	}
	return append(list, f)
}

// A victim is a verb that has calls fail, and what is to hold then.
type victim struct {
	verb
	// judge says what is wrong, the verb having ended with an error or without one.
	judge func(w *world, p *pod, failed error) error
}

var victims = []victim{
	{verbs[0], (*world).judgeAdd},
	{verbs[1], (*world).judgeDel},
	{verbs[2], func(w *world, p *pod, failed error) error {
		if failed == nil {
			return nil
		}
		return w.gc()
	}},
	// Where a sweep cannot tell whether a container lives, it leaves it to the next one.
	{verbs[3], func(w *world, p *pod, failed error) error { return w.sweep() }},
	{
		verb{
			"CHECK", (*pod).mustAdd,
			func(p *pod) *tracer.Command { return braid(p, p.env("CHECK", p.ns.Path()), p.attachmentConfig()) }, 0,
		},
		func(w *world, p *pod, failed error) error {
			if err := p.check(); err != nil {
				return err
			}
			return p.del()
		},
	},
}

// judgeAdd: an ADD succeeds wholly, or fails and leaves nothing, so that the next one works.
func (w *world) judgeAdd(p *pod, failed error) error {
	if failed != nil {
		if complaint := wait(func() string { return w.wrong(w.baseline) }); complaint != "" {
			w.tolerate()
			return errors.Join(fmt.Errorf("the rollback is incomplete:\n%s", complaint), p.del())
		}
		if left := p.inside(); len(left) > 0 {
			return errors.Join(fmt.Errorf("the rollback is incomplete: the pod has %q", left), p.del())
		}
		if err := p.add(); err != nil {
			return fmt.Errorf("the next ADD: %w", err)
		}
	}
	p.distinct(w.witness)
	if err := p.check(); err != nil {
		return errors.Join(fmt.Errorf("CHECK: %w", err), p.del())
	}
	return p.del()
}

// judgeDel: a DEL succeeds, or keeps the record, and the next one finishes.
func (w *world) judgeDel(p *pod, failed error) error {
	if failed == nil {
		return nil
	}
	if p.record() == nil && w.wrong(w.baseline) != "" {
		return fmt.Errorf("the record is gone, and this is still there:\n%s", w.wrong(w.baseline))
	}
	return p.del()
}

// TestFault has each call fail once.
func TestFault(t *testing.T) {
	t.Parallel()
	tally := newTally(t)
	for _, v := range victims {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			within(t, func(w *world) {
				w.settle()
				i := &injector{world: w, victim: v, tally: tally}
				i.sample(9)
				w.end()
			})
		})
	}
}

// TestRefusedLink has each request be refused, in each way, of those that make a link: others of the same datagram are done all the same.
func TestRefusedLink(t *testing.T) {
	t.Parallel()
	within(t, func(w *world) {
		w.settle()
		i := &injector{
			world: w, victim: victims[0], tally: newTally(t),
			only: func(c *tracer.Call) bool { return len(c.Requests) > 1 && c.Requests[0] == "NEWLINK" },
		}
		i.all()
		w.end()
	})
}

// TestFullDisk: from some moment on there is no space for anything new. Only ADD needs any.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	tally := newTally(t)
	for _, v := range victims[:4] {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			within(t, func(w *world) {
				w.settle()
				i := &injector{world: w, victim: v, full: true, tally: tally}
				for n := 1; i.once(n, 0); n++ {
				}
				w.end()
				t.Logf("%s: the disk was full from %d calls on, %d times it failed", v.name, i.injected, i.failed)
				if (v.name == "ADD") != (i.injected > 0) {
					t.Errorf("%s makes %d calls that need space", v.name, i.injected)
				}
			})
		})
	}
}

// ofProcess is what a sweep looks at of every process there is: too often the same.
var ofProcess = regexp.MustCompile(`^/proc/[1-9]`)

// An injector has calls of one verb fail.
type injector struct {
	*world
	victim
	full     bool                    // the disk is, from the call on
	only     func(*tracer.Call) bool // the calls that are to fail, if it is not all
	ways     int                     // that the last call can fail
	injected int
	failed   int
	tally    *tally
}

// sample has one call of so many fail in one of the ways that it can; in full, each in all ways.
func (i *injector) sample(stride int) {
	i.Helper()
	if full {
		i.all()
		return
	}
	for n := 1; i.once(n, n/stride); n += stride {
	}
	i.conclude()
}

// all has each call fail in each way that it can.
func (i *injector) all() {
	i.Helper()
	for n := 1; i.once(n, 0); n++ {
		for turn := 1; turn < i.ways; turn++ {
			i.once(n, turn)
		}
	}
	i.conclude()
}

func (i *injector) conclude() {
	i.Helper()
	i.Logf("%s: %d faults injected, %d times it failed", i.name, i.injected, i.failed)
	if i.injected < 20 {
		i.Errorf("%s: %d faults injected", i.name, i.injected)
	}
}

// most is how long a verb may take: its deadline, and what an undo may take.
const most = 15 * time.Second

// once has call n fail, in one of the ways that it can fail. It returns false if there is no such call.
func (i *injector) once(n, turn int) (reached bool) {
	p := i.pod()
	defer func() { p.removeNS() }()
	i.prepare(p)
	c := i.command(p)
	c.Watch = tracer.Failures()
	var how fault
	space, others := 0, 0
	c.At = func(call *tracer.Call) tracer.Action {
		if i.full {
			if !call.TakesSpace() {
				return tracer.Action{}
			}
			if space++; space != n {
				return tracer.Action{}
			}
			how = fault{do: tracer.Fail, errno: unix.ENOSPC}
			return tracer.Action{Do: tracer.Fail, Errno: unix.ENOSPC, Also: (*tracer.Call).TakesSpace}
		}
		if ofProcess.MatchString(call.Object) || i.only != nil && !i.only(call) {
			others++
			return tracer.Action{}
		}
		if call.N-others != n {
			return tracer.Action{}
		}
		ways := faultsOf(call)
		i.ways = len(ways)
		how = ways[turn%len(ways)]
		return tracer.Action{Do: how.do, Errno: how.errno, Request: how.request}
	}
	r, err := tracer.Run(c)
	i.must(err)
	what := fmt.Sprintf("%s with %v of %v", i.name, how.errno, r.Hit)
	if how.do == tracer.Refuse {
		what = fmt.Sprintf("%s with the kernel's answer %v to request %d of %v", i.name, how.errno, how.request, r.Hit)
	}
	if i.full {
		what = fmt.Sprintf("%s with no space on the disk from %v on", i.name, r.Hit)
	}
	if r.TimedOut || r.Took > most {
		i.Errorf("%s takes %s", what, r.Took)
	}
	if r.Left > 0 {
		i.Errorf("%s: %d processes have outlived it", what, r.Left)
	}
	failed := i.outcome(p, what, r)
	if r.Hit != nil {
		i.injected++
		i.count(how)
	}
	if failed != nil {
		i.failed++
		if verbose {
			i.Logf("%s: %v", what, failed)
		}
	}
	if err := i.judge(i.world, p, failed); err != nil {
		i.Errorf("%s (%v): %v", what, failed, err)
	}
	i.clean(p, what, true)
	return r.Hit != nil
}

// count notes a fault that was injected.
func (i *injector) count(how fault) {
	if i.full {
		i.tally.add(1, "calls from which on the disk was full: %s", i.name)
		return
	}
	i.tally.add(1, "faults injected, by verb: %s", i.name)
	if how.do == tracer.Refuse {
		i.tally.add(1, "faults injected, as the kernel's answer: %s", unix.ErrnoName(how.errno))
	} else {
		i.tally.add(1, "faults injected, as a call's error: %s", unix.ErrnoName(how.errno))
	}
}

// outcome returns the error that the verb ended with, which has to be one that tells something.
func (i *injector) outcome(p *pod, what string, r *tracer.Result) error {
	if r.Status.Exited() && r.Status.ExitStatus() == 0 {
		p.result = nil
		if i.name == "ADD" {
			p.result = r.Stdout
		}
		return nil
	}
	err := fmt.Errorf("%s", r.Stderr)
	if i.name != "sweep" {
		err = answered(r.Stdout, r.Stderr, fmt.Errorf("status %#x", r.Status))
	}
	cannotAnswer := r.Hit != nil && r.Hit.Object == "/memfd:stdout (deleted)"
	if text := err.Error(); strings.Contains(text, "status 0x") && !cannotAnswer || strings.Contains(text, "panic") {
		i.Errorf("%s: no clear error: %v\n%s", what, err, r.Stderr)
	}
	return err
}

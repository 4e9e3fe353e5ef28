//go:build crash && linux && amd64

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/e2e/crash/tracer"
	"github.com/braid-cni/braid/worker/client"
	"github.com/braid-cni/braid/worker/protocol"
)

// A tracedWorker does the calls of plugin processes. The calls that it makes itself are counted from when it is armed.
type tracedWorker struct {
	*world
	pid    int
	done   chan struct{} // closed when it has ended
	result *tracer.Result
	armed  atomic.Bool
	calls  atomic.Int32
	hit    atomic.Pointer[tracer.Call]
}

// traceWorker starts a worker, and returns when it listens. Of each call that it makes while it is armed, at is told the number,
// from 1.
func (w *world) traceWorker(at func(n int) tracer.Action) *tracedWorker {
	w.Helper()
	w.plugin = "braid-shim"
	k := &tracedWorker{world: w, done: make(chan struct{})}
	started := make(chan int, 1)
	socket := protocol.SocketOf(filepath.Join(w.dir, "braidd.sock"))
	go w.node.Do(w, func() {
		defer close(k.done)
		r, err := tracer.Run(&tracer.Command{
			Path: filepath.Join(binaries(), "braid"), Args: []string{"worker", socket}, Env: os.Environ(), Timeout: 2 * time.Minute,
			Watch: tracer.Changes(),
			At: func(c *tracer.Call) tracer.Action {
				if !k.armed.Load() {
					return tracer.Action{}
				}
				a := at(int(k.calls.Add(1)))
				if a.Do != tracer.Continue {
					k.hit.Store(c)
				}
				return a
			},
			Started: func(pid int) { started <- pid },
		})
		if err != nil {
			w.Error(err)
			return
		}
		k.result = r
	})
	k.pid = <-started
	w.eventually("the worker listens", func() string {
		if err := (&client.Client{Socket: socket}).Ping(); err != nil {
			return err.Error()
		}
		return ""
	})
	return k
}

// end ends a worker that was not killed. It says whether it was.
func (k *tracedWorker) end() (killed bool) {
	k.Helper()
	k.armed.Store(false)
	_ = unix.Kill(k.pid, unix.SIGTERM)
	<-k.done
	if k.result == nil {
		return false
	}
	if !k.result.Killed() && k.result.Status.ExitStatus() != 0 {
		k.Errorf("the worker ends with %#x: %s", k.result.Status, k.result.Stderr)
	}
	if k.result.Left > 0 {
		k.Errorf("%d processes have outlived the worker", k.result.Left)
	}
	return k.result.Killed()
}

type workerVerb struct {
	name    string
	prepare func(*pod)
	do      func(*pod) error
	config  func(*pod) []byte
	points  int // at least, in the worker, at the entry of each call
}

// workerVerbs are what a worker does in place of a plugin process.
var workerVerbs = []workerVerb{
	{"ADD", func(*pod) {}, (*pod).add, func(p *pod) []byte { return p.config("") }, 70},
	{"DEL", (*pod).mustAdd, (*pod).del, (*pod).attachmentConfig, 35},
}

// eachPoint does something at the first point of each verb in the worker, the second, and so on until there is none. Do says how
// often it has got there, if at all.
func eachPoint(t *testing.T, who string, do func(w *world, v *workerVerb, n int) (times int)) {
	tally := newTally(t)
	for _, v := range workerVerbs {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			within(t, func(w *world) {
				w.settle()
				sum := 0
				for n := 1; ; n++ {
					times := do(w, &v, n)
					if times == 0 {
						break
					}
					sum += times
				}
				tally.add(sum, "points of the worker at which %s was ended: %s", who, v.name)
				t.Logf("%s was ended at %d points of %s", who, sum, v.name)
				if sum < v.points {
					t.Errorf("%s was ended at %d points of %s, want %d at least", who, sum, v.name, v.points)
				}
				w.end()
			})
		})
	}
}

// TestWorkerIsKilled kills the worker at every step of a call that it does for a plugin process. That does it then itself, and
// nobody notices.
func TestWorkerIsKilled(t *testing.T) {
	t.Parallel()
	actions := []int{tracer.KillAtEntry, tracer.KillAtExit}
	if !full {
		actions = actions[:1]
	}
	eachPoint(t, "the worker", func(w *world, v *workerVerb, n int) (times int) {
		for _, action := range actions {
			p := w.pod()
			v.prepare(p)
			k := w.traceWorker(func(i int) tracer.Action {
				if i == n {
					return tracer.Action{Do: action}
				}
				return tracer.Action{}
			})
			k.armed.Store(true)
			err := v.do(p)
			killed := k.end()
			what := fmt.Sprintf("%s, the worker killed at %v", v.name, k.hit.Load())
			if err != nil {
				w.Errorf("%s: %v", what, err)
			}
			if v.name == "ADD" {
				p.distinct(w.witness)
				if err := errors.Join(p.check(), p.del()); err != nil {
					w.Errorf("%s: %v", what, err)
				}
			}
			w.clean(p, what, false)
			p.removeNS()
			if killed {
				times++
			}
		}
		return times
	})
}

// TestCallerIsKilled ends the plugin process at every step of the worker that does its call. What follows has its turn after the
// worker, and puts everything right.
func TestCallerIsKilled(t *testing.T) {
	t.Parallel()
	eachPoint(t, "the plugin process", func(w *world, v *workerVerb, n int) (times int) {
		set := followers
		if !full {
			set = followers[n%len(followers):][:1]
		}
		for _, f := range set {
			signal := [...]unix.Signal{unix.SIGKILL, unix.SIGTERM}[n/len(followers)%2]
			p := w.pod()
			v.prepare(p)
			var caller *exec.Cmd
			reached := false
			k := w.traceWorker(func(i int) tracer.Action {
				if i == n {
					_ = caller.Process.Signal(signal)
					reached = true
				}
				return tracer.Action{}
			})
			caller, _ = p.start(v.name, v.config(p))
			k.armed.Store(true)
			_ = caller.Wait()
			k.armed.Store(false)
			what := fmt.Sprintf("the caller of %s ended by %v at call %d of the worker, then %s", v.name, signal, n, f.name)
			if err := f.do(p); err != nil {
				w.Errorf("%s: %v", what, err)
			}
			w.clean(p, what, f.ends || p.gone)
			if k.end() {
				w.Errorf("%s: the worker has ended", what)
			}
			p.removeNS()
			if reached {
				times++
			}
		}
		return times
	})
}

// TestWorkerStandsStill: one that was stopped before it accepts a call. The plugin process does it, and the worker leaves it alone
// when it goes on.
func TestWorkerStandsStill(t *testing.T) {
	t.Parallel()
	within(t, func(w *world) {
		w.settle()
		stop := w.worker()
		for _, v := range workerVerbs {
			p := w.pod()
			v.prepare(p)
			w.must(w.workerProcess.Signal(unix.SIGSTOP))
			if err := v.do(p); err != nil {
				t.Errorf("%s while the worker stands still: %v", v.name, err)
			}
			w.must(w.workerProcess.Signal(unix.SIGCONT))
			if v.name == "ADD" {
				p.distinct(w.witness)
				w.must(errors.Join(p.check(), p.del()))
			}
			w.clean(p, v.name+" while the worker stood still", false)
			p.removeNS()
		}
		stop()
		w.end()
	})
}

// TestForeignPluginForWorker: something happens while the plugin process executes the plugin of somebody else for the worker.
func TestForeignPluginForWorker(t *testing.T) {
	t.Parallel()
	within(t, func(w *world) {
		w.settle()
		mode := filepath.Join(w.dir, "marks.mode")
		// hangs begins a call whose third-party plugin hangs, until it is no longer told to.
		hangs := func(p *pod, verb string, config []byte) (caller *exec.Cmd, stdout *bytes.Buffer) {
			w.must(os.WriteFile(mode, []byte(verb+" forks and hangs"), 0o600))
			caller, stdout = p.start(verb, config)
			w.eventually("the plugin is at work", func() string {
				if _, err := os.Stat(filepath.Join(w.dir, "marks.pid")); err != nil {
					return err.Error()
				}
				return ""
			})
			w.must(os.Remove(mode))
			return caller, stdout
		}
		// over waits until what the plugin has forked has ended with it. A caller that is killed takes the plugin with it, and
		// nothing more, as it does without a worker.
		over := func(what string, orphaned bool) {
			path := filepath.Join(w.dir, "marks.pid")
			text, err := os.ReadFile(path)
			w.must(errors.Join(err, os.Remove(path)))
			if pid, err := strconv.Atoi(string(text)); err == nil && orphaned {
				w.must(unix.Kill(pid, unix.SIGKILL))
			}
			if complaint := wait(func() string { return alive(string(text)) }); complaint != "" {
				t.Errorf("%s: %s", what, complaint)
			}
		}
		for _, v := range workerVerbs {
			for _, tt := range []struct {
				what  string
				do    func(caller *exec.Cmd)
				fails bool
			}{
				{"the worker is killed", func(*exec.Cmd) { _ = w.workerProcess.Kill() }, false},
				// What hangs has a deadline of its own, which comes before that of the worker.
				{"the worker is told to end", func(*exec.Cmd) { _ = w.workerProcess.Signal(unix.SIGTERM) }, true},
				{"the caller is killed", func(caller *exec.Cmd) { _ = caller.Process.Kill() }, true},
				{"the caller is told to end", func(caller *exec.Cmd) { _ = caller.Process.Signal(unix.SIGTERM) }, true},
			} {
				stop := w.worker()
				p := w.pod()
				v.prepare(p)
				what := v.name + ", whose third-party plugin hangs when " + tt.what
				caller, stdout := hangs(p, v.name, v.config(p))
				tt.do(caller)
				err := caller.Wait()
				over(what, tt.what == "the caller is killed")
				if (err != nil) != tt.fails {
					t.Errorf("%s: %v %s", what, err, stdout)
				}
				if v.name == "ADD" {
					if err == nil {
						p.result = stdout.Bytes()
						p.distinct(w.witness)
						w.must(p.check())
					} else if tt.what != "the caller is killed" {
						w.must(p.untouched())
					}
				}
				if err := p.del(); err != nil {
					t.Errorf("%s, then DEL: %v", what, err)
				}
				w.clean(p, what+", then DEL", false)
				p.removeNS()
				stop()
			}
		}
		w.end()
	})
}

// start starts a call for the pod.
func (p *pod) start(verb string, config []byte) (caller *exec.Cmd, stdout *bytes.Buffer) {
	p.Helper()
	stdout = new(bytes.Buffer)
	caller = exec.Command(filepath.Join(binaries(), p.plugin))
	caller.Env, caller.Stdin, caller.Stdout = p.env(verb, p.ns.Path()), bytes.NewReader(config), stdout
	p.must(caller.Start())
	return caller, stdout
}

// bothWays runs a test where plugin processes do their calls themselves, and where a worker does them; and where there is none,
// though the plugin process asks for it.
func bothWays(t *testing.T, do func(*testing.T, *world)) {
	for name, prepare := range map[string]func(*world) (stop func()){
		"plugin process": func(*world) func() { return func() {} },
		"worker":         (*world).worker,
		"no worker": func(w *world) func() {
			w.plugin = "braid-shim"
			return func() {}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			within(t, func(w *world) {
				defer prepare(w)()
				do(t, w)
			})
		})
	}
}

// worker starts a worker that nobody traces.
func (w *world) worker() (stop func()) {
	w.Helper()
	w.plugin = "braid-shim"
	socket := protocol.SocketOf(filepath.Join(w.dir, "braidd.sock"))
	cmd := exec.Command(filepath.Join(binaries(), "braid"), "worker", socket)
	stop = w.start(cmd)
	w.workerProcess = cmd.Process
	w.eventually("the worker listens", func() string {
		if err := (&client.Client{Socket: socket}).Ping(); err != nil {
			return err.Error()
		}
		return ""
	})
	return stop
}

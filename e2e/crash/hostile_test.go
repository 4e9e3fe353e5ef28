//go:build crash && linux && amd64

package crash

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHostilePlugin: whatever a third-party plugin of a network does, ADD fails in time, says which plugin it was, and
// leaves nothing; a DEL that it spoils can be repeated.
func TestHostilePlugin(t *testing.T) {
	t.Parallel()
	tally := newTally(t)
	bothWays(t, func(t *testing.T, w *world) {
		w.settle()
		for _, tt := range []struct {
			mode  string
			onDel bool // spoils a DEL as well: there it is of no interest what a plugin prints
		}{
			{"prints garbage", false}, {"prints nothing", false}, {"prints two documents", false}, {"prints half a result", false},
			{"prints an old version", false}, {"prints 1 GiB", true}, {"closes its output", false}, {"exits", true},
			{"is killed", true}, {"hangs", true}, {"forks and hangs", true}, {"closes its output and hangs", true},
		} {
			w.spoils("ADD", tt.mode, func(p *pod, call func() error) error {
				err := call()
				if err == nil {
					return errors.New("it succeeds")
				}
				return errors.Join(names(err), p.untouched())
			}, (*pod).add)
			tally.add(1, "third-party plugins that misbehaved: ADD")
			if !tt.onDel {
				continue
			}
			w.spoils("DEL", tt.mode, func(p *pod, call func() error) error {
				p.mustAdd()
				err := call()
				if err == nil {
					return errors.New("it succeeds")
				}
				if !p.owes("net1") {
					return fmt.Errorf("the record is %+v: want what could not be undone, and nothing else", p.record())
				}
				return names(err)
			}, (*pod).del)
			tally.add(1, "third-party plugins that misbehaved: DEL")
		}
		w.end()
	})
}

// spoils has a plugin misbehave during a verb, and then not any more.
func (w *world) spoils(verb, mode string, judge func(p *pod, call func() error) error, do func(*pod) error) {
	file := filepath.Join(w.dir, "marks.mode")
	p := w.pod()
	defer p.removeNS()
	var took time.Duration
	err := judge(p, func() error {
		w.must(os.WriteFile(file, []byte(verb+" "+mode), 0o600))
		begin := time.Now()
		err := do(p)
		took = time.Since(begin)
		w.must(os.Remove(file))
		return err
	})
	if err != nil {
		w.Errorf("%s, when the plugin %s: %v", verb, mode, err)
	}
	if took > pluginTime+5*time.Second {
		w.Errorf("%s, when the plugin %s, takes %s", verb, mode, took)
	}
	if pid, err := os.ReadFile(filepath.Join(w.dir, "marks.pid")); err == nil {
		w.must(os.Remove(filepath.Join(w.dir, "marks.pid")))
		if complaint := wait(func() string { return alive(string(pid)) }); complaint != "" {
			w.Errorf("%s, when the plugin %s: %s", verb, mode, complaint)
		}
	}
	w.must(p.del())
	w.clean(p, fmt.Sprintf("%s, when the plugin %s, then DEL", verb, mode), false)
}

// alive says that a process is, and is no zombie.
func alive(pid string) string {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil || strings.Contains(string(stat), ") Z ") {
		return ""
	}
	return fmt.Sprintf("process %s is left: %s", pid, stat)
}

// names is about an error that does not tell the plugin.
func names(err error) error {
	if !strings.Contains(err.Error(), "plugin third") || !strings.Contains(err.Error(), "blue/storage") {
		return fmt.Errorf("the error names neither the plugin nor the network: %w", err)
	}
	return nil
}

// untouched says that something of a pod is left.
func (p *pod) untouched() error {
	if complaint := wait(func() string { return p.wrong(p.baseline) }); complaint != "" {
		return errors.New(complaint)
	}
	if left := p.inside(); len(left) > 0 {
		return fmt.Errorf("the pod has %q", left)
	}
	return nil
}

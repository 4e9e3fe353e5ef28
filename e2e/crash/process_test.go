//go:build crash && linux && amd64

package crash

import (
	"fmt"
	"testing"

	"github.com/braid-cni/braid/e2e/crash/tracer"
)

// TestOneProcess: a pod whose networks are all of Braid's own plugins is attached, checked and detached by the one process
// that the runtime starts, where the daemon answers: whether a worker does the call, or braid, which the process becomes.
func TestOneProcess(t *testing.T) {
	bothWays(t, func(t *testing.T, w *world) {
		w.settle()
		p := w.pod()
		p.name = "plain"
		call := func(verb string, config []byte) *tracer.Result {
			c := braid(p, p.env(verb, p.ns.Path()), config)
			var started []string
			c.At = func(call *tracer.Call) tracer.Action {
				if call.Name == "clone" || call.Name == "clone3" {
					started = append(started, call.String())
				}
				return tracer.Action{}
			}
			r, err := tracer.Run(c)
			w.must(err)
			if r.Status.ExitStatus() != 0 {
				t.Fatalf("%s: %v", verb, answered(r.Stdout, r.Stderr, fmt.Errorf("status %#x", r.Status)))
			}
			if len(started) > 0 {
				t.Errorf("%s starts other processes: %q", verb, started)
			}
			return r
		}
		p.result = call("ADD", p.config("")).Stdout
		if n := len(p.ips()); n != addresses-1 { // all but storage's
			t.Errorf("the pod has %d addresses: %q", n, p.ips())
		}
		call("CHECK", p.attachmentConfig())
		call("DEL", p.attachmentConfig())
		w.clean(p, "a pod of own plugins", false)
		p.removeNS()
		w.end()
	})
}

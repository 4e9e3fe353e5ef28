//go:build crash && linux && amd64

package crash

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSilence: somebody whom Braid asks takes the question and never answers. ADD fails in time, says whom it has asked, and
// leaves nothing. DEL asks only the lease keeper, and the daemon to wait for the kernel in its place; neither holds it up.
func TestSilence(t *testing.T) {
	t.Parallel()
	tally := newTally(t)
	within(t, func(w *world) {
		w.settle()
		stopped := func(process **os.Process) func() func() {
			return func() func() {
				w.must((*process).Signal(unix.SIGSTOP))
				return func() { w.must((*process).Signal(unix.SIGCONT)) }
			}
		}
		for _, tt := range []struct {
			who   string
			be    func() (speak func()) // silent
			tells string                // the error of ADD
		}{
			{"the DHCP server", stopped(&w.server), "network blue/wan: net3: "},
			{"the lease keeper", stopped(&w.leaseKeeper), filepath.Join(w.dir, "dhcp.sock")},
			{"the daemon, and there is no API server", func() func() { return w.deaf("unix", "silent.sock") }, "kubeconfig"},
			{"the API server, and there is no daemon", func() func() { return w.deafAPI("") }, "127.0.0.1:6443"},
			{"the API server, which a child has to ask", func() func() { return w.deafAPI(`, "insecure-skip-tls-verify": true`) }, "127.0.0.1:6443"},
		} {
			p, o := w.pod(), w.pod()
			o.mustAdd()
			// In the latter cases the daemon's socket is another one.
			config := p.config("")
			if tt.tells == "kubeconfig" || tt.tells == "127.0.0.1:6443" {
				config = bytes.Replace(config, []byte("braidd.sock"), []byte("silent.sock"), 1)
			}
			before := w.state()
			speak := tt.be()
			begin := time.Now()
			_, err := w.call(p.env("ADD", p.ns.Path()), config)
			took := time.Since(begin)
			if err := complains(err, tt.tells); err != nil {
				t.Errorf("ADD while %s is silent: %v", tt.who, err)
			}
			if took > most+28*time.Second { // what an undo may take
				t.Errorf("ADD while %s is silent takes %s", tt.who, took)
			}
			if complaint := wait(func() string { return w.wrong(before) }); complaint != "" {
				t.Errorf("ADD while %s is silent: %s", tt.who, complaint)
			}
			if left := p.inside(); len(left) > 0 {
				t.Errorf("ADD while %s is silent: the pod has %q", tt.who, left)
			}
			begin = time.Now()
			if err := o.del(); err != nil {
				t.Errorf("DEL while %s is silent: %v", tt.who, err)
			}
			tookDel := time.Since(begin)
			if tookDel > most {
				t.Errorf("DEL while %s is silent takes %s", tt.who, tookDel)
			}
			t.Logf("while %s is silent: ADD took %s, DEL %s: %v", tt.who, took, tookDel, err)
			speak()
			tally.add(1, "those who are asked and do not answer")
			w.clean(o, fmt.Sprintf("after %s was silent", tt.who), true)
			p.mustAdd()
			w.must(errors.Join(p.check(), p.del()))
			w.clean(p, fmt.Sprintf("after %s was silent", tt.who), true)
			p.removeNS()
			o.removeNS()
		}
		w.end()
	})
}

// deaf listens and never answers.
func (w *world) deaf(network, address string) (end func()) {
	w.Helper()
	if network == "unix" {
		address = filepath.Join(w.dir, address)
	}
	l, err := net.Listen(network, address)
	w.must(err)
	return func() { w.must(l.Close()) }
}

// deafAPI is an API server that accepts connections. Keys are further ones of the cluster in the kubeconfig.
func (w *world) deafAPI(keys string) (end func()) {
	w.Helper()
	path := filepath.Join(w.dir, "kubeconfig")
	w.must(os.WriteFile(path, []byte(`{"apiVersion": "v1", "kind": "Config", "current-context": "node",
		"clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:6443"`+keys+`}}],
		"users": [{"name": "u", "user": {"token": "t"}}],
		"contexts": [{"name": "node", "context": {"cluster": "c", "user": "u"}}]}`), 0o600))
	hangUp := w.deaf("tcp", "127.0.0.1:6443")
	return func() {
		hangUp()
		w.must(os.Remove(path))
	}
}

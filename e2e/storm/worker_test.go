//go:build storm && linux

package storm

import (
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/braid-cni/braid/worker/client"
	"github.com/braid-cni/braid/worker/protocol"
)

// bothWays are a world in which plugin processes do their calls themselves, and one in which a worker does.
var bothWays = []struct {
	name   string
	option option
}{
	{"", func(*world) {}},
	{", by a worker", withWorker},
}

// withWorker has a worker do the calls of plugin processes, and another one when that was killed.
func withWorker(w *world) {
	withDaemon(w)
	w.plugin = "braid-shim"
	socket := protocol.SocketOf(filepath.Join(w.dir, "braidd.sock"))
	var mu sync.Mutex
	var running *exec.Cmd
	ending := false
	start := func() bool {
		mu.Lock()
		defer mu.Unlock()
		if ending {
			return false
		}
		running = exec.Command(binary("braid"), "worker", socket)
		if err := running.Start(); err != nil {
			w.Error(err)
			return false
		}
		return true
	}
	kill := func() {
		mu.Lock()
		defer mu.Unlock()
		_ = running.Process.Kill()
	}
	if !start() {
		return
	}
	w.killWorker = kill
	ended := make(chan struct{})
	go w.node.Do(w, func() {
		defer close(ended)
		for {
			_ = running.Wait()
			if !start() {
				return
			}
		}
	})
	w.Cleanup(func() {
		mu.Lock()
		ending = true
		mu.Unlock()
		kill()
		<-ended
	})
	if complaint := wait(func() string {
		if err := (&client.Client{Socket: socket}).Ping(); err != nil {
			return err.Error()
		}
		return ""
	}); complaint != "" {
		w.Fatalf("the worker does not serve: %s", complaint)
	}
}

// TestWorkerKilled kills the worker at random moments, while pods come and go. None fails, and none has the addresses of another.
func TestWorkerKilled(t *testing.T) {
	const atWork, each = 8, 12
	w := newWorld(t, withWorker)
	w.begin()
	done := make(chan struct{})
	kills := make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-done:
				kills <- n
				return
			case <-time.After(rand.N(150 * time.Millisecond)):
				w.killWorker()
				n++
			}
		}
	}()
	workers(atWork, func(int) {
		p := w.pod()
		for range rounds(each) {
			p.result = nil
			w.ok(p.add())
			if p.result != nil {
				p.stands([][]byte{p.result})
			}
			w.ok(p.del())
			p.gone()
		}
	})
	close(done)
	n := <-kills
	t.Logf("%d pods came and went, while the worker was killed %d times", atWork*rounds(each), n)
	if n < 10 {
		t.Error("too few were killed")
	}
	w.tidied()
	w.end()
	w.note("workers killed at some moment", n)
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/kube/kubetest"
	"github.com/braid-cni/braid/resolve"
)

const patience = time.Minute

// A daemonWorld is an API server and the folders of a node, for daemons that are processes.
type daemonWorld struct {
	*testing.T
	api     *kubetest.Server
	dir     string
	socket  string
	journal *journal.Journal
}

func newDaemonWorld(t *testing.T) *daemonWorld {
	t.Helper()
	nettest.NeedRoot(t)
	dir, err := os.MkdirTemp("", "daemon") // t.TempDir can be longer than the path of a socket may be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &daemonWorld{T: t, api: kubetest.New(t), dir: dir, socket: filepath.Join(dir, "run", "braidd.sock")}
	if w.journal, err = journal.Open(filepath.Join(dir, "cni", "attachments")); err != nil {
		t.Fatal(err)
	}
	return w
}

// A daemonProcess is `braidd daemon`.
type daemonProcess struct {
	*exec.Cmd
	log *lockedBuilder
}

// daemon starts one. It says when it is there.
func (w *daemonWorld) daemon(args ...string) *daemonProcess {
	w.Helper()
	p := &daemonProcess{log: new(lockedBuilder)}
	p.Cmd = exec.Command("braidd", append([]string{"daemon", "--socket", w.socket, "--kubeconfig", w.api.Kubeconfig(), "--node-name", "n1",
		"--cni-dir", filepath.Join(w.dir, "cni"), "--dhcp-socket", filepath.Join(w.dir, "dhcp.sock"), "--log-level", "debug"}, args...)...)
	p.Stderr = p.log
	p.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.Start(); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		p.Process.Kill()
		p.Wait()
		if w.Failed() {
			w.Log(p.log)
		}
	})
	return p
}

// says waits until the daemon has logged something.
func (w *daemonWorld) says(p *daemonProcess, text string) {
	w.Helper()
	w.eventually("the daemon says "+text, func() bool { return strings.Contains(p.log.String(), text) })
}

func (w *daemonWorld) eventually(what string, is func() bool) {
	w.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("after %s it is still not true that %s", patience, what)
		}
	}
}

// end stops a daemon as the kubelet does.
func (w *daemonWorld) end(p *daemonProcess) {
	w.Helper()
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		w.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		w.Errorf("the daemon ends with %v", err)
	}
}

// A lockedBuilder is a strings.Builder that can be read while a process writes to it.
type lockedBuilder struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuilder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuilder) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// add does what an ADD does of a pod: it asks, puts its record and reports. An error of the daemon is one that does not send
// the plugin to the API server instead; fellBack counts those that do.
func (w *daemonWorld) add(name string, fellBack *atomic.Int64) error {
	uid := w.api.AddPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}})
	pod := resolve.Pod{Namespace: "default", Name: name, UID: uid}
	ctx, cancel := context.WithTimeout(w.Context(), patience)
	defer cancel()
	client, err := resolve.Dial(ctx, w.socket)
	if err != nil {
		fellBack.Add(1)
		return nil
	}
	defer client.Close()
	answer, err := client.Resolve(ctx, &resolve.Query{Pod: pod, Journal: filepath.Join(w.dir, "cni", "attachments")})
	if err != nil {
		return fallsBack(err, fellBack)
	}
	if answer.Pod != pod || !answer.Queues {
		return fmt.Errorf("found pod %+v, queues %v", answer.Pod, answer.Queues)
	}
	r := &resolve.Report{Pod: pod, Status: json.RawMessage("[]")}
	pending, err := json.Marshal(r)
	if err != nil {
		return err
	}
	unlock, err := w.journal.Lock(ctx, name) // as an ADD has it; a sweep takes away what nobody is at work on
	if err != nil {
		return err
	}
	defer unlock()
	if err := w.journal.Put(&journal.Record{Created: time.Now(), ContainerID: name, IfName: "eth0", Done: true, Pending: pending}); err != nil {
		return err
	}
	r.Record = &resolve.Record{ContainerID: name, IfName: "eth0"}
	return fallsBack(client.Report(ctx, r), fellBack)
}

func fallsBack(err error, count *atomic.Int64) error {
	if e, ok := errors.AsType[*resolve.Error](err); ok && e.Reason == resolve.Unavailable {
		count.Add(1)
		return nil
	}
	return err
}

func (w *daemonWorld) isWritten(name string) bool {
	r, err := w.journal.Get(name, "eth0")
	return err == nil && r.Pending == nil && w.api.Status("default", name) == "[]"
}

// What the daemon has taken is written although it is killed before, and was reported only once.
func TestDaemonKilled(t *testing.T) {
	w := newDaemonWorld(t)
	p := w.daemon()
	w.says(p, "msg=serving")
	w.api.Break(kubetest.Fault{Method: "PATCH", Hang: true})
	var fellBack atomic.Int64
	if err := w.add("web", &fellBack); err != nil || fellBack.Load() != 0 {
		t.Fatalf("found %v, and fell back %d times", err, fellBack.Load())
	}
	w.eventually("it is about to be written", func() bool {
		for _, r := range w.api.Requests() {
			if r.Method == http.MethodPatch {
				return true
			}
		}
		return false
	})
	p.Process.Kill()
	p.Wait()
	w.api.Mend()
	if w.isWritten("web") {
		t.Fatal("it is written already")
	}
	next := w.daemon()
	w.eventually("the next daemon writes it", func() bool { return w.isWritten("web") })
	w.says(next, "lease keeper started")
	w.end(next)
	if _, err := os.Stat(w.socket); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// While daemons follow each other, whether the next is there in time or not, no ADD sees an error that it does not fall back
// from, and all that was reported is written.
func TestDaemonUpgrade(t *testing.T) {
	w := newDaemonWorld(t)
	p := w.daemon()
	w.says(p, "msg=serving")
	ctx, cancel := context.WithCancel(t.Context())
	var added, fellBack atomic.Int64
	var clients sync.WaitGroup
	for c := range 4 {
		clients.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if err := w.add(fmt.Sprintf("pod-%d-%d", c, i), &fellBack); err != nil {
					t.Errorf("ADD: %v", err)
				}
				added.Add(1)
				time.Sleep(time.Millisecond) // two processors are shared with the daemons
			}
		})
	}
	for range 3 {
		next := w.daemon()
		w.says(next, "standing by")
		many := added.Load() + 50
		w.eventually("ADDs are under way", func() bool { return added.Load() >= many })
		w.end(p)
		w.says(next, "msg=serving")
		w.says(next, "lease keeper started")
		p = next
	}
	overlapping, fellBackThen := added.Load(), fellBack.Load()
	start := time.Now()
	w.end(p)
	p = w.daemon()
	w.says(p, "msg=serving")
	gap := time.Since(start)
	cancel()
	clients.Wait()
	t.Logf("3 upgrades with both daemons there: %d ADDs, %d fell back; then one ended before the next began (%s): %d ADDs, %d fell back",
		overlapping, fellBackThen, gap, added.Load()-overlapping, fellBack.Load()-fellBackThen)
	if fellBackThen != 0 {
		t.Errorf("%d ADDs fell back although there was always a daemon", fellBackThen)
	}
	if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.Process.Pid)); err == nil {
		_, peak, _ := strings.Cut(string(status), "VmHWM:")
		peak, _, _ = strings.Cut(strings.TrimSpace(peak), "\n")
		t.Logf("peak memory of the last daemon: %s", peak)
	}
	records, err := w.journal.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		w.eventually(r.ContainerID+" is written", func() bool { return w.isWritten(r.ContainerID) })
	}
}

// A daemon whose socket does not answer is to be started again.
func TestDaemonHealth(t *testing.T) {
	w := newDaemonWorld(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	p := w.daemon("--listen", address)
	w.says(p, "msg=serving")
	var text string
	get := func(path string) (status int) {
		resp, err := http.Get("http://" + address + path)
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		text = string(b)
		return resp.StatusCode
	}
	w.eventually("it is well", func() bool { return get("/healthz") == 200 })
	if text != "ok      socket\nok      status\nok\n" {
		t.Errorf("GET /healthz: %s", text)
	}
	w.eventually("it is ready", func() bool { return get("/readyz") == 200 })
	for range 512 { // as many as it serves at once, which say nothing
		conn, err := net.Dial("unix", w.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	w.eventually("it is not well", func() bool { return get("/healthz") == 503 })
	if !strings.Contains(text, "failed  socket: ") || !strings.Contains(text, "ok      status") {
		t.Errorf("GET /healthz: %s", text)
	}
	w.eventually("it has sent them away", func() bool { return get("/healthz") == 200 })
}

// Where somebody else keeps DHCP leases the daemon does without, and says so.
func TestDaemonWithoutKeeper(t *testing.T) {
	w := newDaemonWorld(t)
	other := exec.Command("braidd", "dhcp", "--socket", filepath.Join(w.dir, "dhcp.sock"), "--cni-dir", filepath.Join(w.dir, "cni"))
	log := new(lockedBuilder)
	other.Stderr = log
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		other.Process.Kill()
		other.Wait()
	}()
	w.eventually("the other keeper runs", func() bool { return strings.Contains(log.String(), "lease keeper started") })
	p := w.daemon()
	w.says(p, "msg=serving")
	w.says(p, "no lease keeper in this daemon for now")
	var fellBack atomic.Int64
	if err := w.add("web", &fellBack); err != nil || fellBack.Load() != 0 {
		t.Errorf("found %v, and fell back %d times", err, fellBack.Load())
	}
	other.Process.Signal(syscall.SIGTERM)
	w.says(p, "lease keeper started")
	w.end(p)
}

func TestDaemonFlags(t *testing.T) {
	t.Setenv("NODE_NAME", "")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ flag, env, want string }{{"a", "b", "a"}, {"", "b", "b"}, {"", "", host}} {
		t.Setenv("NODE_NAME", tt.env)
		if got, err := nodeName(tt.flag); got != tt.want || err != nil {
			t.Errorf("nodeName(%q) with NODE_NAME=%q: found %q, %v, want %q", tt.flag, tt.env, got, err, tt.want)
		}
	}
	out, err := exec.Command("braidd", "daemon", "--kubeconfig", "/nonexistent", "--cni-dir", t.TempDir()).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "read kubeconfig /nonexistent") {
		t.Errorf("found %v: %s", err, out)
	}
}

package install

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/braid-cni/braid/kube"
	"github.com/braid-cni/braid/kube/api"
	"github.com/braid-cni/braid/kube/kubetest"
	"github.com/braid-cni/braid/resolve"
)

func (n *testNode) guard(report func(Notice)) *Guard {
	g := NewGuard(n.CNIDir, testLog(n.T), report)
	g.grace = 50 * time.Millisecond
	return g
}

// guarded runs a guard until the test ends, and returns its notices.
func (n *testNode) guarded() *notices {
	n.Helper()
	got := &notices{testNode: n}
	g := n.guard(got.add)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- g.Run(ctx) }()
	got.stop = sync.OnceFunc(func() {
		stop()
		if err := <-done; err != nil {
			n.Errorf("guard: %v", err)
		}
	})
	n.Cleanup(got.stop)
	got.ready = g.Ready
	return got
}

type notices struct {
	*testNode
	stop  func()
	ready func() error

	mu   sync.Mutex
	list []Notice
}

func (l *notices) add(n Notice) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, n)
}

// wait waits for a notice of the reason whose message has the text, and forgets all until it.
func (l *notices) wait(reason, text string) Notice {
	l.Helper()
	var found Notice
	l.eventually("notice "+reason+" with "+text, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		for i, n := range l.list {
			if n.Reason == reason && strings.Contains(n.Message, text) {
				found, l.list = n, l.list[i+1:]
				return true
			}
		}
		return false
	})
	return found
}

func (n *testNode) eventually(what string, is func() bool) {
	n.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.Fatalf("%s: it did not come about", what)
		}
	}
}

// clusterNetwork is what the configuration in place says.
func (n *testNode) clusterNetwork() string {
	s, err := load(n.CNIDir)
	if err != nil {
		return ""
	}
	b, err := os.ReadFile(n.path(ours))
	if err != nil || !strings.Contains(string(b), `"`+s.Primary+`"`) {
		return ""
	}
	return filepath.Base(s.Primary)
}

func TestGuardOfConfiguration(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*testNode)
		reason string
		text   string
	}{
		{"removed", func(n *testNode) { n.remove(ours) }, ConfMissing, "removed"},
		{"renamed", func(n *testNode) { n.rename(ours, ours+".cilium_bak") }, ConfMissing, "renamed it to 00-braid.conflist.cilium_bak"},
		{"truncated", func(n *testNode) { must(n.T, os.Truncate(n.path(ours), 0)) }, ConfAltered, "not as it was written"},
		{"altered", func(n *testNode) { n.conf(confName, strings.Replace(n.read(ours), "merged", "default", 1)+" ") }, ConfAltered, "not as it was written"},
		{"replaced", func(n *testNode) { n.write("x", calico, 0o644); n.rename("x", ours) }, ConfAltered, "not as it was written"},
		{"kubeconfig removed", func(n *testNode) { n.remove("etc/cni/net.d/braid.d/kubeconfig") }, ConfMissing, "kubeconfig"},
		{"kubeconfig emptied", func(n *testNode) { must(n.T, os.Truncate(n.path("etc/cni/net.d/braid.d/kubeconfig"), 0)) }, ConfAltered, "kubeconfig"},
		{"binary removed", func(n *testNode) { n.remove("opt/cni/bin/braid") }, BinaryMissing, "removed"},
		{"link removed", func(n *testNode) { n.remove("opt/cni/bin/loopback") }, BinaryMissing, "removed"},
		{"folder emptied", func(n *testNode) {
			n.remove(ours)
			n.remove("etc/cni/net.d/braid.d")
		}, ConfMissing, "kubeconfig"},
		{"folder removed", func(n *testNode) {
			n.rename("etc/cni/net.d", "etc/cni/old")
			n.remove("etc/cni/old")
		}, ConfMissing, "kubeconfig"},
		{"own bridge removed", func(n *testNode) { n.remove("etc/cni/braid/net.d/10-cluster.conflist") }, PrimaryMissing, "own bridge"},
		{"own bridge emptied", func(n *testNode) { must(n.T, os.Truncate(n.bridgeConf(), 0)) }, PrimaryInvalid, "own bridge"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			n.install()
			before := n.contents()
			l := n.guarded()
			l.eventually("the first check", func() bool { return l.ready() == nil })
			time.Sleep(50 * time.Millisecond) // for the watches
			c.change(n)
			if notice := l.wait(c.reason, c.text); !notice.Mended {
				t.Errorf("found %+v, want it mended", notice)
			}
			l.stop()
			after := n.contents()
			for name, content := range before {
				if after[name] != content {
					t.Errorf("%s: found %.100q, want %.100q", name, after[name], content)
				}
			}
			if len(after) != len(before) {
				t.Errorf("found %d files, want %d: %v", len(after), len(before), after)
			}
		})
	}
}

// contents is the tree without times.
func (n *testNode) contents() map[string]string {
	files := map[string]string{}
	for name, what := range n.tree() {
		if strings.HasPrefix(what, "-") && !strings.HasPrefix(what, "->") {
			b, err := os.ReadFile(n.path(name))
			must(n.T, err)
			what = string(b)
		}
		files[name] = what
	}
	return files
}

// A file that sorts before ours would be used in its place: ours gets another name, and nobody's file is touched.
func TestGuardOfOrder(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.conf("10-calico.conflist", calico)
	n.install()
	l := n.guarded()
	n.conf("00-aaa.conflist", cilium)
	l.wait(ConfShadowed, "00-aaa.conflist sorts before")
	names, err := confFiles(n.ConfDir)
	must(t, err)
	if names[0] != earlyName || exists(n.path(ours)) || n.read("etc/cni/net.d/00-aaa.conflist") != cilium {
		t.Errorf("found %v, want ours first, once, and the other as it was", names)
	}
	n.eventually("the default network, as it would be for the runtime without Braid", func() bool {
		return filepath.Base(n.state().Primary) == "00-aaa.conflist"
	})
	n.install()
	if names, _ := confFiles(n.ConfDir); names[0] != earlyName || exists(n.path(ours)) {
		t.Errorf("after another install: found %v, want ours first, once", names)
	}
	n.remove("etc/cni/net.d/00-aaa.conflist")
	l.eventually("the usual name", func() bool { return exists(n.path(ours)) && !exists(filepath.Join(n.ConfDir, earlyName)) })

	n.conf("!first.conflist", cilium)
	if notice := l.wait(ConfShadowed, "!first.conflist sorts before every name"); notice.Mended {
		t.Errorf("found %+v, want it not mended", notice)
	}
	l.stop()
	must(t, n.uninstall(false))
	if names, _ := confFiles(n.ConfDir); len(names) != 2 {
		t.Errorf("after uninstall: found %v", names)
	}
}

func TestGuardOfPrimary(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.install()
	l := n.guarded()
	in := func(name string) func() bool { return func() bool { return n.clusterNetwork() == name } }
	n.eventually("own bridge", in("10-cluster.conflist"))

	n.conf("10-calico.conflist", calico) // appears
	l.wait(PrimaryChanged, "10-cluster.conflist")
	n.eventually("adopted", in("10-calico.conflist"))

	n.conf("10-calico.conflist", `{"name": "half`) // is being written
	if notice := l.wait(PrimaryInvalid, "cannot be used"); notice.Mended || n.clusterNetwork() != "10-calico.conflist" {
		t.Errorf("found %+v and %s, want it told, and kept", notice, n.clusterNetwork())
	}
	n.conf("10-calico.conflist", strings.Replace(calico, "portmap", "bandwidth", 1)) // replaced: taken up by its path
	n.conf("20-other.conflist", `{"name": "other", "type": "ptp"}`)                  // comes later: nobody would use it
	n.rename("etc/cni/net.d/10-calico.conflist", "etc/cni/net.d/10-calico.conflist.bak")
	l.wait(PrimaryMissing, "renamed to "+n.path("etc/cni/net.d/10-calico.conflist.bak"))
	l.wait(PrimaryChanged, "10-calico.conflist") // after the time of grace
	n.eventually("the next one", in("20-other.conflist"))

	n.conf("05-cilium.conflist", cilium) // comes before: taken at once
	l.wait(PrimaryChanged, "20-other.conflist")
	n.eventually("the first one", in("05-cilium.conflist"))

	n.remove("etc/cni/net.d/20-other.conflist")
	n.remove("etc/cni/net.d/05-cilium.conflist")
	l.wait(PrimaryMissing, "gone")
	if got := n.clusterNetwork(); got != "05-cilium.conflist" {
		t.Errorf("found %s, want it kept: nothing else is there", got)
	}
	if s := n.state(); s.Network != "cluster" {
		t.Errorf("the network's name has changed to %s", s.Network)
	}
	if err := l.ready(); err != nil {
		t.Errorf("the configuration is in place, but: %v", err)
	}
}

// A primary that is away for a moment stays what it was.
func TestPrimaryRestarts(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.conf("10-calico.conflist", calico)
	n.conf("20-other.conflist", `{"name": "other", "type": "ptp"}`)
	n.install()
	g := n.guard(nil)
	g.grace = time.Hour
	w := &watcher{}
	n.remove("etc/cni/net.d/10-calico.conflist")
	g.check(t.Context(), w)
	n.conf("10-calico.conflist", calico)
	g.check(t.Context(), w)
	if got := n.clusterNetwork(); got != "10-calico.conflist" || !g.primarySince.IsZero() {
		t.Errorf("found %s, missing since %v", got, g.primarySince)
	}
}

// Two that want a file otherwise do not write it all the time.
func TestNoFight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGuard("", discard, nil)
		mends := 0
		for range 1000 { // somebody undoes it at once, for ten minutes
			g.again = time.Time{}
			if g.may("conf") {
				mends++
			} else if g.again.IsZero() {
				t.Fatal("it waits for nothing")
			}
			time.Sleep(600 * time.Millisecond)
		}
		if mends < 60 || mends > 70 {
			t.Errorf("mended %d times in ten minutes, want once in ten seconds and some at first", mends)
		}
		time.Sleep(2 * quietTime)
		if !g.may("conf") || !g.may("other") {
			t.Error("after a quiet time, and for another file, it has to be mended at once")
		}
	})
}

// At no moment is there an invalid configuration: while it is installed, mended, made anew and the daemon ends.
func TestNeverInvalid(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.conf("10-calico.conflist", calico)
	n.install()
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		reads := 0
		for ; ; reads++ {
			select {
			case <-stop:
				done <- reads
				return
			default:
			}
			for _, name := range []string{confName, earlyName} {
				b, err := os.ReadFile(filepath.Join(n.ConfDir, name))
				if os.IsNotExist(err) {
					continue
				}
				if err == nil {
					err = validate(b)
				}
				if err != nil {
					t.Errorf("%s: %v: %.60q", name, err, b)
				}
			}
		}
	}()
	for i := range 10 {
		l := n.guarded()
		if i%2 == 0 {
			n.Config = []byte(`{"result": "default"}`)
		} else {
			n.Config = nil
		}
		n.install()
		if !exists(n.path(ours)) {
			t.Error("an upgrade has removed the configuration")
		}
		n.rename(ours, ours+".cilium_bak")
		n.eventually("mended", func() bool { return exists(n.path(ours)) })
		n.conf("00-aaa.conflist", cilium)
		n.eventually("first", func() bool { return exists(filepath.Join(n.ConfDir, earlyName)) && !exists(n.path(ours)) })
		n.remove("etc/cni/net.d/00-aaa.conflist")
		n.eventually("back", func() bool { return exists(n.path(ours)) && !exists(filepath.Join(n.ConfDir, earlyName)) })
		n.eventually("calico again", func() bool { return n.clusterNetwork() == "10-calico.conflist" })
		before := n.read(ours)
		l.stop()
		if n.read(ours) != before {
			t.Error("the end of the guard has changed the configuration")
		}
	}
	close(stop)
	if reads := <-done; reads < 100 {
		t.Errorf("read %d times only", reads)
	}
}

// A token that is rotated reaches who uses the kubeconfig.
func TestTokenRotation(t *testing.T) {
	t.Parallel()
	a := kubetest.New(t)
	a.AddManifests("../../examples/manifests")
	n := newNode(t)
	n.Credentials = filepath.Dir(a.TokenFile())
	n.APIServer = a.URL()
	n.install()
	ask := func() error {
		r, err := kube.Open(n.path("etc/cni/net.d/braid.d/kubeconfig"), testLog(t))
		must(t, err)
		_, err = r.Resolve(t.Context(), &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web"}})
		return err
	}
	must(t, ask())
	server, err := api.Login(n.path("etc/cni/net.d/braid.d/kubeconfig")) // as an ADD without the daemon does
	must(t, err)
	if server.URL.String() != a.URL() || !server.Rereads {
		t.Errorf("a plugin reads server %v, token again: %v", server.URL, server.Rereads)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- keepCredentials(ctx, n.CNIDir, testLog(t), 10*time.Millisecond) }()
	a.SetToken("second")
	n.eventually("copied", func() bool { return n.read("etc/cni/net.d/braid.d/token") == "second" })
	must(t, ask())
	must(t, os.Truncate(a.TokenFile(), 0)) // as somebody may find it who does not rename
	time.Sleep(50 * time.Millisecond)
	if got := n.read("etc/cni/net.d/braid.d/token"); got != "second" {
		t.Errorf("found token %q, want the last good one", got)
	}
	a.SetToken("third")
	n.eventually("copied", func() bool { return n.read("etc/cni/net.d/braid.d/token") == "third" })
	must(t, ask())
	stop()
	must(t, <-done)
}

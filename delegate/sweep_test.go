package delegate_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/resolve"
)

// sweep sweeps and returns what was found, by container.
func (w *world) sweep(o delegate.SweepOptions) map[string]delegate.Finding {
	w.t.Helper()
	found := make(map[string]delegate.Finding)
	o.Found = func(f delegate.Finding) { found[f.ContainerID] = f }
	if err := w.delegator().Sweep(w.t.Context(), &cni.Request{Config: w.config("")}, o); err != nil {
		w.t.Fatal(err)
	}
	return found
}

// wantFound compares what was found of the container c1.
func wantFound(t *testing.T, found map[string]delegate.Finding, verdict, action string) {
	t.Helper()
	if f := found["c1"]; f.Verdict != verdict || f.Action != action {
		t.Errorf("found %q, %q: want %s, %s\n%+v", f.Verdict, f.Action, verdict, action, f)
	}
}

func (w *world) record() *journal.Record {
	w.t.Helper()
	j, err := journal.Open(filepath.Join(w.dir, "attachments"))
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := j.Get("c1", "eth0")
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// known is what a daemon tells of c1.
func (w *world) known(stale time.Duration, podGone bool) []delegate.Known {
	w.t.Helper()
	return []delegate.Known{{
		RecordKey:    delegate.RecordKey{ContainerID: "c1", IfName: "eth0", Created: w.record().Created},
		StaleSeconds: stale.Seconds(), PodGone: podGone,
	}}
}

// process starts one in the namespace of the pod, for as long as the test.
func process(t *testing.T, ns *nettest.NS) (end func()) {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	ns.Do(t, func() {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	})
	end = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(end)
	return end
}

// dummy makes an interface that a plugin could have made. (The pair of a veth: every kernel has that.)
func dummy(w *world, name string) {
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "peer0"}
	if err := w.netns.Handle().LinkAdd(link); err != nil {
		w.t.Fatal(err)
	}
}

// What a writer has left that was killed is nothing that anybody else would remove.
func TestSweepTidies(t *testing.T) {
	w := newWorld(t)
	w.macs = true
	w.mustAdd()
	left := filepath.Join(w.dir, "attachments", "c9:eth0.json.tmp")
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.sweep(delegate.SweepOptions{DryRun: true})
	if _, err := os.Stat(left); err != nil {
		t.Errorf("a dry run: %v", err)
	}
	w.sweep(delegate.SweepOptions{})
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestSweep(t *testing.T) {
	unmount := func(w *world) {
		if err := unix.Unmount(w.netns.Path(), unix.MNT_DETACH); err != nil {
			w.t.Fatal(err)
		}
	}
	remount := func(w *world) { // for the cleanup
		if err := unix.Mount("/proc/self/ns/net", w.netns.Path(), "", unix.MS_BIND, ""); err != nil {
			w.t.Fatal(err)
		}
	}
	change := func(edits ...any) func(*world) {
		return func(w *world) {
			edit(w.t, w, func(r map[string]any) {
				for i := 0; i < len(edits); i += 2 {
					r[edits[i].(string)] = edits[i+1]
				}
			})
		}
	}
	// unmounted takes the path of a namespace that a process is in, and that may have an interface.
	unmounted := func(link string, edits ...any) func(*world) {
		return func(w *world) {
			change(edits...)(w)
			if link != "" {
				dummy(w, link)
			}
			process(w.t, w.netns)
			w.netns.Remove(w.t)
		}
	}
	for _, tt := range []struct {
		name    string
		prepare func(*world)
		podGone bool
		verdict string
		action  string // with no grace left
		waits   bool   // while there is grace left
		after   func(*world)
	}{
		{name: "a pod that runs", verdict: delegate.Alive, action: delegate.Kept},
		{name: "an ADD that was killed, and the next one is to come", prepare: change("done", false), verdict: delegate.Alive, action: delegate.Kept},
		{
			name: "the namespace is gone", prepare: func(w *world) { w.netns.Remove(w.t) },
			verdict: delegate.Dead, action: delegate.Undone, waits: true,
		},
		{
			name: "another namespace is at the path", prepare: func(w *world) { unmount(w); remount(w) },
			verdict: delegate.Dead, action: delegate.Undone, waits: true,
		},
		{
			// As the daemon's container sees it where mounts of the host do not propagate.
			name: "a file is at the path", prepare: unmount, after: remount,
			verdict: delegate.Unknown, action: delegate.Kept,
		},
		{
			name: "the folder of the path is not to be seen", prepare: change("netns", "/nonexistent/netns/a"),
			verdict: delegate.Unknown, action: delegate.Kept,
		},
		{
			name: "a process that has ended", prepare: change("netns", "/proc/4194305/ns/net", "netnsInode", 1),
			verdict: delegate.Dead, action: delegate.Undone, waits: true,
		},
		{
			name: "a process of a runtime whose processes are not to be seen", prepare: change("netns", "/proc/4194305/ns/net", "pidNamespace", 1),
			verdict: delegate.Unknown, action: delegate.Kept,
		},
		{
			name: "a record of an older version", prepare: change("netnsInode", 0),
			verdict: delegate.Unknown, action: delegate.Kept,
		},
		{
			name: "the path was unmounted under a pod that runs", prepare: unmounted(""),
			verdict: delegate.Unknown, action: delegate.Kept,
		},
		{
			name: "the path was unmounted under a pod that runs, of a kernel without cookies", prepare: unmounted("net2", "netnsCookie", 0),
			verdict: delegate.Unknown, action: delegate.Kept,
		},
		{
			name: "another namespace of the same inode is at the path", prepare: change("netnsCookie", 1),
			verdict: delegate.Dead, action: delegate.Undone, waits: true,
		},
		{
			name: "its inode is that of another namespace", prepare: unmounted("net2", "netnsCookie", 1),
			verdict: delegate.Dead, action: delegate.Undone, waits: true,
		},
		{
			name: "its inode is that of another namespace, of a kernel without cookies", prepare: unmounted("net9", "netnsCookie", 0),
			verdict: delegate.Dead, action: delegate.Undone, waits: true,
		},
		{
			name: "the path was unmounted, and the pod is gone", prepare: unmounted("net2"),
			podGone: true, verdict: delegate.Dead, action: delegate.Undone, waits: true,
		},
		{name: "another boot", prepare: change("bootID", "boot-0"), verdict: delegate.Dead, action: delegate.Undone},
		{name: "no boot ID", prepare: change("bootID", ""), verdict: delegate.Alive, action: delegate.Kept},
		{name: "the pod is gone", podGone: true, verdict: delegate.PodGone, action: delegate.Undone, waits: true},
		{
			name: "the pod is gone, a process is not", prepare: func(w *world) { process(w.t, w.netns) },
			podGone: true, verdict: delegate.Alive, action: delegate.Kept,
		},
		{
			name: "the pod is gone, processes are not to be seen", prepare: change("pidNamespace", 1),
			podGone: true, verdict: delegate.Alive, action: delegate.Kept,
		},
		{
			name: "the pod is gone, a file is at the path", prepare: unmount, after: remount,
			podGone: true, verdict: delegate.Unknown, action: delegate.Kept,
		},
		{
			name: "undone in part", prepare: change("netns", "", "done", false),
			verdict: delegate.Dead, action: delegate.Undone, waits: true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.mustAdd()
			w.calls()
			if tt.prepare != nil {
				tt.prepare(w)
			}
			if tt.after != nil {
				defer tt.after(w)
			}
			before := w.record()
			still := func(step string) {
				t.Helper()
				w.wantCalls()
				w.wantRecords(1)
				if now := w.record(); !now.Created.Equal(before.Created) || now.Done != before.Done || len(now.Attachments) != 3 {
					t.Errorf("%s changed the record to %+v", step, now)
				}
			}
			const grace = time.Minute
			dry := w.sweep(delegate.SweepOptions{DryRun: true, Known: w.known(grace, tt.podGone), Grace: grace})
			if want := map[bool]string{true: delegate.Would, false: delegate.Kept}[tt.action == delegate.Undone]; true {
				wantFound(t, dry, tt.verdict, want)
			}
			still("a dry run")
			if tt.waits {
				wantFound(t, w.sweep(delegate.SweepOptions{Known: w.known(grace-time.Second, tt.podGone), Grace: grace}), tt.verdict, delegate.Waits)
				still("a sweep in the time of grace")
			}
			known := w.known(grace, tt.podGone)
			if !tt.waits {
				known[0].StaleSeconds = 0
			}
			wantFound(t, w.sweep(delegate.SweepOptions{Known: known, Grace: grace}), tt.verdict, tt.action)
			if tt.action == delegate.Kept {
				still("a sweep")
				return
			}
			w.wantCalls("fake-two DEL net2", "fake-one DEL net1", "fake-default DEL eth0")
			w.wantRecords(0)
		})
	}
}

// TestSweepUsesTheNamespaceThatIsThere: of a pod that is gone the interfaces are in it; that of a dead one is none.
func TestSweepUsesTheNamespaceThatIsThere(t *testing.T) {
	for _, podGone := range []bool{true, false} {
		w := newWorld(t)
		w.mustAdd()
		want := w.netns.Path()
		if !podGone {
			want = ""
			edit(t, w, func(r map[string]any) { r["bootID"] = "boot-0" })
		}
		w.on = func(_, command string, req *cni.Request) error {
			if command == "DEL" && req.Netns != want {
				t.Errorf("DEL in %q, want %q", req.Netns, want)
			}
			return nil
		}
		w.sweep(delegate.SweepOptions{Known: w.known(0, podGone)})
		w.wantRecords(0)
	}
}

// TestSweepForgetsWhatIsKnownOfAnother: time passes for a record, not for a container.
func TestSweepForgetsWhatIsKnownOfAnother(t *testing.T) {
	w := newWorld(t)
	w.macs = true
	w.mustAdd()
	w.netns.Remove(t)
	known := w.known(time.Hour, true)
	known[0].Created = known[0].Created.Add(-time.Nanosecond)
	wantFound(t, w.sweep(delegate.SweepOptions{Grace: time.Minute, Known: known}), delegate.Dead, delegate.Waits)
	w.wantRecords(1)
}

// TestSweepAndLock: what is at work on a container is not disturbed.
func TestSweepAndLock(t *testing.T) {
	w := newWorld(t)
	w.macs = true
	w.mustAdd()
	w.netns.Remove(t)
	w.calls()
	j, err := journal.Open(filepath.Join(w.dir, "attachments"))
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := j.Lock(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	wantFound(t, w.sweep(delegate.SweepOptions{}), delegate.Dead, delegate.Busy)
	w.wantCalls()
	unlock()
	wantFound(t, w.sweep(delegate.SweepOptions{}), delegate.Dead, delegate.Undone)
	w.wantRecords(0)
}

// TestSweepJudgesAgain: between the first look and the lock a record can become that of another ADD, or none.
func TestSweepJudgesAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		during func(*world)
		left   int
	}{
		{"DEL", func(w *world) { _ = w.delegator().Del(w.t.Context(), w.request("")) }, 0},
		{"DEL and ADD in another namespace", func(w *world) {
			_ = w.delegator().Del(w.t.Context(), w.request(""))
			w.netns = nettest.NewNS(w.t)
			w.mustAdd()
		}, 1},
		{"ADD in another namespace", func(w *world) {
			w.netns = nettest.NewNS(w.t)
			w.mustAdd()
		}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			first := w.request("")
			first.ContainerID = "c0"
			if _, err := w.delegator().Add(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			w.mustAdd()
			w.netns.Remove(t)
			w.calls()
			// Found is called of c1 before its record is looked at again: hold the sweep there by way of c0, whose
			// verdict is told while the candidates are still being collected.
			j, err := journal.Open(filepath.Join(w.dir, "attachments"))
			if err != nil {
				t.Fatal(err)
			}
			r, err := j.Get("c0", "eth0")
			if err != nil {
				t.Fatal(err)
			}
			r.ContainerID, r.Netns = "c2", "/proc/self/ns/net" // the last one to be judged, and alive
			r.NetnsInode, r.NetnsCookie = inode(t, r.Netns), 0
			if err := errors.Join(j.Put(r), j.Remove("c0", "eth0")); err != nil {
				t.Fatal(err)
			}
			found := make(map[string]delegate.Finding)
			d := w.delegator()
			err = d.Sweep(t.Context(), &cni.Request{Config: w.config("")}, delegate.SweepOptions{Found: func(f delegate.Finding) {
				if f.ContainerID == "c2" {
					tt.during(w)
					w.calls()
				}
				found[f.ContainerID] = f
			}})
			if err != nil {
				t.Fatal(err)
			}
			wantFound(t, found, delegate.Dead, delegate.Busy)
			w.wantCalls()
			w.wantRecords(1 + tt.left)
		})
	}
}

func inode(t *testing.T, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// TestSweepFails: what cannot be undone is kept for the next sweep, and the rest is undone.
func TestSweepFails(t *testing.T) {
	for name, on := range map[string]func(string, string, *cni.Request) error{
		"an error": fail("fake-one", "DEL", errors.New("keeper is down")),
		"a panic": func(plugin, command string, _ *cni.Request) error {
			if plugin == "fake-one" && command == "DEL" {
				panic("keeper is down")
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.mustAdd()
			other := w.request("")
			other.ContainerID = "c2"
			if _, err := w.delegator().Add(t.Context(), other); err != nil {
				t.Fatal(err)
			}
			w.netns.Remove(t)
			w.on = func(plugin, command string, req *cni.Request) error {
				if req.ContainerID != "c1" {
					return nil
				}
				return on(plugin, command, req)
			}
			for range 2 {
				found := w.sweep(delegate.SweepOptions{})
				wantFound(t, found, delegate.Dead, delegate.Failed)
				if !strings.Contains(found["c1"].Error, "keeper is down") {
					t.Errorf("error = %q", found["c1"].Error)
				}
				w.wantRecords(1)
			}
			w.on = nil
			wantFound(t, w.sweep(delegate.SweepOptions{}), delegate.Dead, delegate.Undone)
			w.wantRecords(0)
		})
	}
}

// TestSweepDoesNotWaitForEver: a plugin that hangs is given up, and tried again in the next sweep; the others get their
// turn meanwhile.
func TestSweepDoesNotWaitForEver(t *testing.T) {
	w := newWorld(t)
	w.macs = true
	w.mustAdd()
	other := w.request("")
	other.ContainerID = "c2"
	if _, err := w.delegator().Add(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	w.netns.Remove(t)
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "fake-one"), []byte("#!/bin/sh\n[ $CNI_CONTAINERID = c2 ] || sleep 600\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := func(limit string) *cni.Request {
		return &cni.Request{Path: []string{bin}, Config: w.config(`,"exec":["fake-one"],"deadlines":{"plugin":"` + limit + `"}`)}
	}
	found := make(map[string]delegate.Finding)
	o := delegate.SweepOptions{Found: func(f delegate.Finding) { found[f.ContainerID] = f }}
	if err := w.delegator().Sweep(t.Context(), config("500ms"), o); err != nil {
		t.Fatal(err)
	}
	wantFound(t, found, delegate.Dead, delegate.Failed)
	if found["c2"].Action != delegate.Undone || !strings.Contains(found["c1"].Error, "not done in 500ms") {
		t.Errorf("found %+v", found)
	}
	if r := w.record(); len(r.Attachments) != 1 || r.Attachments[0].IfName != "net1" {
		t.Errorf("left: %+v", r.Attachments)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) // the sweep itself is given up
	defer cancel()
	if err := w.delegator().Sweep(ctx, config("10m"), o); err != nil {
		t.Fatal(err)
	}
	wantFound(t, found, delegate.Dead, delegate.Failed)
	w.wantRecords(1)
	wantFound(t, w.sweep(delegate.SweepOptions{}), delegate.Dead, delegate.Undone) // by the own plugin
	w.wantRecords(0)
}

// TestSweepUnreadable: a record that is damaged is undone, as far as the configuration tells, if what is left of it says
// that the container is gone.
func TestSweepUnreadable(t *testing.T) {
	cut := func(after string) func(string) string {
		return func(record string) string {
			before, _, found := strings.Cut(record, after)
			if !found {
				return "no " + after
			}
			return before + after
		}
	}
	empty := func(string) string { return "" }
	removed := func(w *world) { w.netns.Remove(w.t) }
	otherBoot := func(w *world) { edit(w.t, w, func(r map[string]any) { r["bootID"] = "boot-0" }); w.rewrite() }
	for _, tt := range []struct {
		name    string
		prepare func(*world)
		damage  func(string) string
		force   bool
		undone  bool
	}{
		{"the container lives", nil, cut(`"attachments":[`), false, false},
		{"the namespace is gone", removed, cut(`"attachments":[`), false, true},
		{"another boot", func(w *world) { otherBoot(w); removed(w) }, cut(`"attachments":[`), false, true},
		{"another boot, says a record whose namespace is there", otherBoot, cut(`"attachments":[`), false, false},
		{"the namespace is gone, but which?", removed, cut(`"netns":`), false, false},
		{"nothing can be read", removed, empty, false, false},
		{"nothing can be read, but the operator knows", removed, empty, true, true},
		{"of another container", removed, func(record string) string { return strings.ReplaceAll(record, `"c1"`, `"c3"`) }, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.mustAdd()
			w.calls()
			if tt.prepare != nil {
				tt.prepare(w)
			}
			path := filepath.Join(w.dir, "attachments", "c1:eth0.json")
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(tt.damage(string(b))), 0o600); err != nil {
				t.Fatal(err)
			}
			var args string
			w.on = func(_, _ string, req *cni.Request) error { args = req.Args; return nil }
			found := w.sweep(delegate.SweepOptions{Unreadable: tt.force})
			if !tt.undone {
				wantFound(t, found, delegate.Unreadable, delegate.Kept)
				w.wantCalls()
				w.wantRecords(1)
				return
			}
			wantFound(t, found, delegate.Dead, delegate.Undone)
			w.wantCalls("fake-default DEL eth0") // all that the configuration tells
			w.wantRecords(0)
			if want := w.request("").Args; !tt.force && args != want {
				t.Errorf("CNI_ARGS of the DEL are %q, want those of the ADD, %q", args, want)
			}
			if _, err := os.Stat(path + ".corrupt"); err != nil {
				t.Errorf("the record was not kept: %v", err)
			}
		})
	}
}

// rewrite makes one document of the only record, with its keys in their order.
func (w *world) rewrite() {
	w.t.Helper()
	j, err := journal.Open(filepath.Join(w.dir, "attachments"))
	if err == nil {
		err = j.Put(w.record())
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestSweepOfNewerRecords: what a newer version has written is left to it, and the rest is swept. Who knows better can have
// it undone as far as it can be read.
func TestSweepOfNewerRecords(t *testing.T) {
	w := newWorld(t)
	w.macs = true
	w.mustAdd()
	edit(t, w, func(r map[string]any) { r["version"] = 99 })
	other := w.request("")
	other.ContainerID = "c2"
	if _, err := w.delegator().Add(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	w.netns.Remove(t)
	sweep := func(o delegate.SweepOptions) (actions []string) {
		t.Helper()
		o.Found = func(f delegate.Finding) {
			actions = append(actions, f.ContainerID+" "+f.Action)
			if f.ContainerID == "c1" && !strings.Contains(f.Reason, "newer Braid") {
				t.Errorf("reason: %s", f.Reason)
			}
		}
		if err := w.delegator().Sweep(t.Context(), &cni.Request{Config: w.config("")}, o); err != nil {
			t.Error(err)
		}
		return actions
	}
	if actions := sweep(delegate.SweepOptions{}); !slices.Equal(actions, []string{"c1 kept", "c2 undone"}) {
		t.Errorf("found %q", actions)
	}
	before, err := os.ReadFile(filepath.Join(w.dir, "attachments", "c1:eth0.json"))
	if err != nil {
		t.Fatal(err)
	}
	w.calls()
	if actions := sweep(delegate.SweepOptions{Unreadable: true}); !slices.Equal(actions, []string{"c1 undone"}) {
		t.Errorf("found %q", actions)
	}
	if calls := w.calls(); len(calls) != 3 {
		t.Errorf("calls: %q", calls)
	}
	after, err := os.ReadFile(filepath.Join(w.dir, "attachments", "c1:eth0.json.newer"))
	if err != nil || string(after) != string(before) {
		t.Errorf("the record is not kept: %v, %s", err, after)
	}
	w.wantRecords(0)
}

// unheard is a world that keeps no reports.
type unheard struct{ *world }

func (unheard) Report(context.Context, *resolve.Report) error { return nil }

// TestSweepRaces: sweeps without any grace run against runtimes that ADD and DEL the same containers, some with DEL, some
// by removing the namespace only, and use the IDs again. No attachment of a pod that lives goes, and nothing stays.
func TestSweepRaces(t *testing.T) {
	w := newWorld(t)
	w.macs = true
	var mu sync.Mutex
	attached := make(map[string]string) // namespace by container and interface, as plugins have made it
	w.on = func(_, command string, req *cni.Request) error {
		mu.Lock()
		defer mu.Unlock()
		key := req.ContainerID + " " + req.IfName
		switch command {
		case "ADD":
			if had := attached[key]; had != "" {
				t.Errorf("ADD of %s, which is still in %s", key, had)
			}
			attached[key] = req.Netns
		case "DEL":
			delete(attached, key)
		}
		return nil
	}
	d := w.delegator()
	d.Stderr = io.Discard
	d.Resolver = func(*conf.Config, *slog.Logger) (interface {
		resolve.Resolver
		io.Closer
	}, error) {
		return unheard{w}, nil
	}
	stop := make(chan struct{})
	var sweeps, swept atomic.Int64
	var sweepers, runtimes sync.WaitGroup
	for range 2 {
		sweepers.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				sweeps.Add(1)
				err := d.Sweep(t.Context(), &cni.Request{Config: w.config("")}, delegate.SweepOptions{Found: func(f delegate.Finding) {
					if f.Action == delegate.Undone {
						swept.Add(1)
					}
					if f.Action == delegate.Failed {
						t.Errorf("%+v", f)
					}
				}})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	const rounds = 60
	for i := range 4 {
		runtimes.Go(func() {
			for n := range rounds {
				ns := nettest.NewNS(t)
				req := w.request("")
				req.ContainerID, req.Netns = fmt.Sprint("c", i), ns.Path()
				if _, err := d.Add(t.Context(), req); err != nil {
					t.Error(err)
				}
				time.Sleep(time.Duration(n%5) * time.Millisecond)
				mu.Lock()
				for _, ifName := range []string{"eth0", "net1", "net2"} {
					if got := attached[req.ContainerID+" "+ifName]; got != ns.Path() {
						t.Errorf("round %d: %s of container %s is in %q, want %s", n, ifName, req.ContainerID, got, ns.Path())
					}
				}
				mu.Unlock()
				if err := d.Check(t.Context(), req); err != nil {
					t.Errorf("round %d: %v", n, err)
				}
				if n%3 != 0 {
					if err := d.Del(t.Context(), req); err != nil {
						t.Error(err)
					}
				}
				ns.Remove(t)
				time.Sleep(time.Duration(n%7) * time.Millisecond) // the next one comes at once, or when a sweep has been there
			}
		})
	}
	runtimes.Wait()
	close(stop)
	sweepers.Wait()
	w.sweep(delegate.SweepOptions{})
	w.wantRecords(0)
	if len(attached) != 0 {
		t.Errorf("left: %v", attached)
	}
	if swept.Load() == 0 {
		t.Errorf("none of %d sweeps found anything", sweeps.Load())
	}
	t.Logf("%d sweeps undid %d of %d records", sweeps.Load(), swept.Load(), 4*rounds)
}

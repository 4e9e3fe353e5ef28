package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/node/sweep"
	"github.com/braid-cni/braid/resolve"
)

const sweptLAN = `{"cniVersion": "1.1.0", "type": "macvlan", "master": "$NIC", "ipam": {"type": "host-local", "dataDir": "$DIR", "subnet": "10.30.0.0/24"}}`

// newSweptNode is a node whose pods get a bridge with masquerading, a macvlan and another bridge.
func newSweptNode(t *testing.T) *node {
	n := newNode(t)
	n.nad("blue", "storage", storage)
	n.nad("blue", "lan", sweptLAN)
	t.Cleanup(n.removeBridges)
	return n
}

// conflist writes the entry configuration as it lies on a node.
func (n *node) conflist() (path string) {
	n.t.Helper()
	dir := filepath.Join(n.dir, "net.d")
	path = filepath.Join(dir, "00-braid.conflist")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(path, n.network("1.1.0").Bytes, 0o600)); err != nil {
		n.t.Fatal(err)
	}
	return path
}

// sweepCommand is `braidd sweep` with what is known of records.
func (n *node) sweepCommand(known []delegate.Known, args ...string) *exec.Cmd {
	n.t.Helper()
	b, err := json.Marshal(known)
	if err != nil {
		n.t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(binaries(), "braidd"), append([]string{"sweep", "--json", "--known", "-"}, args...)...)
	cmd.Stdin = bytes.NewReader(b)
	return cmd
}

// sweep runs it, and returns what it found by container.
func (n *node) sweep(known []delegate.Known, args ...string) map[string]delegate.Finding {
	n.t.Helper()
	cmd := n.sweepCommand(known, append([]string{"--conf-dir", filepath.Dir(n.conflist())}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		n.t.Fatalf("braidd sweep: %v\n%s%s", err, out, stderr.Bytes())
	}
	found := make(map[string]delegate.Finding)
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var f delegate.Finding
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			n.t.Fatalf("%v: %s", err, lines.Bytes())
		}
		found[f.ContainerID] = f
	}
	return found
}

func wantAction(t *testing.T, found map[string]delegate.Finding, container, verdict, action string) {
	t.Helper()
	if f := found[container]; f.Verdict != verdict || f.Action != action {
		t.Errorf("container %s: found %+v, want %s, %s", container, f, verdict, action)
	}
}

// state is all that pods have on the node: links, rules, records and reservations.
func (n *node) state() string {
	n.t.Helper()
	out, err := exec.Command("sh", "-c", "ip -br link; nft --stateless list ruleset; find "+n.dir+" -type f ! -name 00-braid.conflist -exec cksum {} + | sort").CombinedOutput()
	if err != nil {
		n.t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// has says what the node has of an address: reservations and rules.
func (n *node) has(address string) (found []string) {
	n.t.Helper()
	files, err := filepath.Glob(filepath.Join(n.dir, "ipam", "*", address))
	if err != nil {
		n.t.Fatal(err)
	}
	rules, err := exec.Command("nft", "list", "ruleset").Output()
	if err != nil {
		n.t.Fatal(err)
	}
	for line := range strings.Lines(string(rules)) {
		if slices.Contains(strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" ,{}\t\n", r) }), address) {
			files = append(files, line)
		}
	}
	return files
}

// TestSweep: of a pod whose namespace went without DEL nothing is left, of one whose pod went neither; those that live
// keep all they have.
func TestSweep(t *testing.T) {
	n := newSweptNode(t)
	var pods []*pod
	for _, name := range []string{"web", "db", "dead", "gone", "held"} {
		p := n.pod(name, "storage,lan")
		p.mustAdd()
		pods = append(pods, p)
	}
	web, db, dead, gone, held := pods[0], pods[1], pods[2], pods[3], pods[4]
	if left := n.has("10.244.0.4"); len(left) < 2 {
		t.Fatalf("found %q: want a reservation and a rule for the pod", left)
	}
	dead.ns.Remove(t)
	sleep := exec.Command("sleep", "600") // a pod that the API server has not any more, and that runs still
	held.ns.Do(t, func() {
		if err := sleep.Start(); err != nil {
			t.Fatal(err)
		}
	})
	defer func() { _, _ = sleep.Process.Kill(), sleep.Wait() }()

	found := n.sweep(nil)
	wantAction(t, found, "c-dead", delegate.Dead, delegate.Waits)
	known := []delegate.Known{}
	for _, name := range []string{"c-dead", "c-gone", "c-held"} {
		known = append(known, delegate.Known{RecordKey: found[name].RecordKey, StaleSeconds: 60, PodGone: name != "c-dead"})
	}
	before := n.state()
	for settled := ""; settled != before; settled, before = before, n.state() { // the kernel takes a moment to end a namespace
		time.Sleep(100 * time.Millisecond)
	}
	found = n.sweep(known, "--dry-run")
	wantAction(t, found, "c-dead", delegate.Dead, delegate.Would)
	wantAction(t, found, "c-gone", delegate.PodGone, delegate.Would)
	if after := n.state(); after != before {
		t.Errorf("a dry run changes the node (-before +after):\n%s", cmp.Diff(before, after))
	}

	found = n.sweep(known)
	wantAction(t, found, "c-dead", delegate.Dead, delegate.Undone)
	wantAction(t, found, "c-gone", delegate.PodGone, delegate.Undone)
	for _, name := range []string{"c-web", "c-db", "c-held"} {
		wantAction(t, found, name, delegate.Alive, delegate.Kept)
	}
	for _, address := range []string{"10.244.0.4", "10.10.0.4", "10.30.0.4", "fd00:244::4", "10.244.0.5", "10.10.0.5", "10.30.0.5", "fd00:244::5"} {
		if left := n.has(address); len(left) > 0 {
			t.Errorf("left of %s: %q", address, left)
		}
	}
	if links := gone.ns.Links(t); len(links) > 0 {
		t.Errorf("links in the namespace of the pod that is gone: %q", links)
	}
	for _, to := range []string{"10.244.0.3", "fd00:244::3", "10.10.0.3", "10.30.0.3"} {
		nettest.Reach(t, web.ns, db.ns, to)
	}
	for _, p := range []*pod{web, db, held} {
		if err := p.check(); err != nil {
			t.Errorf("CHECK of %s: %v", p.name, err)
		}
		p.mustDel()
	}
	if found := n.sweep(nil); len(found) != 0 {
		t.Errorf("found %v on an empty node", found)
	}
	n.left()
}

// TestSweepLooksForProcesses: whether there are none can be said with the node's /proc only, in whatever PID namespace
// the sweep runs itself.
func TestSweepLooksForProcesses(t *testing.T) {
	n := newSweptNode(t)
	web := n.pod("web", "storage")
	web.mustAdd()
	known := []delegate.Known{{RecordKey: n.sweep(nil)["c-web"].RecordKey, PodGone: true}}
	for _, tt := range []struct{ wrapper, verdict string }{
		{"unshare --pid --fork", delegate.PodGone},
		{"unshare --pid --fork --mount-proc", delegate.Alive},
	} {
		cmd := n.sweepCommand(known, "--config", n.conflist(), "--grace", "0s", "--dry-run")
		cmd.Args = append(strings.Fields(tt.wrapper), cmd.Args...)
		cmd.Path = "/usr/bin/unshare"
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), `"verdict":"`+tt.verdict+`"`) {
			t.Errorf("%s: found %s, %v, want %s", tt.wrapper, out, err, tt.verdict)
		}
	}
	web.mustDel()
	n.left()
}

// TestSweepByHand: without a memory the command sees for itself that what is gone stays gone.
func TestSweepByHand(t *testing.T) {
	n := newSweptNode(t)
	dead, web := n.pod("dead", "storage"), n.pod("web", "storage")
	dead.mustAdd()
	web.mustAdd()
	dead.ns.Remove(t)
	out, err := exec.Command(filepath.Join(binaries(), "braidd"), "sweep", "--config", n.conflist(), "--grace", "2s").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{
		"alive      kept   c-web:eth0 pod blue/web (cluster@eth0 blue/storage@net1)\n",
		"dead       waits  c-dead:eth0 pod blue/dead (cluster@eth0 blue/storage@net1): " + dead.ns.Path() + " is gone\n",
		"dead       undone c-dead:eth0 pod blue/dead",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("found\n%s\nwant %q", out, want)
		}
	}
	web.mustDel()
	n.left()
}

// TestSweepAfterReboot: all that the pods of another boot had is free again, at once.
func TestSweepAfterReboot(t *testing.T) {
	const pods = 250
	n := newSweptNode(t)
	n.keys = `"logLevel": "warn"` // without a cluster: an ADD takes half the time
	var adds errgroup.Group
	adds.SetLimit(8)
	for i := range pods {
		p := n.pod(fmt.Sprint("p", i), "")
		adds.Go(func() error {
			_, err := p.add()
			p.ns.Remove(t)
			return err
		})
	}
	if err := adds.Wait(); err != nil {
		t.Fatal(err)
	}
	records, err := filepath.Glob(filepath.Join(n.dir, "braid", "attachments", "*.json"))
	if err != nil || len(records) != pods {
		t.Fatalf("found %d records, %v", len(records), err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range records {
		b, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, bytes.ReplaceAll(b, bytes.TrimSpace(boot), []byte("7f4e3c52-0000-4000-8000-000000000000")), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	found := n.sweep(nil)
	t.Logf("%d records swept in %s", pods, time.Since(begin))
	for _, f := range found {
		if f.Verdict != delegate.Dead || f.Action != delegate.Undone {
			t.Errorf("found %+v", f)
		}
	}
	n.left()
}

// TestSweepIsKilled: whenever that is, the next sweep finishes it.
func TestSweepIsKilled(t *testing.T) {
	n := newSweptNode(t)
	web := n.pod("web", "storage,lan")
	web.mustAdd()
	kills := 0
	for life := 10 * time.Millisecond; life < 400*time.Millisecond; life += life / 3 {
		for i := range 4 {
			p := n.pod(fmt.Sprintf("p%d-%d", life, i), "storage,lan")
			p.mustAdd()
			p.ns.Remove(t)
		}
		cmd := n.sweepCommand(nil, "--config", n.conflist(), "--grace", "0s")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(life, func() { _ = cmd.Process.Kill() })
		if err := cmd.Wait(); err != nil {
			kills++
		}
		timer.Stop()
	}
	for container, f := range n.sweep(nil, "--grace", "0s") {
		if want := map[bool]string{true: delegate.Kept, false: delegate.Undone}[container == "c-web"]; f.Action != want {
			t.Errorf("found %+v, want it %s", f, want)
		}
	}
	t.Logf("%d sweeps were killed", kills)
	if kills == 0 {
		t.Error("no sweep was killed")
	}
	if err := web.check(); err != nil {
		t.Error(err)
	}
	web.mustDel()
	n.left()
}

// TestSweepRaces: processes that sweep without any grace run against those of a runtime. No pod that lives loses
// anything, and nothing stays.
func TestSweepRaces(t *testing.T) {
	n := newSweptNode(t)
	web := n.pod("web", "storage,lan")
	web.mustAdd()
	config := n.conflist()
	ctx, stop := context.WithCancel(t.Context())
	var runtimes, sweepers sync.WaitGroup
	undone := 0
	sweepers.Go(func() {
		for ctx.Err() == nil {
			out, err := n.sweepCommand(nil, "--config", config, "--grace", "0s").Output()
			if err != nil {
				t.Errorf("braidd sweep: %v: %s", err, out)
			}
			undone += strings.Count(string(out), `"action":"undone"`)
			if strings.Contains(string(out), "c-web:eth0") && !strings.Contains(string(out), `"verdict":"alive"`) {
				t.Errorf("the pod that lives was found to be %s", out)
			}
		}
	})
	const rounds = 16
	for i := range 3 {
		runtimes.Go(func() {
			for round := range rounds {
				// The same container again, in another namespace, while what is left of the one before may still be there.
				p := &pod{node: n, name: fmt.Sprint("p", i), ns: nettest.NewNS(t)}
				p.args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "blue"}, {"K8S_POD_NAME", "web"}, {"K8S_POD_UID", "uid-web"}}
				res, err := p.add()
				if err != nil {
					t.Errorf("ADD of %s in round %d: %v", p.name, round, err)
					return
				}
				if err := p.check(); err != nil {
					t.Errorf("CHECK of %s in round %d: %v", p.name, round, err)
				}
				nettest.Reach(t, web.ns, p.ns, res.IPs[0].Address.IP.String())
				if round%2 == 0 {
					if err := p.del(); err != nil {
						t.Errorf("DEL of %s in round %d: %v", p.name, round, err)
					}
				}
				p.ns.Remove(t)
			}
		})
	}
	runtimes.Wait()
	stop()
	sweepers.Wait()
	n.sweep(nil, "--grace", "0s")
	t.Logf("%d of %d attachments were undone by sweeps", undone, 3*rounds)
	if err := web.check(); err != nil {
		t.Error(err)
	}
	web.mustDel()
	n.left()
}

// TestDaemonSweeps: from a container of its own the daemon sweeps the host, if it sees the host's mounts; if it does not,
// it leaves everything alone.
func TestDaemonSweeps(t *testing.T) {
	for _, propagates := range []bool{true, false} {
		t.Run(fmt.Sprint("mounts propagate: ", propagates), func(t *testing.T) {
			n := newSweptNode(t)
			root := n.hostRoot(propagates)
			dead, gone, web := n.pod("dead", "storage,lan"), n.pod("gone", "storage,lan"), n.pod("web", "storage,lan")
			for _, p := range []*pod{dead, gone, web} {
				p.mustAdd()
				n.nameUID(p)
			}
			if propagates {
				dead.ns.Remove(t)
			}
			var mu sync.Mutex
			var events []string
			var last sweep.Summary
			sweeps := 0
			s := sweep.New(sweep.Options{
				Command:  sweep.Command{Root: root, Path: filepath.Join(binaries(), "braidd"), Args: []string{"--config", n.conflist()}},
				Interval: 300 * time.Millisecond, Grace: time.Second, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
				Pods: pods{"blue/web uid-web"},
				Done: func(sum sweep.Summary) {
					mu.Lock()
					defer mu.Unlock()
					last = sum
					sweeps++
				},
				Event: func(pod resolve.Pod, e resolve.Event) {
					mu.Lock()
					defer mu.Unlock()
					events = append(events, fmt.Sprintf("%s/%s %s %s %s", pod.Namespace, pod.Name, e.Type, e.Reason, e.Message))
				},
			})
			ctx, stop := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- s.Run(ctx) }()
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
				mu.Lock()
				over := len(events) == 2 || !propagates && sweeps >= 8
				if over || time.Now().After(deadline) {
					break
				}
				mu.Unlock()
			}
			mu.Unlock()
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
			if !propagates {
				if len(events) > 0 || last.Verdicts[delegate.Unknown] != 3 || last.Actions[delegate.Kept] != 3 {
					t.Errorf("found %q, %+v", events, last)
				}
				for _, p := range []*pod{dead, gone} {
					if err := p.check(); err != nil {
						t.Error(err)
					}
					p.mustDel()
				}
			} else {
				slices.Sort(events)
				want := []string{
					"blue/dead Warning StaleAttachment Undid cluster@eth0 blue/storage@net1 blue/lan@net2 of container c-dead, for which no DEL came: ",
					"blue/gone Warning StaleAttachment Undid cluster@eth0 blue/storage@net1 blue/lan@net2 of container c-gone, for which no DEL came: " +
						"the pod is gone, and no process is in its namespace",
				}
				if len(events) != 2 || !strings.HasPrefix(events[0], want[0]) || events[1] != want[1] {
					t.Errorf("found events %q, want %q", events, want)
				}
				if links := gone.ns.Links(t); len(links) > 0 {
					t.Errorf("links in the namespace of the pod that is gone: %q", links)
				}
			}
			if err := web.check(); err != nil {
				t.Error(err)
			}
			web.mustDel()
			n.left()
		})
	}
}

// pods are those that an API server has, as "namespace/name uid".
type pods []string

func (p pods) PodExists(_ context.Context, namespace, name, uid string) (bool, error) {
	return slices.Contains(p, namespace+"/"+name+" "+uid), nil
}

// nameUID has the record of a pod name its UID.
func (n *node) nameUID(p *pod) {
	n.t.Helper()
	path := filepath.Join(n.dir, "braid", "attachments", "c-"+p.name+":eth0.json")
	b, err := os.ReadFile(path)
	if err == nil && !bytes.Contains(b, []byte(`"podUID"`)) {
		err = os.WriteFile(path, bytes.Replace(b, []byte(`"pod":`), fmt.Appendf(nil, `"podUID":"uid-%s","pod":`, p.name), 1), 0o600)
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

// hostRoot mounts the file system of the host as a container gets it, with mounts that come later or without.
func (n *node) hostRoot(propagates bool) string {
	n.t.Helper()
	root := filepath.Join(n.t.TempDir(), "host")
	if err := os.Mkdir(root, 0o755); err != nil {
		n.t.Fatal(err)
	}
	flags := uintptr(unix.MS_PRIVATE)
	if propagates {
		flags = unix.MS_SLAVE
	}
	for _, m := range []struct {
		source, target string
		flags          uintptr
	}{
		{"", "/", unix.MS_SHARED | unix.MS_REC},
		{"/", root, unix.MS_BIND | unix.MS_REC},
		{"", root, flags | unix.MS_REC},
	} {
		if err := unix.Mount(m.source, m.target, "", m.flags, ""); err != nil {
			n.t.Fatalf("mount %+v: %v", m, err)
		}
	}
	n.t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(root, unix.MNT_DETACH), unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")); err != nil {
			n.t.Error(err)
		}
	})
	return root
}

// TestSweepWithThirdParty: a plugin that fails or hangs keeps what is its own in the journal, and is tried again.
func TestSweepWithThirdParty(t *testing.T) {
	n := newSweptNode(t)
	bin := t.TempDir()
	n.path = append([]string{bin}, n.path...) // the first one is binDir
	how := filepath.Join(bin, "how")
	script := `#!/bin/sh
case $CNI_COMMAND in
ADD) echo '{"cniVersion": "1.1.0", "interfaces": [{"name": "'$CNI_IFNAME'", "sandbox": "'$CNI_NETNS'"}]}' ;;
DEL) . ` + how + ` ;;
esac
`
	setHow := func(s string) {
		t.Helper()
		if err := os.WriteFile(how, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(bin, "vendor"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	n.nad("blue", "vendor", `{"cniVersion": "1.1.0", "type": "vendor"}`)
	dead := n.pod("dead", "storage,vendor")
	dead.mustAdd()
	dead.ns.Remove(t)

	var events []string
	s := sweep.New(sweep.Options{
		Command:  sweep.Command{Path: filepath.Join(binaries(), "braidd"), Args: []string{"--config", n.conflist()}},
		Grace:    time.Nanosecond,
		Deadline: 2 * time.Second,
		Log:      slog.New(slog.NewTextHandler(t.Output(), nil)),
		Event:    func(_ resolve.Pod, e resolve.Event) { events = append(events, e.Message) },
	})
	mustSweep := func() {
		t.Helper()
		if err := s.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	setHow(`echo '{"cniVersion": "1.1.0", "code": 100, "msg": "the switch does not answer"}'; exit 1`)
	for range 3 { // the first one only sees it
		mustSweep()
	}
	if len(events) != 1 || !strings.Contains(events[0], "network blue/vendor: net2: plugin vendor: the switch does not answer") {
		t.Errorf("events: %q", events)
	}
	if left := n.has("10.244.0.2"); len(left) > 0 {
		t.Errorf("the rest was not undone: %q", left)
	}
	setHow("echo $$ > " + how + ".pid; sleep 600")
	if err := s.Sweep(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a sweep with a plugin that hangs: %v", err)
	}
	pid, err := os.ReadFile(how + ".pid")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/" + strings.TrimSpace(string(pid))); err == nil {
		t.Errorf("the plugin, process %s, outlives the sweep", pid)
	}
	if records, err := filepath.Glob(filepath.Join(n.dir, "braid", "attachments", "*.json")); err != nil || len(records) != 1 {
		t.Errorf("records %q, %v", records, err)
	}
	setHow("exit 0")
	mustSweep()
	if len(events) == 0 || !strings.HasPrefix(events[len(events)-1], "Undid blue/vendor@net2 of container c-dead") {
		t.Errorf("events: %q", events)
	}
	n.left()
}

package sweep_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/node/sweep"
	"github.com/braid-cni/braid/resolve"
)

// TestMain lets the test binary be the child process, which prints what a file says. The real one is run by package e2e.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SWEEP_TEST_DIR"); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(m.Run())
}

func child(dir string) int {
	known, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "known"), known, 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "args"), []byte(strings.Join(os.Args[1:], " ")), 0o600)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	out, _ := os.ReadFile(filepath.Join(dir, "out"))
	os.Stdout.Write(out)
	fmt.Fprintln(os.Stderr, "said by the child")
	how, _ := os.ReadFile(filepath.Join(dir, "how"))
	switch string(how) {
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fallthrough
	case "hang":
		_ = os.WriteFile(filepath.Join(dir, "pid"), []byte(strconv.Itoa(os.Getpid())), 0o600)
		time.Sleep(time.Hour)
	case "die":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	code, _ := strconv.Atoi(string(how))
	return code
}

// A world is a sweeper with its child.
type world struct {
	t   *testing.T
	dir string
	log strings.Builder
	o   sweep.Options
	s   *sweep.Sweeper

	mu     sync.Mutex
	sums   []sweep.Summary
	events []string
}

func newWorld(t *testing.T, change func(*sweep.Options)) *world {
	w := &world{t: t, dir: t.TempDir()}
	w.o = sweep.Options{
		Command: sweep.Command{Path: os.Args[0], Args: []string{"--config", "/c"}, Env: []string{"SWEEP_TEST_DIR=" + w.dir}},
		Log:     slog.New(slog.NewTextHandler(&w.log, nil)),
		Done: func(sum sweep.Summary) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.sums = append(w.sums, sum)
		},
		Event: func(pod resolve.Pod, e resolve.Event) {
			w.events = append(w.events, fmt.Sprintf("%s/%s %s: %s %s: %s", pod.Namespace, pod.Name, pod.UID, e.Type, e.Reason, e.Message))
		},
	}
	if change != nil {
		change(&w.o)
	}
	w.s = sweep.New(w.o)
	return w
}

func (w *world) write(name, content string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// sweep has the child print the findings and end as it is told, and returns what it was told to be known.
func (w *world) sweep(how string, findings ...delegate.Finding) ([]delegate.Known, error) {
	w.t.Helper()
	var out strings.Builder
	for _, f := range findings {
		if err := json.NewEncoder(&out).Encode(f); err != nil {
			w.t.Fatal(err)
		}
	}
	w.write("out", out.String())
	w.write("how", how)
	err := w.s.Sweep(w.t.Context())
	b, readErr := os.ReadFile(filepath.Join(w.dir, "known"))
	var known []delegate.Known
	if readErr == nil {
		readErr = json.Unmarshal(b, &known)
	}
	if readErr != nil {
		w.t.Fatal(readErr)
	}
	return known, err
}

func (w *world) mustSweep(findings ...delegate.Finding) []delegate.Known {
	w.t.Helper()
	known, err := w.sweep("0", findings...)
	if err != nil {
		w.t.Fatal(err)
	}
	return known
}

// finding is one of a record that the n-th ADD of the container has made.
func finding(container string, n int64, verdict, action string) delegate.Finding {
	return delegate.Finding{
		RecordKey: delegate.RecordKey{ContainerID: container, IfName: "eth0", Created: time.Unix(n, 1).UTC()},
		Network:   "pods", Pod: "blue/" + container, PodUID: "u-" + container, Attachments: []string{"cluster@eth0", "blue/lan@net1"},
		Verdict: verdict, Action: action, Reason: "/run/netns/a is gone",
	}
}

// wantKnown compares what the child was told, as "container podGone", of records that have been stale for a while.
func wantKnown(t *testing.T, known []delegate.Known, want ...string) {
	t.Helper()
	var got []string
	for _, k := range known {
		got = append(got, fmt.Sprintf("%s %d stale=%t podGone=%t", k.ContainerID, k.Created.Unix(), k.StaleSeconds > 0, k.PodGone))
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("known (-want +got):\n%s", diff)
	}
}

// TestMemory: the child is told since when a record has been found stale without a break.
func TestMemory(t *testing.T) {
	w := newWorld(t, nil)
	dead := finding("a", 1, delegate.Dead, delegate.Waits)
	wantKnown(t, w.mustSweep(dead, finding("b", 1, delegate.Alive, delegate.Kept)))
	known := w.mustSweep(dead)
	wantKnown(t, known, "a 1 stale=true podGone=false")
	first := known[0].StaleSeconds
	if later := w.mustSweep(finding("a", 2, delegate.Dead, delegate.Waits)); later[0].StaleSeconds <= first {
		t.Errorf("stale since %g s, and later since %g s", first, later[0].StaleSeconds)
	}
	wantKnown(t, w.mustSweep(finding("a", 2, delegate.Alive, delegate.Kept)), "a 2 stale=true podGone=false")
	wantKnown(t, w.mustSweep(finding("a", 2, delegate.Dead, delegate.Waits)))
	wantKnown(t, w.mustSweep(finding("a", 2, delegate.Dead, delegate.Failed)), "a 2 stale=true podGone=false")
	wantKnown(t, w.mustSweep(finding("a", 2, delegate.Dead, delegate.Undone)), "a 2 stale=true podGone=false")
	wantKnown(t, w.mustSweep())
	b, err := os.ReadFile(filepath.Join(w.dir, "args"))
	if want := "sweep --json --known - --grace 1m0s --config /c"; err != nil || string(b) != want {
		t.Errorf("arguments %q, %v, want %q", b, err, want)
	}
}

// TestIncompleteSweep: nothing is concluded from what a sweep did not come to.
func TestIncompleteSweep(t *testing.T) {
	for _, how := range []string{"die", "1", "3"} {
		w := newWorld(t, nil)
		w.mustSweep(finding("a", 1, delegate.Dead, delegate.Waits))
		known, err := w.sweep(how, finding("b", 1, delegate.Dead, delegate.Waits))
		if err == nil {
			t.Errorf("%s: no error", how)
		}
		wantKnown(t, known, "a 1 stale=true podGone=false")
		wantKnown(t, w.mustSweep(), "a 1 stale=true podGone=false", "b 1 stale=true podGone=false")
		if last := w.sums[len(w.sums)-2]; last.Err == nil {
			t.Errorf("%s: the summary has no error", how)
		}
		if log := w.log.String(); !strings.Contains(log, "level=ERROR msg=sweep") || !strings.Contains(log, "said by the child") {
			t.Errorf("%s: log is %s", how, log)
		}
	}
}

type apiServer struct {
	mu    sync.Mutex
	asked []string
	has   func(name string) (bool, error)
}

func (a *apiServer) PodExists(_ context.Context, namespace, name, uid string) (bool, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = append(a.asked, namespace+"/"+name+" "+uid)
	return a.has(name)
}

// TestPods: a pod is gone if the API server says so, and it is asked if there is a reason to.
func TestPods(t *testing.T) {
	api := &apiServer{has: func(name string) (bool, error) {
		if name == "fails" {
			return false, errors.New("connection refused")
		}
		return name == "there", nil
	}}
	w := newWorld(t, func(o *sweep.Options) {
		o.Pods = api
		o.Cached = func(_, name, uid string) bool { return name == "cached" && uid == "u-cached" }
	})
	old := finding("old", 1, delegate.Alive, delegate.Kept)
	old.PodUID = ""
	none := finding("none", 1, delegate.Alive, delegate.Kept)
	none.Pod = "/"
	all := []delegate.Finding{old, none}
	for _, name := range []string{"there", "gone", "fails", "cached"} {
		all = append(all, finding(name, 1, delegate.Alive, delegate.Kept))
	}
	w.mustSweep(all...)
	wantKnown(t, w.mustSweep(all...), "gone 1 stale=false podGone=true")
	slices.Sort(api.asked)
	if want := []string{"blue/fails u-fails", "blue/gone u-gone", "blue/there u-there"}; !slices.Equal(api.asked, want) {
		t.Errorf("asked %q, want %q", api.asked, want)
	}
	// After an outage all pods may have to be asked for: some at a time.
	all = nil
	for i := range 250 {
		all = append(all, finding(fmt.Sprint("p", i), 1, delegate.Alive, delegate.Kept))
	}
	w.mustSweep(all...)
	api.asked = nil
	w.mustSweep(all...)
	if len(api.asked) == 0 || len(api.asked) > 64 {
		t.Errorf("asked %d times in a sweep", len(api.asked))
	}
}

// TestReports: what was undone has an event; a failure has one too, but not again in each sweep.
func TestReports(t *testing.T) {
	w := newWorld(t, nil)
	failed := finding("a", 1, delegate.Dead, delegate.Failed)
	failed.Error = "network blue/lan: net1: plugin macvlan: " + strings.Repeat("x", 2000)
	unknown := finding("b", 1, delegate.Unknown, delegate.Kept)
	for range 3 {
		if _, err := w.sweep("1", failed, unknown); err != nil {
			t.Error(err)
		}
	}
	w.mustSweep(finding("a", 1, delegate.Dead, delegate.Undone))
	if len(w.events) != 2 || len(w.events[0]) > 1100 ||
		!strings.HasPrefix(w.events[0], "blue/a u-a: Warning StaleAttachment: Cannot undo cluster@eth0 blue/lan@net1 of container a, for which no DEL came (/run/netns/a is gone): network") {
		t.Errorf("events: %q", w.events)
	}
	if want := "blue/a u-a: Warning StaleAttachment: Undid cluster@eth0 blue/lan@net1 of container a, for which no DEL came: /run/netns/a is gone"; w.events[len(w.events)-1] != want {
		t.Errorf("event %q, want %q", w.events[len(w.events)-1], want)
	}
	for text, times := range map[string]int{"left alone": 1, "cannot be undone": 3, "level=WARN msg=\"undone": 1} {
		if n := strings.Count(w.log.String(), text); n != times {
			t.Errorf("%q is logged %d times, want %d:\n%s", text, n, times, w.log.String())
		}
	}
	first, last := w.sums[0], w.sums[3]
	if first.Verdicts[delegate.Dead] != 1 || first.Actions[delegate.Failed] != 1 || first.Verdicts[delegate.Unknown] != 1 || last.Actions[delegate.Undone] != 1 {
		t.Errorf("summaries %+v and %+v", first, last)
	}
	if _, ok := last.Verdicts[delegate.PodGone]; !ok {
		t.Error("a verdict without records has no key, so its metric would keep an old value")
	}
}

// TestRepairs: the child is told to repair. What it has repaired has an event, and what it cannot repair has one, once.
func TestRepairs(t *testing.T) {
	w := newWorld(t, func(o *sweep.Options) { o.Repair = true })
	repaired := finding("a", 1, delegate.Broken, delegate.Repaired)
	repaired.Reason = "network cluster: eth0: cluster0: no such interface"
	broken := finding("b", 1, delegate.Broken, delegate.Unrepaired)
	broken.Error = "network cluster: eth0: the port is missing"
	for range 3 {
		if _, err := w.sweep("1", repaired, broken); err != nil {
			t.Error(err)
		}
		repaired.Verdict, repaired.Action = delegate.Alive, delegate.Kept
	}
	if diff := cmp.Diff([]string{
		"blue/a u-a: Warning RepairedAttachment: Made again what cluster@eth0 blue/lan@net1 of container a had lost on the node: network cluster: eth0: cluster0: no such interface",
		"blue/b u-b: Warning BrokenAttachment: Cannot make again what cluster@eth0 blue/lan@net1 of container b has lost on the node: network cluster: eth0: the port is missing",
	}, w.events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if args, err := os.ReadFile(filepath.Join(w.dir, "args")); err != nil || !strings.HasSuffix(string(args), " --repair") {
		t.Errorf("the child has the arguments %q, %v", args, err)
	}
	if first := w.sums[0]; first.Actions[delegate.Repaired] != 1 || first.Actions[delegate.Unrepaired] != 1 || first.Verdicts[delegate.Broken] != 2 {
		t.Errorf("summary %+v", first)
	}
}

// TestBadOutput: what cannot be read ends a sweep, and what came before counts.
func TestBadOutput(t *testing.T) {
	for content, want := range map[string]string{
		"Hello\n":                             `found "Hello", want a finding`,
		strings.Repeat("x", 1<<20+1):          "more than 1048576 bytes in a line",
		strings.Repeat("{}\n", 100_001):       "more than 100000 findings",
		`{"action":"failed"}` + "\n{\"a\":\n": "want a finding",
	} {
		w := newWorld(t, nil)
		w.write("out", content)
		if err := w.s.Sweep(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want %q", err, want)
		}
	}
	w := newWorld(t, func(o *sweep.Options) { o.Command.Path = "/nonexistent/braidd" })
	if err := w.s.Sweep(t.Context()); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("error = %v", err)
	}
}

// TestDeadline: a child that does not come to its end is given up, whatever it does about it.
func TestDeadline(t *testing.T) {
	for _, how := range []string{"hang", "stubborn"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *sweep.Options) { o.Deadline = 5 * time.Second }) // a child that answers needs some of it under the race detector
			if _, err := w.sweep(how, finding("a", 1, delegate.Dead, delegate.Waits)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error = %v", err)
			}
			b, err := os.ReadFile(filepath.Join(w.dir, "pid"))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat("/proc/" + string(b)); err == nil {
				t.Errorf("process %s is still there", b)
			}
			wantKnown(t, w.mustSweep(), "a 1 stale=true podGone=false")
		})
	}
}

// TestRun: the first sweep is at once, the next when somebody's grace is over.
func TestRun(t *testing.T) {
	w := newWorld(t, func(o *sweep.Options) { o.Interval, o.Grace = time.Hour, time.Millisecond })
	w.write("how", "0")
	b, err := json.Marshal(finding("a", 1, delegate.Dead, delegate.Waits))
	if err != nil {
		t.Fatal(err)
	}
	w.write("out", string(b)+"\n")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.s.Run(ctx) }()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		w.mu.Lock()
		n := len(w.sums)
		w.mu.Unlock()
		if n >= 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("found %d sweeps", n)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

package status_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/kube"
	"github.com/braid-cni/braid/kube/kubetest"
	"github.com/braid-cni/braid/node/status"
	"github.com/braid-cni/braid/resolve"
)

// patience is for things that take a moment, on a machine that does much else.
const patience = time.Minute

// A world is an API server and a journal.
type world struct {
	*testing.T
	api     *kubetest.Server
	journal *journal.Journal
	dir     string
	log     *slog.Logger
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, api: kubetest.New(t), dir: filepath.Join(t.TempDir(), "attachments")}
	w.log = slog.New(slog.NewTextHandler(t.Output(), nil))
	var err error
	if w.journal, err = journal.Open(w.dir); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(w.Context(), d)
	w.Cleanup(cancel)
	return ctx
}

// queue returns one that runs until stop.
func (w *world) queue(options ...func(*status.Options)) (q *status.Queue, stop func()) {
	w.Helper()
	q = w.idleQueue(options...)
	return q, w.run(q)
}

func (w *world) idleQueue(options ...func(*status.Options)) *status.Queue {
	w.Helper()
	api, err := kube.Open(w.api.Kubeconfig(), w.log)
	if err != nil {
		w.Fatal(err)
	}
	o := status.Options{
		Journal: w.journal, Writer: api, Log: w.log,
		TryTime: 200 * time.Millisecond, MinPause: 10 * time.Millisecond, MaxPause: 100 * time.Millisecond,
	}
	for _, set := range options {
		set(&o)
	}
	return status.New(o)
}

func (w *world) run(q *status.Queue) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.Errorf("the queue ends with %v", err)
		}
	})
	w.Cleanup(stop)
	return stop
}

func (w *world) pod(name string) resolve.Pod {
	w.Helper()
	uid := w.api.AddPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}})
	return resolve.Pod{Namespace: "default", Name: name, UID: uid}
}

// made is what an ADD does in the end, before it reports: it puts its record with the report pending.
func (w *world) made(pod resolve.Pod, containerID, text string) *resolve.Report {
	w.Helper()
	r := &resolve.Report{
		Pod: pod, Status: json.RawMessage(fmt.Sprintf(`[{"name":%q}]`, text)),
		Events: []resolve.Event{{Type: "Normal", Reason: "AddedInterface", Message: text}},
	}
	pending, err := json.Marshal(r)
	if err != nil {
		w.Fatal(err)
	}
	w.put(&journal.Record{
		Created: time.Now(), Network: "pods", ContainerID: containerID, IfName: "eth0", Done: true, Pending: pending,
	})
	r.Record = &resolve.Record{ContainerID: containerID, IfName: "eth0"}
	return r
}

func (w *world) put(r *journal.Record) {
	w.Helper()
	if err := w.journal.Put(r); err != nil {
		w.Fatal(err)
	}
}

func (w *world) report(q *status.Queue, r *resolve.Report) {
	w.Helper()
	if err := q.Report(w.within(patience), r); err != nil {
		w.Fatalf("report: %v", err)
	}
}

// pending returns what a record has pending.
func (w *world) pending(containerID string) string {
	w.Helper()
	r, err := w.journal.Get(containerID, "eth0")
	if err != nil {
		w.Fatal(err)
	}
	return string(r.Pending)
}

func (w *world) eventually(what string, is func() bool) {
	w.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.Fatalf("after %s it is still not true that %s", patience, what)
		}
	}
}

// isWritten waits until a pod has a status and the record nothing pending.
func (w *world) isWritten(pod, containerID, text string) {
	w.Helper()
	w.eventually(text+" is written, and not pending", func() bool {
		return strings.Contains(w.api.Status("default", pod), text) && w.pending(containerID) == ""
	})
}

func (w *world) isEmpty(q *status.Queue) {
	w.Helper()
	w.eventually("the queue is empty", func() bool {
		records, events := q.Len()
		return records+events == 0
	})
}

func (w *world) messages() (messages []string) {
	for _, e := range w.api.Events() {
		messages = append(messages, e.Message)
	}
	return messages
}

// A report is queued while the ADD that makes it still has the lock of its container.
func TestQueued(t *testing.T) {
	w := newWorld(t)
	tries := make(chan status.Try, 100)
	q, _ := w.queue(func(o *status.Options) { o.Tried = func(try status.Try) { tries <- try } })
	unlock, err := w.journal.Lock(w.within(patience), "c1")
	if err != nil {
		t.Fatal(err)
	}
	r := w.made(w.pod("web"), "c1", "one")
	w.report(q, r)
	w.eventually("it is written", func() bool { return w.api.Status("default", "web") != "" })
	if w.pending("c1") == "" {
		t.Error("it is not pending although the ADD has the lock")
	}
	unlock()
	w.isWritten("web", "c1", "one")
	w.isEmpty(q)
	if diff := cmp.Diff([]string{"one"}, w.messages()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	for _, what := range []string{"status", "events"} {
		if try := <-tries; try.What != what || try.Outcome != resolve.Success || try.Took <= 0 {
			t.Errorf("tried %+v", try)
		}
	}
}

// Where the journal has the report is all that has to be said of it.
func TestWhereItIs(t *testing.T) {
	w := newWorld(t)
	q, _ := w.queue()
	r := w.made(w.pod("web"), "c1", "one")
	w.report(q, &resolve.Report{Pod: r.Pod, Record: r.Record})
	w.isWritten("web", "c1", "one")
	w.isEmpty(q)
	// The record is gone before it arrives.
	if err := w.journal.Remove("c1", "eth0"); err != nil {
		t.Fatal(err)
	}
	requests := len(w.api.Requests())
	w.report(q, &resolve.Report{Pod: r.Pod, Record: r.Record})
	w.isEmpty(q)
	if got := len(w.api.Requests()); got != requests {
		t.Errorf("%d requests for a report that is nowhere", got-requests)
	}
}

// An ADD that waits gets its answer when the status is there, although it has the lock all the while.
func TestWait(t *testing.T) {
	w := newWorld(t)
	q, _ := w.queue()
	unlock, err := w.journal.Lock(w.within(patience), "c1")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	w.api.Break(kubetest.Fault{Method: "PATCH", Code: http.StatusInternalServerError, Times: 3})
	r := w.made(w.pod("web"), "c1", "one")
	r.Wait = true
	w.report(q, r)
	if got := w.api.Status("default", "web"); !strings.Contains(got, "one") {
		t.Errorf("found status %q", got)
	}

	// It does not wait for the events.
	r = w.made(w.pod("mail"), "c3", "three")
	r.Wait = true
	w.report(slowEvents(w), r)

	w.api.Break(kubetest.Fault{Method: "PATCH", Hang: true})
	r = w.made(w.pod("db"), "c2", "two")
	r.Wait = true
	err = q.Report(w.within(50*time.Millisecond), r)
	if e, ok := err.(*resolve.Error); !ok || e.Reason != resolve.Unavailable {
		t.Errorf("found %v, want %s", err, resolve.Unavailable)
	}
	w.api.Mend()
	w.isWritten("db", "c2", "two")
}

// slowEvents returns a queue that would try to write events for longer than the test takes.
func slowEvents(w *world) *status.Queue {
	q, _ := w.queue(func(o *status.Options) {
		o.TryTime, o.Writer = 2*patience, hangingEvents{o.Writer}
	})
	return q
}

// hangingEvents writes no events.
type hangingEvents struct{ status.Writer }

func (h hangingEvents) Report(ctx context.Context, r *resolve.Report) error {
	if r.Status == nil {
		<-ctx.Done()
		return &resolve.Error{Reason: resolve.Unavailable, Message: "no events"}
	}
	return h.Writer.Report(ctx, r)
}

// What an API server does is waited out.
func TestRetry(t *testing.T) {
	for name, fault := range map[string]kubetest.Fault{
		"conflict":    {Method: "PATCH", Code: http.StatusConflict, Times: 20, Message: "the object has been modified"},
		"throttled":   {Method: "PATCH", Code: http.StatusTooManyRequests, Times: 5},
		"broken":      {Method: "PATCH", Code: http.StatusInternalServerError, Times: 20},
		"unreachable": {Close: true, Times: 20},
		"hanging":     {Hang: true, Times: 5},
		// Whoever administrates the cluster can mend it.
		"forbidden": {Method: "PATCH", Code: http.StatusForbidden, Message: "pods/status is forbidden", Times: 5},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			q, _ := w.queue()
			w.api.Break(fault)
			w.report(q, w.made(w.pod("web"), "c1", "one"))
			w.isWritten("web", "c1", "one")
			w.isEmpty(q)
			w.api.Mend()
		})
	}
}

// Reports of one pod are written in order, each of its events once.
func TestOrder(t *testing.T) {
	w := newWorld(t)
	q, _ := w.queue()
	pod := w.pod("web")
	w.api.Break(kubetest.Fault{Method: "PATCH", Code: http.StatusInternalServerError})
	var want []string
	for i := range 5 {
		text := fmt.Sprint("number ", i)
		want = append(want, text)
		w.report(q, w.made(pod, fmt.Sprint("c", i), text))
	}
	w.api.Mend()
	w.isWritten("web", "c4", "number 4")
	w.isEmpty(q)
	if diff := cmp.Diff(want, w.messages()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// What nobody waits for gives way to ADDs, but not for ever.
func TestBusyNode(t *testing.T) {
	w := newWorld(t)
	// What the journal has at the start waits for nothing, and is written when the journal has been searched.
	start := func(container string, maxDelay time.Duration) *status.Queue {
		w.made(w.pod(container), container, container)
		q, _ := w.queue(func(o *status.Options) { o.Delay, o.MaxDelay = time.Hour, maxDelay })
		w.isWritten(container, container, container)
		return q
	}
	q := start("first", time.Hour)
	q.Busy()
	pod := w.pod("web")
	w.report(q, w.made(pod, "c1", "one"))
	time.Sleep(100 * time.Millisecond)
	if records, _ := q.Len(); records != 1 {
		t.Errorf("%d records wait while an ADD is at work, want 1", records)
	}
	waited := w.made(pod, "c2", "two")
	waited.Wait = true
	w.report(q, waited)
	w.isWritten("web", "c2", "two")

	q = start("second", time.Millisecond)
	q.Busy()
	w.report(q, w.made(w.pod("db"), "c3", "three"))
	w.isWritten("db", "c3", "three")
}

// What an API server never takes does not keep what comes later from being written.
func TestRefusedGivesWay(t *testing.T) {
	w := newWorld(t)
	pod := w.pod("web")
	q := w.idleQueue(func(o *status.Options) { o.Writer = refuser{o.Writer, "bad"} })
	w.report(q, w.made(pod, "c1", "bad"))
	w.report(q, w.made(pod, "c2", "good"))
	w.run(q)
	w.isWritten("web", "c2", "good")
	w.isEmpty(q)
	if got := w.pending("c1"); got != "" {
		t.Errorf("pending: %s", got)
	}
}

// A refuser refuses what has a text in it.
type refuser struct {
	status.Writer
	text string
}

func (r refuser) Report(ctx context.Context, report *resolve.Report) error {
	if strings.Contains(string(report.Status), r.text) {
		return &resolve.Error{Reason: resolve.Invalid, Message: "annotations are too long"}
	}
	return r.Writer.Report(ctx, report)
}

// What a daemon has left is written by the next: in order, and also what the plugin never came to report.
func TestRestart(t *testing.T) {
	w := newWorld(t)
	pod := w.pod("web")
	w.api.Break(kubetest.Fault{Method: "PATCH", Hang: true})
	q, stop := w.queue()
	w.report(q, w.made(pod, "c9", "older"))
	w.made(pod, "c1", "newer")
	waits := w.made(w.pod("db"), "c2", "waits")
	waits.Wait = true
	answer := make(chan error, 1)
	go func() { answer <- q.Report(w.within(patience), waits) }()
	w.eventually("it waits", func() bool { records, _ := q.Len(); return records >= 2 })
	stop()
	if e, ok := (<-answer).(*resolve.Error); !ok || e.Reason != resolve.Unavailable {
		t.Errorf("found %v, want %s", e, resolve.Unavailable)
	}
	if err := q.Report(w.within(patience), waits); err == nil {
		t.Error("a queue that has ended takes a report")
	}
	w.api.Mend()
	q, _ = w.queue()
	w.isWritten("web", "c1", "newer")
	w.isWritten("db", "c2", "waits")
	w.isEmpty(q)
	// In no order: they are worth less than the status, whose order decides what it is in the end.
	w.eventually("the events of all are written", func() bool { return len(w.messages()) == 3 })
	if got := w.pending("c9"); got != "" {
		t.Errorf("pending: %s", got)
	}
}

// What was put while the daemon runs, and never reported, is found.
func TestScan(t *testing.T) {
	w := newWorld(t)
	w.queue(func(o *status.Options) { o.ScanEvery = 20 * time.Millisecond })
	pod := w.pod("web")
	time.Sleep(50 * time.Millisecond)
	w.made(pod, "c1", "one")
	w.isWritten("web", "c1", "one")
}

func TestPodGone(t *testing.T) {
	w := newWorld(t)
	q, _ := w.queue()
	w.api.Break(kubetest.Fault{Method: "PATCH", Code: http.StatusInternalServerError})
	w.report(q, w.made(w.pod("web"), "c1", "one"))
	w.api.DeletePod("default", "web")
	next := w.pod("web")
	w.api.Mend()
	w.isEmpty(q)
	if got := w.pending("c1"); got != "" {
		t.Errorf("pending: %s", got)
	}
	if got := w.api.Status("default", "web"); got != "" {
		t.Errorf("pod %s of the same name got the status %s", next.UID, got)
	}
}

// A DEL takes the record, and with it what was to be written.
func TestDelBeforeWrite(t *testing.T) {
	w := newWorld(t)
	q, _ := w.queue()
	w.api.Break(kubetest.Fault{Method: "PATCH", Code: http.StatusInternalServerError})
	w.report(q, w.made(w.pod("web"), "c1", "one"))
	if err := w.journal.Remove("c1", "eth0"); err != nil {
		t.Fatal(err)
	}
	w.isEmpty(q)
	w.api.Mend()
	if _, err := w.journal.Get("c1", "eth0"); err != journal.ErrNotFound {
		t.Errorf("found %v, want %v", err, journal.ErrNotFound)
	}
	if got := w.api.Status("default", "web"); got != "" {
		t.Errorf("found status %s", got)
	}
}

// A later ADD of the same container is not taken for the one that is being written.
func TestRecordReplaced(t *testing.T) {
	w := newWorld(t)
	pod := w.pod("web")
	hold := make(chan struct{})
	begun := make(chan struct{})
	q, _ := w.queue(func(o *status.Options) {
		o.TryTime = patience
		o.Writer = holder{o.Writer, "first", begun, hold}
	})
	w.report(q, w.made(pod, "c1", "first"))
	<-begun
	second := w.made(pod, "c1", "second")
	second.Wait = true
	answer := make(chan error, 1)
	go func() { answer <- q.Report(w.within(patience), second) }()
	w.eventually("both are queued", func() bool { records, _ := q.Len(); return records == 2 })
	close(hold)
	if err := <-answer; err != nil {
		t.Error(err)
	}
	if got := w.api.Status("default", "web"); !strings.Contains(got, "second") {
		t.Errorf("found status %s", got)
	}
	w.isWritten("web", "c1", "second")
	w.isEmpty(q)
}

// A holder waits before it writes a status that has a text in it.
type holder struct {
	status.Writer
	text        string
	begun, hold chan struct{}
}

func (h holder) Report(ctx context.Context, r *resolve.Report) error {
	if strings.Contains(string(r.Status), h.text) {
		close(h.begun)
		<-h.hold
	}
	return h.Writer.Report(ctx, r)
}

// What the journal does not have is written before the answer.
func TestWithoutRecord(t *testing.T) {
	w := newWorld(t)
	q := w.idleQueue() // nobody writes later
	pod := w.pod("web")
	for name, record := range map[string]*resolve.Record{
		"none": nil, "unknown": {ContainerID: "c1", IfName: "eth0"}, "nothing pending": {ContainerID: "c2", IfName: "eth0"},
		"of another pod": {ContainerID: "c3", IfName: "eth0"},
	} {
		w.put(&journal.Record{ContainerID: "c2", IfName: "eth0", Done: true})
		w.made(resolve.Pod{Namespace: "default", Name: "other"}, "c3", "other")
		w.report(q, &resolve.Report{Pod: pod, Status: json.RawMessage(fmt.Sprintf(`[%q]`, name)), Record: record})
		if got := w.api.Status("default", "web"); !strings.Contains(got, name) {
			t.Errorf("%s: found status %q", name, got)
		}
	}
	for _, record := range []resolve.Record{{ContainerID: "../c", IfName: "eth0"}, {ContainerID: "c"}, {ContainerID: "a:b", IfName: "c"}} {
		err := q.Report(w.within(patience), &resolve.Report{Pod: pod, Record: &record})
		if e, ok := err.(*resolve.Error); !ok || e.Reason != resolve.Invalid {
			t.Errorf("%+v: found %v, want %s", record, err, resolve.Invalid)
		}
	}
}

// What cannot be read stays, and is in nobody's way.
func TestUnreadable(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(filepath.Join(w.dir, "c1:eth0.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.put(&journal.Record{ContainerID: "c2", IfName: "eth0", Done: true, Pending: json.RawMessage(`"nonsense"`)})
	w.made(w.pod("web"), "c3", "one")
	w.queue()
	w.isWritten("web", "c3", "one")
	if got := w.pending("c2"); got != `"nonsense"` {
		t.Errorf("pending: %s", got)
	}
}

func TestPanic(t *testing.T) {
	w := newWorld(t)
	q, _ := w.queue(func(o *status.Options) { o.Writer = &panicker{Writer: o.Writer} })
	w.report(q, w.made(w.pod("web"), "c1", "one"))
	w.isWritten("web", "c1", "one")
}

// A panicker panics the first time.
type panicker struct {
	status.Writer
	once sync.Once
}

func (p *panicker) Report(ctx context.Context, r *resolve.Report) error {
	p.once.Do(func() { panic("as the test wants") })
	return p.Writer.Report(ctx, r)
}

// Events of what failed need no record. There are never more in memory than may be.
func TestEvents(t *testing.T) {
	w := newWorld(t)
	q := w.idleQueue(func(o *status.Options) { o.MaxEvents = 10 })
	pod := w.pod("web")
	for i := range 100 {
		w.report(q, &resolve.Report{Pod: pod, Events: []resolve.Event{{Type: "Warning", Reason: "FailedAddingInterface", Message: fmt.Sprint(i)}}})
	}
	records, events := q.Len()
	if records != 0 || events != 10 || q.Dropped() != 90 {
		t.Errorf("found %d records, %d events and %d dropped, want 0, 10 and 90", records, events, q.Dropped())
	}
	w.run(q)
	w.isEmpty(q)
	w.eventually("all are written", func() bool { return len(w.api.Events()) == 10 })
	if got := slices.Min(w.messages()); got != "90" {
		t.Errorf("the oldest is %s, want 90", got)
	}
}

// Events give way to network-status, of other pods too, but not for ever; and tell when they came, not when they were written.
func TestEventsGiveWay(t *testing.T) {
	w := newWorld(t)
	event := func(pod resolve.Pod) *resolve.Report {
		return &resolve.Report{Pod: pod, Events: []resolve.Event{{Type: "Normal", Reason: "Because", Message: "of " + pod.Name}}}
	}
	q, stop := w.queue(func(o *status.Options) { o.MaxEventDelay = time.Hour })
	w.api.Break(kubetest.Fault{Method: "PATCH", Code: http.StatusInternalServerError})
	w.report(q, w.made(w.pod("web"), "c1", "one"))
	w.report(q, event(w.pod("db")))
	came := time.Now()
	time.Sleep(1200 * time.Millisecond) // a timestamp has seconds
	if got := w.messages(); len(got) > 0 {
		t.Errorf("written while network-status waits: %v", got)
	}
	w.api.Mend()
	w.isEmpty(q)
	w.eventually("all events are written", func() bool { return len(w.messages()) == 2 })
	for _, e := range w.api.Events() {
		if at := e.LastTimestamp; e.Message == "of db" && at.After(came) {
			t.Errorf("found the time %s of what came at %s", at, came)
		}
	}
	stop()

	q, _ = w.queue(func(o *status.Options) { o.MaxEventDelay = 10 * time.Millisecond })
	w.api.Break(kubetest.Fault{Method: "PATCH", Code: http.StatusInternalServerError})
	w.report(q, w.made(w.pod("ftp"), "c2", "two"))
	w.report(q, event(w.pod("mail")))
	w.eventually("it has waited long enough", func() bool { return slices.Contains(w.messages(), "of mail") })
	if records, _ := q.Len(); records != 1 {
		t.Errorf("%d records are queued, want 1", records)
	}
}

// A long one is cut, and not within a character.
func TestLongEvent(t *testing.T) {
	w := newWorld(t)
	q, _ := w.queue()
	whole := strings.Repeat("a", 1023)
	w.report(q, &resolve.Report{Pod: w.pod("web"), Events: []resolve.Event{{Type: "Normal", Reason: "Because", Message: whole + "éé"}}})
	w.eventually("it is written", func() bool { return slices.Equal(w.messages(), []string{whole}) })
}

// A warning is not written again and again, whatever else is.
func TestRepeatedWarnings(t *testing.T) {
	w := newWorld(t)
	web, other := w.pod("web"), w.pod("other")
	q, _ := w.queue()
	say := func(pod resolve.Pod, kind, message string) {
		t.Helper()
		w.report(q, &resolve.Report{Pod: pod, Events: []resolve.Event{{Type: kind, Reason: "Because", Message: message}}})
		w.isEmpty(q)
	}
	w.api.Break(kubetest.Fault{Code: http.StatusForbidden})
	say(web, "Warning", "no network")
	w.eventually("it was refused", func() bool { return len(w.api.Requests()) > 0 })
	w.api.Mend()
	w.eventually("it is written", func() bool {
		say(web, "Warning", "no network")
		return slices.Contains(w.messages(), "no network")
	})
	for range 3 {
		say(web, "Warning", "no network")
	}
	say(web, "Normal", "added")
	say(web, "Normal", "added")
	say(web, "Warning", "another error")
	say(other, "Warning", "no network")
	want := []string{"added", "added", "another error", "no network", "no network"}
	w.eventually("the others are written", func() bool { return len(w.api.Events()) >= len(want) })
	if diff := cmp.Diff(want, slices.Sorted(slices.Values(w.messages()))); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// A node's worth of pods, while the API server is away and when it is back.
func TestStorm(t *testing.T) {
	w := newWorld(t)
	q, _ := w.queue(func(o *status.Options) { o.TryTime = patience }) // no event is given up
	w.api.Break(kubetest.Fault{Close: true})
	const pods = 250
	for i := range pods {
		w.report(q, w.made(w.pod(fmt.Sprint("web", i)), fmt.Sprint("c", i), "one"))
	}
	if records, _ := q.Len(); records != pods {
		t.Errorf("found %d queued, want %d", records, pods)
	}
	w.api.Mend()
	start := time.Now()
	w.isEmpty(q)
	t.Logf("%d reports were written within %s after the API server was back", pods, time.Since(start))
	for i := range pods {
		w.isWritten(fmt.Sprint("web", i), fmt.Sprint("c", i), "one")
	}
	w.eventually("every pod has its event", func() bool { return len(w.api.Events()) == pods })
}

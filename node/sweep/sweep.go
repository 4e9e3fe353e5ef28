// Package sweep is the daemon's part in finding what is left of containers that are gone: it knows which pods the API
// server has, remembers since when something was found stale, and reports. What is done on the node is done by a child
// process, `braidd sweep`, that can be let into the file system of the host, be given up when a plugin hangs, and be killed
// at any moment without harm.
package sweep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/resolve"
)

// Pods knows which pods there are. Implementations are safe for concurrent use.
type Pods interface {
	// PodExists says whether there is a pod of the name that is the one with the UID, or the mirror pod of a static pod
	// with it. An error means that it cannot be told.
	PodExists(ctx context.Context, namespace, name, uid string) (bool, error)
}

// Defaults of Options.
const (
	DefaultInterval = time.Minute
	DefaultGrace    = time.Minute
	DefaultDeadline = 5 * time.Minute
)

const (
	maxQuestions  = 64               // to Pods in a sweep: after an outage there can be many pods to ask for
	questionsTime = 15 * time.Second // for all of them
	minInterval   = time.Second
)

// Options of a Sweeper.
type Options struct {
	Command  Command       // required
	Interval time.Duration // between the beginnings of sweeps; DefaultInterval if 0
	Grace    time.Duration // how long a record must be stale before it is undone; DefaultGrace if 0
	Deadline time.Duration // for one sweep; DefaultDeadline if 0
	Repair   bool          // what running pods have lost on the node is made again
	Pods     Pods          // nil if nobody knows: then a namespace that exists is always left alone
	// Cached, if it is not nil, says that a pod is known to exist without a question to the API server; Pods is asked for
	// the others only.
	Cached func(namespace, name, uid string) bool
	Log    *slog.Logger // required

	// Done is told of every sweep, one at a time; it may be nil.
	Done func(Summary)
	// Event writes an event of a pod, or of the node if the pod has no name; it may be nil. It must not wait long.
	Event func(pod resolve.Pod, e resolve.Event)
}

// A Summary is for metrics.
type Summary struct {
	Took     time.Duration
	Verdicts map[string]int // records by what they were found to be, see package delegate; every verdict has its key
	Actions  map[string]int // records by what was done about them; every action has its key
	Err      error          // why the sweep did not come to its end
}

// A Sweeper sweeps one node. Run it once; its methods are not safe for concurrent use.
type Sweeper struct {
	o      Options
	memory map[id]*memory // of the records that the last sweep found
}

// An id is a delegate.RecordKey that can be compared.
type id struct {
	container, ifName string
	created           int64 // in nanoseconds
}

func idOf(k delegate.RecordKey) id { return id{k.ContainerID, k.IfName, k.Created.UnixNano()} }

// memory is what is to be known of a record in the next sweep.
type memory struct {
	found delegate.Finding
	since time.Time // when it was first found stale, if it still is
	told  string    // what of it was last reported
}

// New returns a sweeper with the defaults filled in.
func New(o Options) *Sweeper {
	for _, d := range []struct {
		value *time.Duration
		or    time.Duration
	}{{&o.Interval, DefaultInterval}, {&o.Grace, DefaultGrace}, {&o.Deadline, DefaultDeadline}} {
		if *d.value <= 0 {
			*d.value = d.or
		}
	}
	return &Sweeper{o: o, memory: make(map[id]*memory)}
}

// Run sweeps at once, and then every interval, until ctx ends. A record whose grace is over before is not kept waiting.
// A sweep that fails is reported, and no reason to stop.
func (s *Sweeper) Run(ctx context.Context) error {
	for {
		begin := time.Now()
		_ = s.Sweep(ctx) // it has been reported
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(s.next(begin)):
		}
	}
}

// next is how long to wait for the next sweep.
func (s *Sweeper) next(begin time.Time) time.Duration {
	next := begin.Add(s.o.Interval)
	for _, m := range s.memory {
		if m.found.Action != delegate.Waits {
			continue
		}
		if due := m.since.Add(s.o.Grace); due.Before(next) {
			next = due
		}
	}
	return max(time.Until(next), min(minInterval, s.o.Interval))
}

// Sweep sweeps once, and reports what it finds. The error, which is reported too, says why it did not come to its end; it
// does not speak of records.
func (s *Sweeper) Sweep(ctx context.Context) error {
	begin := time.Now()
	late := fmt.Errorf("not done in %s: %w", s.o.Deadline, context.DeadlineExceeded)
	ctx, cancel := context.WithTimeoutCause(ctx, s.o.Deadline, late)
	defer cancel()
	stderr := &lines{log: s.o.Log}
	findings, err := s.o.Command.run(ctx, s.o.Grace, s.o.Repair, s.known(ctx), stderr)
	if err != nil && ctx.Err() == nil && stderr.last != "" { // it has ended by itself, and said why
		err = fmt.Errorf("%w: %s", err, stderr.last)
	}
	sum := Summary{Verdicts: count(verdicts), Actions: count(actions), Err: err}
	s.remember(findings, time.Now(), err == nil)
	for i := range findings {
		sum.Verdicts[findings[i].Verdict]++
		sum.Actions[findings[i].Action]++
		s.report(&findings[i])
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		s.o.Log.Error("sweep", "err", err)
	}
	sum.Took = time.Since(begin)
	if s.o.Done != nil {
		s.o.Done(sum)
	}
	return err
}

var (
	verdicts = []string{delegate.Alive, delegate.Dead, delegate.PodGone, delegate.Unknown, delegate.Unreadable, delegate.Broken}
	actions  = []string{delegate.Kept, delegate.Waits, delegate.Busy, delegate.Would, delegate.Undone, delegate.Failed,
		delegate.Repaired, delegate.Unrepaired}
)

func count(keys []string) map[string]int {
	m := make(map[string]int)
	for _, key := range keys {
		m[key] = 0
	}
	return m
}

// known is what the node cannot tell of the records that the last sweep found.
func (s *Sweeper) known(ctx context.Context) []delegate.Known {
	ctx, cancel := context.WithTimeout(ctx, questionsTime)
	defer cancel()
	list := []delegate.Known{}
	questions := maxQuestions
	for _, m := range s.memory { // in no order: all get their turn
		k := delegate.Known{RecordKey: m.found.RecordKey, PodGone: s.podGone(ctx, &m.found, &questions)}
		if !m.since.IsZero() {
			k.StaleSeconds = time.Since(m.since).Seconds()
		}
		if k.PodGone || k.StaleSeconds > 0 {
			list = append(list, k)
		}
	}
	return list
}

// podGone says whether it is certain that a pod does not exist any more. Nothing else is worth a question.
func (s *Sweeper) podGone(ctx context.Context, f *delegate.Finding, questions *int) bool {
	namespace, name, ok := strings.Cut(f.Pod, "/")
	if !ok || namespace == "" || name == "" || f.PodUID == "" || s.o.Pods == nil {
		return false // no pod, or a record of an older version
	}
	if s.o.Cached != nil && s.o.Cached(namespace, name, f.PodUID) || *questions == 0 || ctx.Err() != nil {
		return false
	}
	*questions--
	exists, err := s.o.Pods.PodExists(ctx, namespace, name, f.PodUID)
	if err != nil {
		s.o.Log.Debug("cannot tell whether a pod exists", "pod", f.Pod, "uid", f.PodUID, "err", err)
	}
	return err == nil && !exists
}

// remember keeps what the next sweep has to know. Of a sweep that did not come to its end nothing is concluded from what
// it did not find.
func (s *Sweeper) remember(findings []delegate.Finding, now time.Time, complete bool) {
	before := s.memory
	if complete {
		s.memory = make(map[id]*memory)
	}
	for _, f := range findings {
		m := &memory{found: f}
		if old := before[idOf(f.RecordKey)]; old != nil {
			m.since, m.told = old.since, old.told
		}
		stale := f.Verdict == delegate.Dead || f.Verdict == delegate.PodGone
		switch {
		case !stale:
			m.since = time.Time{}
		case m.since.IsZero():
			m.since = now
		}
		s.memory[idOf(f.RecordKey)] = m
		if f.Action == delegate.Undone {
			delete(s.memory, idOf(f.RecordKey))
		}
	}
}

// report logs what is worth it, once, and writes an event of it.
func (s *Sweeper) report(f *delegate.Finding) {
	log := s.o.Log.With(
		"record", f.Name(), "pod", f.Pod, "attachments", f.Attachments, "verdict", f.Verdict, "reason", f.Reason)
	what := strings.Join(f.Attachments, " ")
	switch f.Action {
	case delegate.Undone:
		log.Warn("undone: no DEL came for it")
		s.event(f, staleAttachment, fmt.Sprintf("Undid %s of container %s, for which no DEL came: %s", what, f.ContainerID, f.Reason))
		return
	case delegate.Repaired:
		log.Warn("repaired: a running pod had lost this on the node")
		s.event(f, repairedAttachment, fmt.Sprintf("Made again what %s of container %s had lost on the node: %s", what, f.ContainerID, f.Reason))
		return
	case delegate.Failed:
		log.Error("cannot be undone; tried again in the next sweep", "err", f.Error)
	}
	m := s.memory[idOf(f.RecordKey)]
	state := f.Verdict + f.Error // the reason changes when a part has been undone
	if f.Error == "" {
		state += f.Reason
	}
	if m == nil || m.told == state {
		return
	}
	m.told = state
	switch {
	case f.Action == delegate.Failed:
		s.event(f, staleAttachment, fmt.Sprintf("Cannot undo %s of container %s, for which no DEL came (%s): %s", what, f.ContainerID, f.Reason, f.Error))
	case f.Action == delegate.Unrepaired:
		log.Error("cannot be repaired; tried again in the next sweep", "err", f.Error)
		s.event(f, brokenAttachment, fmt.Sprintf("Cannot make again what %s of container %s has lost on the node: %s", what, f.ContainerID, f.Error))
	case f.Verdict == delegate.Unreadable, f.Verdict == delegate.Unknown:
		log.Warn("it cannot be told whether the container lives; left alone")
	}
}

// Reasons of the events of a sweep.
const (
	staleAttachment    = "StaleAttachment"
	repairedAttachment = "RepairedAttachment"
	brokenAttachment   = "BrokenAttachment"
)

// maxMessage is what the API server takes of an event's message (1024 bytes).
const maxMessage = 1000

func (s *Sweeper) event(f *delegate.Finding, reason, message string) {
	if s.o.Event == nil {
		return
	}
	namespace, name, _ := strings.Cut(f.Pod, "/")
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "..."
	}
	pod := resolve.Pod{Namespace: namespace, Name: name, UID: f.PodUID}
	s.o.Event(pod, resolve.Event{Type: "Warning", Reason: reason, Message: message})
}

// lines logs what the child writes to its standard error.
type lines struct {
	log  *slog.Logger
	rest []byte
	last string // line: why the child gives up
}

var _ io.Writer = (*lines)(nil)

func (l *lines) Write(b []byte) (int, error) {
	l.rest = append(l.rest, b...)
	for {
		line, rest, found := strings.Cut(string(l.rest), "\n")
		if !found && len(l.rest) < maxLine {
			return len(b), nil
		}
		l.rest = []byte(rest)
		l.log.Info("sweep", "stderr", line)
		l.last = line
	}
}

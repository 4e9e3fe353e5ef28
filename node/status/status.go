// Package status is the queue of what the cluster is to be told of ADDs: network-status and events.
//
// The queue proper is the journal. Before a plugin reports an ADD, the record of the ADD has the report under "pending",
// and there it stays until it is written, however often the daemon ends in between, and by whatever means. In memory are
// the names of such records only. A record that is gone, or has something else pending, decides: a DEL, or another ADD,
// has been faster.
//
// Events, with or without a report, are kept in memory, the latest of them up to a bound. They are worth less, and give way:
// to ADDs, and to the network-status of all pods.
package status

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/util/workqueue"

	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/resolve"
)

// A Writer writes reports to the cluster, as resolve.Resolver has it, and returns when they are written.
type Writer interface {
	Report(ctx context.Context, r *resolve.Report) error
}

// Options configure a Queue. The zero value of a field stands for its default, where one is named.
type Options struct {
	Journal *journal.Journal
	Writer  Writer
	Log     *slog.Logger // default slog.Default()

	Workers  int           // how many pods are written at once; default 8
	Delay    time.Duration // until what nobody waits for is written, since it was queued and since the last [Queue.Busy]; default 50 ms
	MaxDelay time.Duration // until it is written all the same; default 1 s
	// MaxEventDelay is until an event is written although something else is still to be; default 5 s.
	MaxEventDelay time.Duration
	TryTime       time.Duration // for one try to write; default 10 s
	MinPause      time.Duration // between two tries for a pod at first; default 500 ms. It doubles with each try.
	MaxPause      time.Duration // between two tries for a pod at most; default 1 min
	ScanEvery     time.Duration // how often the journal is searched for what nobody has reported; default 1 min
	MaxEvents     int           // how many reports without a record each of the four writers keeps; default 256

	// Tried is called after each try to write something. It may be nil, and must not block.
	Tried func(Try)
}

// A Try is one try to write.
type Try struct {
	What    string // "status" or "events"
	Outcome string // "success", or the reason of a resolve.Error
	Took    time.Duration
	Age     time.Duration // since it was queued in this daemon
}

// A Queue takes reports from [New] on, and writes them while [Queue.Run] runs. It is safe for concurrent use.
type Queue struct {
	Options
	pods    workqueue.TypedRateLimitingInterface[podName] // those that have something in waiting
	events  [eventWriters]chan *unrecorded
	seed    maphash.Seed
	kept    atomic.Int64 // reports without a record that are neither written nor given up
	dropped atomic.Uint64
	busy    atomic.Int64 // when Busy was called last, in nanoseconds since 1970
	warned  warnings
	unread  string // what of the journal could not be read last time, and has been logged

	mu      sync.Mutex
	waiting map[podName][]*entry // in the order in which they are written
	ended   bool
}

type podName struct{ namespace, name string }

// An entry is a record that has something pending.
type entry struct {
	resolve.Record
	pending json.RawMessage // as the record has it, while it is being written and after
	written bool            // and is still to be taken out of the record
	done    chan struct{}   // closed when it is written, or given up
	err     error           // why it was given up; to be read after done
	since   time.Time       // when it was queued
	urgent  bool            // somebody waits for it, or has waited long enough
}

// New returns a queue with nothing in it.
func New(o Options) *Queue {
	o.Log = cmp.Or(o.Log, slog.Default())
	o.Workers = cmp.Or(o.Workers, 8)
	o.Delay = cmp.Or(o.Delay, 50*time.Millisecond)
	o.MaxDelay = cmp.Or(o.MaxDelay, time.Second)
	o.MaxEventDelay = cmp.Or(o.MaxEventDelay, 5*time.Second)
	o.TryTime = cmp.Or(o.TryTime, 10*time.Second)
	o.MinPause = cmp.Or(o.MinPause, 500*time.Millisecond)
	o.MaxPause = cmp.Or(o.MaxPause, time.Minute)
	o.ScanEvery = cmp.Or(o.ScanEvery, time.Minute)
	o.MaxEvents = cmp.Or(o.MaxEvents, 256)
	pauses := workqueue.NewTypedItemExponentialFailureRateLimiter[podName](o.MinPause, o.MaxPause)
	q := &Queue{
		Options: o,
		pods:    workqueue.NewTypedRateLimitingQueue(pauses),
		seed:    maphash.MakeSeed(),
		waiting: make(map[podName][]*entry),
	}
	for i := range q.events {
		q.events[i] = make(chan *unrecorded, o.MaxEvents)
	}
	return q
}

// Report implements the method of [resolve.Resolver]. A report that the journal keeps is queued, as the journal has it, whatever
// this one says besides where it is; one of events alone too. Others, and those that ask for it, are written before it returns.
func (q *Queue) Report(ctx context.Context, r *resolve.Report) error {
	if r.Record == nil {
		if r.Status == nil && !r.Wait {
			q.Events(r.Pod, r.Events)
			return nil
		}
		return q.write(ctx, r, time.Now())
	}
	if err := validate(r.Record); err != nil {
		return err
	}
	kept, pending, err := q.pending(*r.Record)
	if err != nil || kept == nil || kept.Pod != r.Pod { // the journal does not have it
		if r.Status == nil && len(r.Events) == 0 {
			return err // nor does this: a DEL has been faster
		}
		return q.write(ctx, r, time.Now())
	}
	e := q.add(kept.Pod, *r.Record, pending, r.Wait)
	if e == nil {
		return errEnded
	}
	if !r.Wait {
		return nil
	}
	select {
	case <-e.done:
		return e.err
	case <-ctx.Done():
		return unavailable("network-status of pod %s/%s is not written yet: %v", r.Pod.Namespace, r.Pod.Name, context.Cause(ctx))
	}
}

// validate refuses what would be the path of something else.
func validate(r *resolve.Record) error {
	for _, name := range []string{r.ContainerID, r.IfName} {
		if name == "" || strings.ContainsAny(name, ":/\x00") {
			return &resolve.Error{Reason: resolve.Invalid, Message: "record: " + r.ContainerID + ":" + r.IfName + " can be none"}
		}
	}
	return nil
}

// pending returns what a record has pending, also as it stands there; nil if there is nothing, or no record.
func (q *Queue) pending(name resolve.Record) (*resolve.Report, json.RawMessage, error) {
	pending, err := q.Journal.Pending(name.ContainerID, name.IfName)
	if errors.Is(err, journal.ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil || len(pending) == 0 {
		return nil, nil, err
	}
	report := new(resolve.Report)
	if err := json.Unmarshal(pending, report); err != nil {
		return nil, pending, err
	}
	return report, pending, nil
}

// add queues what a record has pending, unless it is queued already; nil if the queue has ended.
func (q *Queue) add(pod resolve.Pod, record resolve.Record, pending json.RawMessage, atOnce bool) *entry {
	name := podName{pod.Namespace, pod.Name}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.ended {
		return nil
	}
	for _, e := range q.waiting[name] {
		// What is being written may be of an earlier ADD.
		if e.Record == record && (e.pending == nil || bytes.Equal(e.pending, pending)) {
			if atOnce {
				e.urgent = true
				q.pods.Add(name)
			}
			return e
		}
	}
	e := &entry{Record: record, done: make(chan struct{}), since: time.Now(), urgent: atOnce}
	q.waiting[name] = append(q.waiting[name], e)
	if atOnce {
		q.pods.Add(name)
	} else {
		q.pods.AddAfter(name, time.Until(q.due(e.since)))
	}
	return e
}

// Busy tells that an ADD is at work. It has the CPU before what nobody waits for: on a node that starts a hundred pods at
// once that is a fifth of the time until the last of them runs.
func (q *Queue) Busy() { q.busy.Store(time.Now().UnixNano()) }

// due returns when something that nobody waits for, and that was queued at a time, is to be written.
func (q *Queue) due(since time.Time) time.Time {
	at := since.Add(q.Delay)
	if quiet := time.Unix(0, q.busy.Load()).Add(q.Delay); quiet.After(at) {
		at = quiet
	}
	if latest := since.Add(q.MaxDelay); latest.Before(at) {
		at = latest
	}
	return at
}

// early returns for how long a pod has to wait for its turn.
func (q *Queue) early(name podName) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	entries := q.waiting[name]
	if len(entries) == 0 || slices.ContainsFunc(entries, func(e *entry) bool { return e.urgent }) {
		return 0
	}
	return time.Until(q.due(entries[0].since))
}

// Len returns how many records are queued, and how many reports without one.
func (q *Queue) Len() (records, events int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, entries := range q.waiting {
		records += len(entries)
	}
	return records, int(q.kept.Load())
}

// OldestAge returns how long the oldest of the records has been queued, in seconds; 0 if there is none.
func (q *Queue) OldestAge() float64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	var oldest time.Duration
	for _, entries := range q.waiting {
		for _, e := range entries {
			oldest = max(oldest, time.Since(e.since))
		}
	}
	return oldest.Seconds()
}

// Dropped returns how many reports without a record have been given up for later ones.
func (q *Queue) Dropped() uint64 { return q.dropped.Load() }

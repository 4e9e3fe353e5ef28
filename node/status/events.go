package status

import (
	"context"
	"hash/maphash"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/braid-cni/braid/resolve"
)

const (
	eventWriters = 4
	eventTime    = 30 * time.Second // for the events of one report
)

// Bounds of what is kept in memory of one report.
const (
	maxEvents  = 64
	maxMessage = 1024 // bytes; an API server takes no more
)

// Events queues events that no record has. Where there are too many, the oldest are given up.
func (q *Queue) Events(pod resolve.Pod, events []resolve.Event) {
	if len(events) == 0 {
		return
	}
	r := &unrecorded{Report: resolve.Report{Pod: pod}, since: time.Now()}
	for i, e := range events[:min(len(events), maxEvents)] {
		e.At = r.since.Add(time.Duration(i))                                             // by which they are told apart, and put in order
		e.Message = strings.ToValidUTF8(e.Message[:min(len(e.Message), maxMessage)], "") // not half of a character
		r.Events = append(r.Events, e)
	}
	q.kept.Add(1)
	// One writer for all of a pod, so that they are written in order.
	queue := q.events[maphash.String(q.seed, pod.Namespace+"/"+pod.Name)%eventWriters]
	for {
		select {
		case queue <- r:
			return
		default:
		}
		select {
		case <-queue:
			q.kept.Add(-1)
			q.dropped.Add(1)
		default:
		}
	}
}

// unrecorded is a report of events that no record has.
type unrecorded struct {
	resolve.Report
	since time.Time
}

// eventWait returns for how long events that came at a time have to wait until they are looked at again; nothing, or less, if
// they are to be written. Before them come ADDs, and network-status of whatever pod.
func (q *Queue) eventWait(since time.Time) time.Duration {
	wait := time.Until(q.due(since))
	if records, _ := q.Len(); records > 0 {
		wait = max(wait, q.Delay)
	}
	return min(wait, time.Until(since.Add(q.MaxEventDelay)))
}

// writeEvents writes those of a queue in the order in which they came, each once, and not before it is due. When
// ctx ends it writes what there is, until work ends.
func (q *Queue) writeEvents(ctx, work context.Context, queue <-chan *unrecorded) {
	for {
		select {
		case r := <-queue:
			for wait := q.eventWait(r.since); wait > 0 && ctx.Err() == nil; wait = q.eventWait(r.since) {
				select {
				case <-time.After(wait):
				case <-ctx.Done():
				}
			}
			q.writeEvent(work, &r.Report)
		case <-ctx.Done():
			for work.Err() == nil {
				select {
				case r := <-queue:
					q.writeEvent(work, &r.Report)
				default:
					return
				}
			}
			return
		}
	}
}

func (q *Queue) writeEvent(ctx context.Context, r *resolve.Report) {
	defer q.kept.Add(-1)
	defer func() {
		if p := recover(); p != nil {
			q.Log.Error("panic", "value", p, "stack", string(debug.Stack()))
		}
	}()
	r.Events = slices.DeleteFunc(r.Events, func(e resolve.Event) bool { return !q.warned.claim(r.Pod, e) })
	if len(r.Events) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, eventTime)
	defer cancel()
	if err := q.write(ctx, r, time.Now()); err != nil {
		q.warned.forget(r)
		q.Log.Warn("events not written", "pod", r.Pod.Namespace+"/"+r.Pod.Name, "err", err)
	}
}

const (
	// repeatTime is how long a warning is not written again.
	repeatTime = 5 * time.Minute
	// maxWarnings is how many are remembered.
	maxWarnings = 4096
)

// warnings are those that were written lately. A pod whose networks cannot be made is tried every few seconds for as long
// as it is there, with the same error: each would be one more object in the cluster's store.
type warnings struct {
	mu      sync.Mutex
	written map[warning]time.Time
}

type warning struct {
	pod             resolve.Pod
	reason, message string
}

// claim says whether an event is to be written. A warning is then taken for written.
func (w *warnings) claim(pod resolve.Pod, e resolve.Event) bool {
	if e.Type != "Warning" {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	isOld := func(_ warning, at time.Time) bool { return time.Since(at) >= repeatTime }
	key := warning{pod, e.Reason, e.Message}
	if at, written := w.written[key]; written && !isOld(key, at) {
		return false
	}
	if len(w.written) >= maxWarnings {
		maps.DeleteFunc(w.written, isOld)
	}
	if w.written == nil || len(w.written) >= maxWarnings { // then some are written once more
		w.written = make(map[warning]time.Time)
	}
	w.written[key] = time.Now()
	return true
}

// forget is for events that could not be written.
func (w *warnings) forget(r *resolve.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range r.Events {
		delete(w.written, warning{r.Pod, e.Reason, e.Message})
	}
}

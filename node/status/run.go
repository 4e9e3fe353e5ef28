package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/resolve"
)

const (
	endTime  = 3 * time.Second // for what is being written when the queue ends
	lockTime = 5 * time.Second // for the lock of a container, which the ADD that reports has until it ends
)

// Run writes what is queued, and what the journal has from before, until ctx ends. What is not written then stays in the
// journal, and is for the next daemon.
func (q *Queue) Run(ctx context.Context) error {
	// What is being written has a moment more.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var workers sync.WaitGroup
	for range q.Workers {
		workers.Go(func() { q.work(work) })
	}
	for _, queue := range q.events {
		workers.Go(func() { q.writeEvents(ctx, work, queue) })
	}
	workers.Go(func() { q.scanNowAndThen(ctx) })
	<-ctx.Done()
	q.end()
	late := time.AfterFunc(endTime, cancel)
	defer late.Stop()
	workers.Wait()
	return nil
}

var errEnded = unavailable("braidd is ending; what the journal keeps will be written by the next one")

// end takes nothing more, and lets those go that wait.
func (q *Queue) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended = true
	q.pods.ShutDown()
	for _, entries := range q.waiting {
		for _, e := range entries {
			e.finish(errEnded)
		}
	}
}

// finish tells those who wait what became of it. The first time counts. The caller has the lock of the queue.
func (e *entry) finish(err error) {
	select {
	case <-e.done:
	default:
		e.err = err
		close(e.done)
	}
}

// scanNowAndThen searches the journal: at once for what an earlier daemon has left, and then for what was never reported
// because the plugin has found no daemon, or was killed.
func (q *Queue) scanNowAndThen(ctx context.Context) {
	tick := time.NewTicker(q.ScanEvery)
	defer tick.Stop()
	for {
		q.scan()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (q *Queue) scan() {
	records, err := q.Journal.All()
	if text := fmt.Sprint(err); err != nil && text != q.unread {
		q.Log.Error("search the journal for what is to be written", "err", err)
		q.unread = text
	}
	records = slices.DeleteFunc(records, func(r *journal.Record) bool { return len(r.Pending) == 0 })
	slices.SortFunc(records, func(a, b *journal.Record) int { return a.Created.Compare(b.Created) })
	for _, r := range records {
		name := resolve.Record{ContainerID: r.ContainerID, IfName: r.IfName}
		report, pending, err := q.pending(name)
		switch {
		case err != nil:
			q.Log.Error("what a record has pending cannot be read, and is not written", "container", r.ContainerID, "err", err)
		case report != nil:
			q.add(report.Pod, name, pending, true)
		}
	}
}

// work writes one pod after the other.
func (q *Queue) work(ctx context.Context) {
	for {
		name, ended := q.pods.Get()
		if ended {
			return
		}
		if wait := q.early(name); wait > 0 {
			q.pods.AddAfter(name, wait)
			q.pods.Done(name)
			continue
		}
		if err := q.writeFirst(ctx, name); err != nil {
			q.Log.Warn("not written yet", "pod", name.namespace+"/"+name.name, "tries", q.pods.NumRequeues(name)+1, "err", err)
			q.pods.AddRateLimited(name)
		} else {
			q.pods.Forget(name)
		}
		q.pods.Done(name)
	}
}

// writeFirst writes what waits the longest for a pod.
func (q *Queue) writeFirst(ctx context.Context, name podName) error {
	q.mu.Lock()
	entries := q.waiting[name]
	q.mu.Unlock()
	if len(entries) == 0 {
		return nil
	}
	e := entries[0]
	err := q.writeEntry(ctx, e)
	if err != nil && (!isRefused(err) || !q.isFollowed(name)) {
		return err
	}
	if err != nil {
		// What the API server does not take gives way to what came later.
		q.Log.Error("given up for a later ADD", "pod", name.namespace+"/"+name.name, "container", e.ContainerID, "err", err)
		if err := q.takeOut(ctx, e); err != nil {
			return err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	e.finish(err)
	if q.waiting[name] = q.waiting[name][1:]; len(q.waiting[name]) > 0 {
		q.pods.Add(name)
	} else {
		delete(q.waiting, name)
	}
	return nil
}

// writeEntry writes what a record has pending, and takes it out of the record. A panic is an error like any other.
func (q *Queue) writeEntry(ctx context.Context, e *entry) (err error) {
	defer func() {
		if p := recover(); p != nil {
			q.Log.Error("panic", "value", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	report, pending, err := q.pending(e.Record)
	if err != nil {
		q.Log.Error("a record cannot be read, its report is not written", "container", e.ContainerID, "err", err)
		return nil
	}
	if report == nil {
		return nil
	}
	if q.begin(e, pending) {
		return q.reported(ctx, e, pending)
	}
	// The status decides, and comes first, so that another try does not repeat the events. Those are worth less and more in
	// number, so no pod waits for another's.
	if report.Status != nil {
		if err := q.try(ctx, &resolve.Report{Pod: report.Pod, Status: report.Status}, e.since); err != nil {
			q.failed(e)
			return err
		}
	}
	q.told(e)
	q.Events(report.Pod, report.Events)
	return q.reported(ctx, e, pending)
}

// reported takes out of a record what has been written.
func (q *Queue) reported(ctx context.Context, e *entry, pending json.RawMessage) error {
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	return q.Journal.Reported(ctx, e.ContainerID, e.IfName, pending)
}

// takeOut takes out of a record what will not be written.
func (q *Queue) takeOut(ctx context.Context, e *entry) error {
	_, pending, err := q.pending(e.Record)
	if err != nil {
		return err
	}
	return q.reported(ctx, e, pending)
}

func isRefused(err error) bool {
	e, ok := errors.AsType[*resolve.Error](err)
	return ok && e.Reason == resolve.Invalid
}

// isFollowed tells if more than one entry of a pod waits.
func (q *Queue) isFollowed(name podName) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting[name]) > 1
}

// begin notes what is about to be written, and tells if it has been.
func (q *Queue) begin(e *entry, pending json.RawMessage) (written bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !bytes.Equal(e.pending, pending) {
		e.pending, e.written = pending, false
	}
	return e.written
}

// failed lets the entry stand for whatever the record has pending next time.
func (q *Queue) failed(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e.pending = nil
}

// told lets those go that wait, before the lock of the container is waited for: the ADD that has it may be among them.
func (q *Queue) told(e *entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	e.written = true
	e.finish(nil)
}

// try is a write in bounded time.
func (q *Queue) try(ctx context.Context, r *resolve.Report, since time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, q.TryTime)
	defer cancel()
	return q.write(ctx, r, since)
}

// write writes what was queued at a time, and tells about it.
func (q *Queue) write(ctx context.Context, r *resolve.Report, since time.Time) error {
	start := time.Now()
	err := q.Writer.Report(ctx, r)
	if q.Tried != nil {
		q.Tried(Try{What: what(r), Outcome: outcome(err), Took: time.Since(start), Age: time.Since(since)})
	}
	return err
}

func what(r *resolve.Report) string {
	if r.Status != nil {
		return "status"
	}
	return "events"
}

func outcome(err error) string {
	if err == nil {
		return resolve.Success
	}
	if e, ok := errors.AsType[*resolve.Error](err); ok {
		return e.Reason
	}
	return resolve.Unavailable
}

func unavailable(format string, args ...any) *resolve.Error {
	return &resolve.Error{Reason: resolve.Unavailable, Message: fmt.Sprintf(format, args...)}
}

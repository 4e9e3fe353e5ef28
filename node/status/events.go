package status

import (
	"context"
	"runtime/debug"
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
	r := &resolve.Report{Pod: pod}
	for _, e := range events[:min(len(events), maxEvents)] {
		e.Message = e.Message[:min(len(e.Message), maxMessage)]
		r.Events = append(r.Events, e)
	}
	for {
		select {
		case q.events <- r:
			return
		default:
		}
		select {
		case <-q.events:
			q.dropped.Add(1)
		default:
		}
	}
}

// writeEvents writes them as they come, each once. When ctx ends it writes what there is, until work ends.
func (q *Queue) writeEvents(ctx, work context.Context) {
	for {
		select {
		case r := <-q.events:
			q.writeEvent(work, r)
		case <-ctx.Done():
			for work.Err() == nil {
				select {
				case r := <-q.events:
					q.writeEvent(work, r)
				default:
					return
				}
			}
			return
		}
	}
}

func (q *Queue) writeEvent(ctx context.Context, r *resolve.Report) {
	defer func() {
		if p := recover(); p != nil {
			q.Log.Error("panic", "value", p, "stack", string(debug.Stack()))
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, eventTime)
	defer cancel()
	if err := q.write(ctx, r, time.Now()); err != nil {
		q.Log.Warn("events not written", "pod", r.Pod.Namespace+"/"+r.Pod.Name, "err", err)
	}
}

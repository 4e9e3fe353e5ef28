package main

import (
	"context"
	"net"
	"runtime"
	"sync/atomic"
	"time"
)

const (
	restTime = time.Second // without a call
	lean     = 8 << 20     // bytes of memory that are not worth to be looked through
)

// A rest gives memory back to the node when no call is at work. A hundred calls at once leave a worker with twice as much as it
// needs, which the Go runtime would keep until it is used again.
type rest struct {
	free  func() // gives back all that is free: debug.FreeOSMemory
	calls atomic.Int64
	timer *time.Timer
	left  atomic.Uint64 // bytes that were needed after all, the last time
}

func newRest(free func()) *rest {
	r := &rest{free: free}
	r.left.Store(lean)
	r.timer = time.AfterFunc(restTime, r.giveBack)
	return r
}

// between returns what serves connections, each of which is a call.
func (r *rest) between(serve func(context.Context, *net.UnixConn) error) func(context.Context, *net.UnixConn) error {
	return func(ctx context.Context, conn *net.UnixConn) error {
		r.calls.Add(1)
		defer func() {
			if r.calls.Add(-1) == 0 {
				r.timer.Reset(restTime)
			}
		}()
		return serve(ctx, conn)
	}
}

// giveBack costs some milliseconds, and the next call a page fault for each page that it uses again: it has to be worth it.
func (r *rest) giveBack() {
	if r.calls.Load() == 0 && r.worth(held()) {
		r.free()
		r.left.Store(max(held(), lean))
	}
}

func (r *rest) worth(held uint64) bool { left := r.left.Load(); return held > left+left/2 }

// held returns how much memory of the node the Go runtime has, in bytes.
func held() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Sys - m.HeapReleased
}

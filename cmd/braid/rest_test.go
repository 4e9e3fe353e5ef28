package main

import (
	"context"
	"math"
	"net"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"
)

// What is given back is counted: the runtime of Go gives back some memory by itself, whenever it likes.
func TestRest(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64)) // as in a worker
	var freed atomic.Int64
	r := newRest(func() { freed.Add(1); debug.FreeOSMemory() })
	needed := make([]byte, 4*lean) // at any time: it is not worth to be looked through again
	begun, end := make(chan struct{}), make(chan struct{})
	serve := r.between(func(context.Context, *net.UnixConn) error {
		var many [][]byte
		for range 64 {
			many = append(many, make([]byte, 1<<20))
		}
		begun <- struct{}{}
		<-end
		runtime.KeepAlive(many)
		return nil
	})
	go func() { _ = serve(t.Context(), nil) }()
	<-begun
	used, before := held(), freed.Load()
	if used < 64<<20 {
		t.Fatalf("%d bytes are held of 64 MiB that are used", used)
	}
	r.giveBack()
	if freed.Load() != before {
		t.Error("memory is given back while a call is at work")
	}
	close(end)
	for deadline := time.Now().Add(20 * time.Second); freed.Load() == before || held() > used/2 || r.worth(held()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after the last call memory was given back %d times, %d bytes of %d are left, and that they are worth it is %t",
				freed.Load()-before, held(), used, r.worth(held()))
		}
	}
	runtime.KeepAlive(needed)
}

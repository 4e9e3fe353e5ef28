package main

import (
	"context"
	"math"
	"net"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestRest(t *testing.T) {
	// The collector is off, and without a limit nothing else gives memory back.
	limit := debug.SetMemoryLimit(math.MaxInt64)
	defer debug.SetMemoryLimit(limit)
	r := newRest()
	needed := make([]byte, 4*lean) // at any time, so that this is not worth to be looked through again
	begun, end := make(chan struct{}), make(chan struct{})
	serve := r.between(func(context.Context, *net.UnixConn) error {
		var many [][]byte
		for range 64 {
			many = append(many, make([]byte, 1<<20))
		}
		runtime.KeepAlive(many)
		begun <- struct{}{}
		<-end
		return nil
	})
	go func() { _ = serve(t.Context(), nil) }()
	<-begun
	used := held()
	if used < 64<<20 {
		t.Fatalf("%d bytes are held of 64 MiB that were used", used)
	}
	r.giveBack()
	if now := held(); now < used {
		t.Errorf("%d bytes of %d are left while a call is at work", now, used)
	}
	close(end)
	for deadline := time.Now().Add(20 * time.Second); held() > used*2/3 || r.worth(held()); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes of %d are left after the last call, and would be looked through again: %t", held(), used, r.worth(held()))
		}
	}
	runtime.KeepAlive(needed)
}

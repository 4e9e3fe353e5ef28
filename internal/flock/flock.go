// Package flock waits for the lock of an open file (flock(2)) for as long as a context lasts.
package flock

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// Lock takes the lock of an open file, how being unix.LOCK_EX or unix.LOCK_SH. Closing fd gives it back. The lock
// belongs to the open file: goroutines exclude each other if each has opened the file itself.
//
// When Lock fails fd is closed, or will be as soon as the kernel lets go of it. If the context ended, the error wraps
// its cause.
func Lock(ctx context.Context, fd, how int) error {
	err := unix.Flock(fd, how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		if err = context.Cause(ctx); err == nil {
			return wait(ctx, fd, how)
		}
	}
	if err != nil {
		_ = unix.Close(fd)
	}
	return err
}

// wait waits in the kernel, where nothing but a signal to the thread can reach it. If the context ends first, the lock
// is given back as soon as it has been got.
func wait(ctx context.Context, fd, how int) error {
	locked := make(chan error, 1)
	go func() {
		err := unix.Flock(fd, how)
		for errors.Is(err, unix.EINTR) {
			err = unix.Flock(fd, how)
		}
		locked <- err
	}()
	select {
	case err := <-locked:
		if err != nil {
			_ = unix.Close(fd)
		}
		return err
	case <-ctx.Done():
		go func() {
			<-locked
			_ = unix.Close(fd)
		}()
		return context.Cause(ctx)
	}
}

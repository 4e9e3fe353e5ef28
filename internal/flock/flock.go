// Package flock waits for the lock of an open file (flock(2)) for as long as a context lasts.
package flock

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"
)

// Lock takes the exclusive lock of an open file. Closing fd gives it back. Goroutines exclude each other if each has
// opened the file itself.
//
// When Lock fails fd is closed, or will be as soon as the kernel lets go of it. The error of a context that ended is
// its cause.
func Lock(ctx context.Context, fd int) error {
	err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return wait(ctx, fd)
	}
	if err != nil {
		_ = unix.Close(fd)
	}
	return err
}

// wait waits in the kernel, in the queue of all who do, where only a signal could reach it. If the context ends first,
// the lock is given back as soon as it has been got.
func wait(ctx context.Context, fd int) error {
	locked := make(chan error, 1)
	go func() {
		err := unix.Flock(fd, unix.LOCK_EX)
		for errors.Is(err, unix.EINTR) {
			err = unix.Flock(fd, unix.LOCK_EX)
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

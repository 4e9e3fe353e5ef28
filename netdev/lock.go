package netdev

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// LockExclusive takes the lock of the namespace, and returns how to give it back. It serializes, among all processes of Braid,
// what takes several requests to the kernel to do to things that attachments share: a bridge, a table of rules. The
// namespace is its own lock file, so the lock is there wherever the namespace is, and ends with the process.
//
// It is held for milliseconds. It is not reentrant: taking it again, or [Namespace.LockShared], without giving it back
// blocks until the context ends.
func (ns *Namespace) LockExclusive(ctx context.Context) (unlock func(), err error) {
	return ns.flock(ctx, unix.LOCK_EX)
}

// LockShared takes the lock of the namespace together with others who take it this way.
func (ns *Namespace) LockShared(ctx context.Context) (unlock func(), err error) {
	return ns.flock(ctx, unix.LOCK_SH)
}

func (ns *Namespace) flock(ctx context.Context, how int) (unlock func(), err error) {
	// A lock belongs to an open file. Each holder has one of its own, so that goroutines exclude each other too.
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", int(ns.fd)), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the lock of %s: %w", ns.path, err)
	}
	unlock = func() { _ = unix.Close(fd) }
	if err = unix.Flock(fd, how|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		if err = ctx.Err(); err == nil {
			return ns.waitLock(ctx, fd, how, unlock)
		}
	}
	if err != nil {
		unlock()
		return nil, fmt.Errorf("lock %s: %w", ns.path, err)
	}
	return unlock, nil
}

// waitLock waits in the kernel, where nothing but a signal to the thread can reach it. If the context ends first, the
// lock is given back as soon as it has been got.
func (ns *Namespace) waitLock(ctx context.Context, fd, how int, unlock func()) (func(), error) {
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
			unlock()
			return nil, fmt.Errorf("lock %s: %w", ns.path, err)
		}
		return unlock, nil
	case <-ctx.Done():
		go func() { <-locked; unlock() }()
		return nil, fmt.Errorf("wait for the lock of %s: %w", ns.path, context.Cause(ctx))
	}
}

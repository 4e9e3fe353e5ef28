package netdev

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/flock"
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
	if err := flock.Lock(ctx, fd, how); err != nil {
		return nil, fmt.Errorf("lock %s: %w", ns.path, err)
	}
	return func() { _ = unix.Close(fd) }, nil
}

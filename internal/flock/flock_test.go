package flock_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/flock"
)

func open(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func lock(t *testing.T, path string, how int) (fd int) {
	t.Helper()
	fd = open(t, path)
	if err := flock.Lock(t.Context(), fd, how); err != nil {
		t.Fatal(err)
	}
	return fd
}

func unlock(t *testing.T, fd int) {
	t.Helper()
	if err := unix.Close(fd); err != nil {
		t.Error(err)
	}
}

func TestExclusive(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first := lock(t, path, unix.LOCK_EX)
	got := make(chan int)
	for range 5 {
		go func() { got <- lock(t, path, unix.LOCK_EX) }()
	}
	unlock(t, first)
	for range 5 { // each waits for the one before
		unlock(t, <-got)
	}
}

func TestShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	a, b := lock(t, path, unix.LOCK_SH), lock(t, path, unix.LOCK_SH)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := flock.Lock(ctx, open(t, path), unix.LOCK_EX); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	unlock(t, a)
	unlock(t, b)
}

func TestContextEnds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	holder := lock(t, path, unix.LOCK_EX)
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	failed := make(chan error)
	go func() { failed <- flock.Lock(ctx, open(t, path), unix.LOCK_EX) }()
	cancel(enough)
	if err := <-failed; !errors.Is(err, enough) {
		t.Errorf("error = %v", err)
	}
	unlock(t, holder)
	unlock(t, lock(t, path, unix.LOCK_EX)) // whoever gave up does not keep it

	free := open(t, path)
	if err := flock.Lock(ctx, free, unix.LOCK_EX); err != nil {
		t.Errorf("a lock that is free is not given because the context has ended: %v", err)
	}
	unlock(t, free)
}

func TestNoFile(t *testing.T) {
	if err := flock.Lock(t.Context(), -1, unix.LOCK_EX); !errors.Is(err, unix.EBADF) {
		t.Errorf("error = %v", err)
	}
}

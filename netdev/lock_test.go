package netdev_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/netdev"
)

// openTwice opens a namespace as two processes would.
func openTwice(t *testing.T) (a, b *netdev.Namespace) {
	t.Helper()
	ns := nettest.NewNS(t)
	for _, p := range []**netdev.Namespace{&a, &b} {
		opened, err := netdev.Open(ns.Path())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { opened.Close() })
		*p = opened
	}
	return a, b
}

func TestLockExclusiveExcludes(t *testing.T) {
	a, b := openTwice(t)
	unlock, err := a.LockExclusive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for who, ns := range map[string]*netdev.Namespace{"another process": b, "another goroutine": a} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := ns.LockShared(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s got the lock: %v", who, err)
		}
		cancel()
	}
	got := make(chan error)
	go func() {
		unlock, err := b.LockExclusive(t.Context())
		if err == nil {
			unlock()
		}
		got <- err
	}()
	unlock()
	if err := <-got; err != nil {
		t.Errorf("the lock that was given back: %v", err)
	}
}

func TestLockSharedShares(t *testing.T) {
	a, b := openTwice(t)
	unlockA, err := a.LockShared(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unlockB, err := b.LockShared(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	unlockA()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := a.LockExclusive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("LockExclusive while LockShared is held: %v", err)
	}
	unlockB()
}

func TestLocksOfNamespacesAreIndependent(t *testing.T) {
	a, _ := openTwice(t)
	c, _ := openTwice(t)
	unlock, err := a.LockExclusive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	other, err := c.LockExclusive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other()
}

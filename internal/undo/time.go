package undo

import (
	"context"
	"sync"
	"time"
)

// Limit is how long it may take to undo a failed ADD, whose own deadline may have passed.
const Limit = 30 * time.Second

// A budget is the time for all that is undone together.
type budget struct {
	total time.Duration

	mu       sync.Mutex
	deadline time.Time // zero until something is undone
}

type budgetKey struct{}

// WithBudget returns a context in which everything that is undone shares one time, from the first step on: where a lock is
// not to be had, each of many steps would wait for it otherwise.
func WithBudget(ctx context.Context, total time.Duration) context.Context {
	return context.WithValue(ctx, budgetKey{}, &budget{total: total})
}

// Time returns a context to undo something in, however little time ctx has left: it ends after d, or when the budget of
// ctx is used up, if it has one.
func Time(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	deadline := time.Now().Add(d)
	if b, ok := ctx.Value(budgetKey{}).(*budget); ok {
		if end := b.end(); end.Before(deadline) {
			deadline = end
		}
	}
	return context.WithDeadline(context.WithoutCancel(ctx), deadline)
}

func (b *budget) end() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.deadline.IsZero() {
		b.deadline = time.Now().Add(b.total)
	}
	return b.deadline
}

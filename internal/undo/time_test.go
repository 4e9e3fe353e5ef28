package undo_test

import (
	"context"
	"testing"
	"time"

	"github.com/braid-cni/braid/internal/undo"
)

func deadline(t *testing.T, ctx context.Context, d time.Duration) time.Time {
	t.Helper()
	ctx, cancel := undo.Time(ctx, d)
	defer cancel()
	if ctx.Err() != nil {
		t.Error("the context has ended")
	}
	end, _ := ctx.Deadline()
	return end
}

// What is undone has time although the context has ended, and all of it has the same time if there is a budget.
func TestTime(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if left := time.Until(deadline(t, over, time.Hour)); left < 59*time.Minute {
		t.Errorf("without a budget: %s", left)
	}
	budget := undo.WithBudget(over, time.Hour)
	first := deadline(t, budget, 2*time.Hour)
	if left := time.Until(first); left > time.Hour {
		t.Errorf("beyond the budget: %s", left)
	}
	nested, cancel := undo.Time(budget, time.Hour)
	defer cancel()
	for _, ctx := range []context.Context{budget, nested} {
		if later := deadline(t, ctx, 2*time.Hour); !later.Equal(first) {
			t.Errorf("another step ends at %s, the first one at %s", later, first)
		}
	}
	if left := time.Until(deadline(t, budget, time.Minute)); left > time.Minute {
		t.Errorf("a step has %s", left)
	}
}

package cni

import (
	"context"
	"time"
)

type turnKey struct{}

type turn struct {
	come chan struct{} // closed when it has
	at   time.Time     // which was then
}

// WithTurn returns a context whose plugins have to wait for their turn, which has come when come is called, once.
func WithTurn(ctx context.Context) (_ context.Context, come func()) {
	t := &turn{come: make(chan struct{})}
	return context.WithValue(ctx, turnKey{}, t), func() {
		t.at = time.Now()
		close(t.come)
	}
}

// Turn waits until the attachments are made that come before this one, or the context ends. A plugin that is a [Turner] calls it before
// it looks at anything that others make, and before it changes anything but reservations of addresses.
func Turn(ctx context.Context) error {
	t, ok := ctx.Value(turnKey{}).(*turn)
	if !ok {
		return ctx.Err()
	}
	select {
	case <-t.come:
		return ctx.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// TurnCame returns when the turn of a plugin came; the zero time if it has not, or nobody had to wait.
func TurnCame(ctx context.Context) (at time.Time) {
	if t, ok := ctx.Value(turnKey{}).(*turn); ok {
		select {
		case <-t.come:
			return t.at
		default:
		}
	}
	return at
}

// A Turner is a [Plugin] whose Add calls [Turn]: what it can find out and reserve before that, it does while others are at work.
type Turner interface{ TakesTurns() }

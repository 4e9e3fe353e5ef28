package cni

import (
	"context"
	"sync/atomic"
)

type recordKey struct{}

type record struct {
	durable func() error
	is      atomic.Bool // durable, as somebody knows who has waited for it
}

// WithRecord returns a context whose plugins make what is on record. Durable returns when no loss of power takes the record
// away any more. It may be called more than once, and concurrently.
func WithRecord(ctx context.Context, durable func() error) context.Context {
	return context.WithValue(ctx, recordKey{}, &record{durable: durable})
}

// Recorded returns when no loss of power takes away the record by which an ADD is undone, or with why that cannot be had. A
// plugin waits for it before it makes what would survive as well. What is gone by then, like interfaces, addresses and
// rules, has to wait for nothing. Where nobody keeps a record it returns at once.
func Recorded(ctx context.Context) error {
	r, ok := ctx.Value(recordKey{}).(*record)
	if !ok || r.is.Load() {
		return nil
	}
	err := r.durable()
	r.is.Store(err == nil)
	return err
}

// IsRecorded tells whether Recorded is known to return at once: who has a choice does the rest first.
func IsRecorded(ctx context.Context) bool {
	r, ok := ctx.Value(recordKey{}).(*record)
	return !ok || r.is.Load()
}

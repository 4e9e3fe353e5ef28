package cni

import "context"

type recordKey struct{}

// WithRecord returns a context whose plugins make what is on record. Durable returns when no loss of power takes the record
// away any more. It may be called more than once, and concurrently.
func WithRecord(ctx context.Context, durable func() error) context.Context {
	return context.WithValue(ctx, recordKey{}, durable)
}

// Recorded returns when no loss of power takes away the record by which an ADD is undone, or with why that cannot be had. A
// plugin waits for it before it makes what would survive as well. What is gone by then, like interfaces, addresses and
// rules, has to wait for nothing. Where nobody keeps a record it returns at once.
func Recorded(ctx context.Context) error {
	if durable, ok := ctx.Value(recordKey{}).(func() error); ok {
		return durable()
	}
	return nil
}

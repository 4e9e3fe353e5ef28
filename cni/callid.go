package cni

import (
	"context"
	"errors"
)

// ErrElsewhere is the error of a plugin in another process than the runtime's, about a call that only the plugin process can do.
// Nothing has been done.
var ErrElsewhere = errors.New("only a plugin process can do this")

type callIDKey struct{}

// WithCallID returns a context whose call has a name. All processes that have to do with one call of the runtime give it the same
// name, and no other call has it: so one that takes a call over knows what another has done for it, when that was killed. [Main] has it of
// the environment.
func WithCallID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, callIDKey{}, id)
}

// CallID returns the name of a call; empty if it has none.
func CallID(ctx context.Context) string {
	id, _ := ctx.Value(callIDKey{}).(string)
	return id
}

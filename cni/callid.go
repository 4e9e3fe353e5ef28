package cni

import (
	"context"
	"math/rand/v2"
	"strconv"
)

// callEnv names the plugin process to its deputy.
const callEnv = "BRAID_CALL"

func newCallID() string { return strconv.FormatUint(rand.Uint64(), 36) }

type callIDKey struct{}

// WithCallID returns a context whose call has a name. A plugin process and its deputy give one call the same name, and no other
// call has it: so a process that takes a call over knows what the deputy has done for it.
func WithCallID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, callIDKey{}, id)
}

// CallID returns the name of a call; empty if it has none.
func CallID(ctx context.Context) string {
	id, _ := ctx.Value(callIDKey{}).(string)
	return id
}

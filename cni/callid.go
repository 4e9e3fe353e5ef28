package cni

import (
	"context"
	"math/rand/v2"
	"strconv"
)

// CallEnv is the variable that names a call to the [Deputy] of a plugin process; see [CallID].
const CallEnv = "BRAID_CALL"

func newCallID() string { return strconv.FormatUint(rand.Uint64(), 36) }

type callIDKey struct{}

// WithCallID returns a context whose call has a name. A plugin process and its [Deputy] give one call the same name, and no other
// call has it: so a process that takes a call over knows what its deputy has done for it, when that was killed.
func WithCallID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, callIDKey{}, id)
}

// CallID returns the name of a call; empty if it has none.
func CallID(ctx context.Context) string {
	id, _ := ctx.Value(callIDKey{}).(string)
	return id
}

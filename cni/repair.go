package cni

import "context"

// A Repairer is a [Plugin] that can make again what an attachment has lost on the node while the pod runs: because
// somebody has deleted the bridge that it is on, or flushed the rules of the node. What the pod does with what it has is
// its own affair.
//
// Both methods get what Check gets.
type Repairer interface {
	// Broken returns what Repair would mend, and nil if that is nothing.
	Broken(ctx context.Context, req *Request) error

	// Repair makes again what is missing, and changes nothing else. An error does not keep the rest from being mended.
	Repair(ctx context.Context, req *Request) error
}

package main

import (
	"github.com/braid-cni/braid/internal/edge"
	"github.com/braid-cni/braid/worker/protocol"
)

// begun is what early has done of a call when main begins. It has no pointers: nobody knows yet where memory is.
var begun struct {
	message  [room]byte // the call, as the worker gets it
	size     int        // of it
	stdin    int        // bytes of standard input that have been read: they are in the message, from stdinAt on
	ended    bool       // standard input
	conn     int        // to the worker, which has got the message; or 0
	answer   [room]byte // of the worker
	answered int        // bytes of it
	stderr   int        // bytes of what it has answered that have been printed
	stdout   int
	name     [len(edge.CallEnv) + 1 + nameSize]byte // the variable with the name of the call
}

const (
	room     = 64 << 10 // bytes: more is not usual
	maxStdin = room / 2
	nameSize = 16
	stdinAt  = 4 + 4 + protocol.PlaceSize + 4 // before it are the lengths of message, place and standard input
)

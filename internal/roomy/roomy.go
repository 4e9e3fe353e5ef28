// Package roomy makes room on the stack of a goroutine.
package roomy

const (
	size  = 12 << 10 // what a call of a plugin needs, nearly
	large = 24 << 10 // what a process needs that does all of an ADD
)

// Stack gives a new goroutine the stack at once that it will need: it has 2 KB, and otherwise grows by doubling, each time
// copying all frames.
func Stack() { touch(true) }

// Large is Stack for the goroutine that does all that a process is there for.
func Large() { touchLarge(true) }

// touch has a frame that there must be room for before it runs. None of it is written if there is enough.
//
//go:noinline
func touch(enough bool) byte {
	if enough {
		return 0
	}
	var room [size]byte
	return sum(room[:])
}

//go:noinline
func touchLarge(enough bool) byte {
	if enough {
		return 0
	}
	var room [large]byte
	return sum(room[:])
}

//go:noinline
func sum(room []byte) (s byte) {
	for _, b := range room {
		s += b
	}
	return s
}

// Package roomy makes room on the stack of a goroutine.
package roomy

// size is what a call of a plugin needs, nearly.
const size = 12 << 10

// Stack gives a new goroutine the stack at once that it will need: it has 2 KB, and otherwise grows by doubling, each time
// copying all frames.
//
//go:noinline
func Stack() { touch(0) }

//go:noinline
func touch(i int) byte {
	var room [size]byte
	return room[i]
}

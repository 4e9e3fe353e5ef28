// A limit of processor time for a whole container is not looked for, in five files of /proc and /sys: it says nothing
// about a call of ten milliseconds.
//
//go:debug containermaxprocs=0

package main

import "runtime/debug"

// A call allocates a megabyte or two and ends: a cycle of the collector would cost it more than
// all that memory is worth. A call with huge results is collected as soon as it comes near the limit.
func init() {
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(48 << 20)
}

// Package buildinfo says which Braid this is.
package buildinfo

// Version is set when the binaries are linked.
var Version = "devel"

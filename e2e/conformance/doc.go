// Package conformance puts built binaries to every clause of the Network Custom Resource Definition De-facto Standard
// 1.3 (rows A) and of CNI 1.1.0 with its conventions (rows B), and writes what came of it to docs/conformance.md.
//
// A row is asked from outside: the binary gets an environment and standard input as a container runtime would give
// them, in a node that is a network namespace of its own; what counts is what is in the kernel, on standard output, in
// the calls that plugins get (see recorder) and in a real API server.
//
// IMPL names another implementation's entry binary, which is asked the same.
package conformance

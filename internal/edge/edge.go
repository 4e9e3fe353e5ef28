// Package edge has what braid and braid-shim have to agree on, and packages that are too big for the shim to link would have
// otherwise.
package edge

const (
	// MaxStdin is how much is accepted of a runtime, in bytes; at GC it lists every attachment of the node.
	MaxStdin = 8 << 20

	// DefaultDaemonSocket is where the daemon listens unless the configuration says otherwise.
	DefaultDaemonSocket = "/run/braid/braidd.sock"

	// CallEnv is the variable that names a call of the runtime which is handed over to another process. Whoever takes it over, since
	// that was killed, knows by it which record of the journal is that of the same call: no other call has the name.
	CallEnv = "BRAID_CALL"
)

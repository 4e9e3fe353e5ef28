package journal

import "github.com/braid-cni/braid/internal/bootid"

// BootID tells this run of the kernel from another, for [Record.BootID]. Where it can not be read it is empty, every boot
// is the same, and attachments of an earlier one are known by their namespaces' absence only.
func BootID() string { return bootid.Get() }

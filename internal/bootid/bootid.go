// Package bootid tells this run of the kernel from another.
package bootid

import (
	"strings"
	"sync"

	"github.com/braid-cni/braid/internal/plainfile"
)

// Get returns the id, which is empty where it cannot be read. It is read once: it stays what it is while a process runs, and
// of a plugin's time it would be much to ask for each of a pod's networks.
var Get = sync.OnceValue(func() string {
	b, _ := plainfile.ReadAll("/proc/sys/kernel/random/boot_id", 64)
	return strings.TrimSpace(string(b))
})

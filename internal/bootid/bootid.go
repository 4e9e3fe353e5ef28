// Package bootid tells this run of the kernel from another.
package bootid

import (
	"io"
	"os"
	"strings"
	"sync"

	"github.com/braid-cni/braid/internal/plainfile"
)

// Get returns the id, which is empty where it cannot be read. It is read once: it stays what it is while a process runs, and
// of a plugin's time it would be much to ask for each of a pod's networks.
var Get = sync.OnceValue(func() string { return Read("/proc/sys/kernel/random/boot_id") })

// Read returns the id in a file, that of a boot or of a machine, which is empty where it cannot be read.
func Read(path string) string {
	f, err := plainfile.Open(path, os.O_RDONLY, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 256))
	return strings.TrimSpace(string(b))
}

package journal

import (
	"strings"

	"github.com/braid-cni/braid/internal/plainfile"
)

// BootID tells this run of the kernel from another, for [Record.BootID]. Where it can not be read it is empty, every boot
// is the same, and attachments of an earlier one are known by their namespaces' absence only.
func BootID() string {
	b, err := plainfile.ReadAll("/proc/sys/kernel/random/boot_id", 64)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

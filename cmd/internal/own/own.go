// Package own is the table of Braid's own plugins, for the programs that run them.
package own

import (
	"github.com/braid-cni/braid/bridge"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/ipam/dhcp"
	"github.com/braid-cni/braid/ipam/hostlocal"
	"github.com/braid-cni/braid/ipam/static"
	"github.com/braid-cni/braid/ipvlan"
	"github.com/braid-cni/braid/loopback"
	"github.com/braid-cni/braid/macvlan"
)

// Plugins returns Braid's own, by type. Those that they use themselves, for addresses, they look up with find.
func Plugins(find cni.Lookup) map[string]cni.Plugin {
	return map[string]cni.Plugin{
		"bridge":     bridge.Plugin{Find: find},
		"ipvlan":     ipvlan.Plugin{Find: find},
		"macvlan":    macvlan.Plugin{Find: find},
		"loopback":   loopback.Plugin{},
		"host-local": hostlocal.Plugin{},
		"static":     static.Plugin{},
		"dhcp":       dhcp.Plugin{},
	}
}

// Command braid is the CNI plugin: the delegator, or one of its own plugins when called by that plugin's name.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/braid-cni/braid/bridge"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/internal/buildinfo"
	"github.com/braid-cni/braid/ipam/dhcp"
	"github.com/braid-cni/braid/ipam/hostlocal"
	"github.com/braid-cni/braid/ipam/static"
	"github.com/braid-cni/braid/ipvlan"
	"github.com/braid-cni/braid/loopback"
	"github.com/braid-cni/braid/macvlan"
	"github.com/braid-cni/braid/resolve"
)

func main() {
	name := filepath.Base(os.Args[0])
	about := fmt.Sprintf("CNI plugin %s of Braid %s", name, buildinfo.Version)
	if own, ok := standalone()[name]; ok {
		cni.Main(own, about)
		return
	}
	cni.Main(&delegate.Delegator{
		Own:      plugins,
		Resolver: connect,
		Stderr:   os.Stderr,
		BootID:   bootID(),
		Observer: tellDaemon,
	}, about)
}

// plugins returns Braid's own, by type.
func plugins(find cni.Lookup) map[string]cni.Plugin {
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

// standalone returns the same for a runtime that calls them itself. They find each other, and binaries for every other
// type.
func standalone() (own map[string]cni.Plugin) {
	own = plugins(func(pluginType string) cni.Plugin {
		if p, ok := own[pluginType]; ok {
			return p
		}
		return cni.Exec{Type: pluginType}
	})
	return own
}

// connect leads to the daemon of the node, and to `braidd resolve`, which lies beside this binary, where that does not
// answer. Nothing is asked or started yet.
func connect(c *conf.Config, log *slog.Logger) (interface {
	resolve.Resolver
	io.Closer
}, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	child := &resolve.Child{Path: filepath.Join(filepath.Dir(self), "braidd"), Args: []string{"resolve"}}
	if _, err := os.Stat(child.Path); err != nil {
		return nil, err
	}
	if c.Manifests != "" {
		child.Args = append(child.Args, "--manifests", c.Manifests, "--status-dir", filepath.Join(c.CNIDir, "status"))
		return child, nil
	}
	child.Args = append(child.Args, "--kubeconfig", c.Kubeconfig)
	return &resolve.Node{Socket: c.DaemonSocket, Child: child, Log: log.Info}, nil
}

// tellDaemon is for the daemon's metrics, traces and events. Where there is none, nobody misses them.
func tellDaemon(c *conf.Config, o *resolve.Observation) {
	_ = resolve.Observe(context.Background(), c.DaemonSocket, o)
}

// bootID tells this run of the kernel from another. Where it can not be read every boot is the same, and attachments of
// an earlier one are known by their namespaces' absence only.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

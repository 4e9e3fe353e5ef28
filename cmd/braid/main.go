// Command braid is the CNI plugin: the delegator, or one of its own plugins when called by that plugin's name.
package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/braid-cni/braid/cmd/internal/own"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/internal/buildinfo"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/resolve"
)

func main() {
	name := filepath.Base(os.Args[0])
	about := fmt.Sprintf("CNI plugin %s of Braid %s", name, buildinfo.Version)
	if plugin, ok := standalone()[name]; ok {
		cni.Main(plugin, about)
		return
	}
	cni.Main(&delegate.Delegator{
		Own:      own.Plugins,
		Resolver: connect,
		Stderr:   os.Stderr,
		BootID:   journal.BootID(),
	}, about)
}

// standalone returns Braid's own plugins for a runtime that calls them itself. They find each other, and binaries for
// every other type.
func standalone() (table map[string]cni.Plugin) {
	table = own.Plugins(func(pluginType string) cni.Plugin {
		if p, ok := table[pluginType]; ok {
			return p
		}
		return cni.Exec{Type: pluginType}
	})
	return table
}

// connect starts `braidd resolve`, which lies beside this binary, with the first request.
func connect(c *conf.Config, _ *slog.Logger) (interface {
	resolve.Resolver
	io.Closer
}, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	child := &resolve.Child{Path: filepath.Join(filepath.Dir(self), "braidd"), Args: []string{"resolve"}}
	if c.Manifests != "" {
		child.Args = append(child.Args, "--manifests", c.Manifests, "--status-dir", filepath.Join(c.CNIDir, "status"))
	} else {
		child.Args = append(child.Args, "--kubeconfig", c.Kubeconfig)
	}
	return child, nil
}

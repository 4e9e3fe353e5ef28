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
	"github.com/braid-cni/braid/internal/roomy"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/kube/direct"
	"github.com/braid-cni/braid/resolve"
)

func main() {
	roomy.Large()
	name := filepath.Base(os.Args[0])
	about := fmt.Sprintf("CNI plugin %s of Braid %s", name, buildinfo.Version)
	if socket, ok := workerSocket(os.Args); ok {
		if err := work(socket, about); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if plugin, ok := standalone()[name]; ok {
		cni.Main(plugin, about)
		return
	}
	cni.Main(delegator(os.Stderr), about)
}

// delegator returns the meta-plugin, which logs to stderr unless it is configured otherwise.
func delegator(stderr io.Writer) *delegate.Delegator {
	return &delegate.Delegator{
		Own:      own.Plugins,
		Resolver: connect,
		Stderr:   stderr,
		BootID:   journal.BootID(),
		Observer: tellDaemon,
	}
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

// connect leads to the daemon of the node and, where that does not answer, to the API server. A folder of manifests is read by
// braidd, which lies beside this binary. Nothing is asked or started yet.
func connect(c *conf.Config, log *slog.Logger) (interface {
	resolve.Resolver
	io.Closer
}, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	child := &resolve.Child{Path: filepath.Join(filepath.Dir(self), "braidd"), Args: []string{"resolve"}}
	if c.PodResources != "" {
		child.Args = append(child.Args, "--pod-resources", c.PodResources)
	}
	if c.Manifests != "" {
		child.Args = append(child.Args, "--manifests", c.Manifests, "--status-dir", filepath.Join(c.CNIDir, "status"))
		return child, nil
	}
	child.Args = append(child.Args, "--kubeconfig", c.Kubeconfig)
	server := &direct.Resolver{
		Kubeconfig: c.Kubeconfig, Session: filepath.Join(c.CNIDir, conf.TLSSession), PodResources: c.PodResources, Child: child, Log: log,
	}
	return &resolve.Node{Socket: c.DaemonSocket, Fallback: server, Log: log.Info}, nil
}

// tellDaemon is for the daemon's metrics, traces and events. Where there is none, nobody misses them.
func tellDaemon(c *conf.Config, o *resolve.Observation) {
	_ = resolve.Observe(c.DaemonSocket, o)
}

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
	"github.com/braid-cni/braid/kube"
	"github.com/braid-cni/braid/node"
	"github.com/braid-cni/braid/node/server"
)

const (
	lookupsAtOnce  = 32   // of the API server
	lookupsWaiting = 2048 // beyond those: a node full of pods that start at once, with several networks each
)

// daemonFlags are those of `braidd daemon`.
type daemonFlags struct {
	node.Options
	kubeconfig string
	nodeName   string
	level      slog.Level
}

// daemonCommand runs what a node of a cluster needs of Braid besides the plugin.
func daemonCommand() *cobra.Command {
	var f daemonFlags
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "serve the plugin on a node of a cluster",
		Long: "Answers the plugin's questions on a unix socket, writes network-status and events, and keeps DHCP leases, until\n" +
			"it is stopped. The plugin works without it too, only slower. Two on one node take turns: the second one serves\n" +
			"when the first is stopped, so that an upgrade leaves no gap.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cmd.ErrOrStderr()) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.Server.Socket, "socket", server.DefaultSocket, "unix socket to listen on")
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "how the API server is reached (default: the service account of the pod)")
	flags.StringVar(&f.nodeName, "node-name", "", "name of this node in the cluster (default $NODE_NAME, else the host name)")
	flags.StringVar(&f.CNIDir, "cni-dir", "/var/lib/cni/braid", "the plugin's cniDir, whose journal has what is to be written")
	flags.StringVar(&f.DHCP.Socket, "dhcp-socket", lease.DefaultSocket,
		"unix socket of the DHCP lease keeper; the leases are kept beside it, in a folder that ends in .leases. Empty for no keeper")
	flags.TextVar(&f.level, "log-level", slog.LevelInfo, "the least that is logged: debug, info, warn or error")
	return cmd
}

func (f *daemonFlags) run(ctx context.Context, stderr io.Writer) error {
	f.Log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: f.level}))
	name, err := nodeName(f.nodeName)
	if err != nil {
		return err
	}
	api, err := kube.Open(f.kubeconfig, f.Log)
	if err != nil {
		return err
	}
	f.Source, f.Writer = node.Limit(api, lookupsAtOnce, lookupsWaiting), api
	f.NoDHCP = f.DHCP.Socket == ""
	n, err := node.New(f.Options)
	if err != nil {
		return err
	}
	f.Log.Info("daemon started", "node", name)
	return n.Run(ctx)
}

// nodeName returns the name that the flag gives, or the pod's environment, or the host.
func nodeName(flag string) (string, error) {
	if name := cmp.Or(flag, os.Getenv("NODE_NAME")); name != "" {
		return name, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("no --node-name, no NODE_NAME, and no host name: %w", err)
	}
	return name, nil
}

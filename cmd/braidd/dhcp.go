package main

import (
	"log/slog"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/braid-cni/braid/ipam/dhcp/keeper"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/node/leases"
)

// dhcpCommand runs the lease keeper on its own, for nodes without Kubernetes.
func dhcpCommand() *cobra.Command {
	var o keeper.Options
	var cniDir string
	cmd := &cobra.Command{
		Use:   "dhcp",
		Short: "keep the DHCP leases of pods",
		Long: "Gets, extends and releases the leases of pods whose network has \"ipam\": {\"type\": \"dhcp\"}, until it is\n" +
			"stopped. The leases outlive it: the next one takes them up again. It needs root, the namespaces of the pods under\n" +
			"the paths that the container runtime gives them, and no Kubernetes.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			j, err := journal.Open(filepath.Join(cniDir, "attachments"))
			if err != nil {
				return err
			}
			o.Changed = leases.NewRecorder(j, o.Log).Changed
			k, err := keeper.New(o)
			if err != nil {
				return err
			}
			o.Log.Info("lease keeper started", "socket", o.Socket, "attachments", k.Len())
			return k.Serve(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&o.Socket, "socket", lease.DefaultSocket,
		"unix socket to listen on; the leases are kept beside it, in a folder that ends in .leases")
	cmd.Flags().StringVar(&cniDir, "cni-dir", "/var/lib/cni/braid",
		"the plugin's cniDir, where a lease that a server changes is noted for CHECK")
	cmd.Flags().DurationVar(&o.AcquireTimeout, "acquire-timeout", 0, "how long an ADD waits for a server (default 1m)")
	cmd.Flags().IntVar(&o.MaxLeases, "max-leases", 0, "how many attachments can have leases (default 10000)")
	return cmd
}

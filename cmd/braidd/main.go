// Command braidd is the part of Braid that knows the cluster.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/braid-cni/braid/internal/buildinfo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	root := &cobra.Command{
		Use:          "braidd",
		Short:        "the part of Braid that knows the cluster",
		Version:      buildinfo.Version,
		SilenceUsage: true,
	}
	root.AddCommand(resolveCommand(), planCommand())
	if root.ExecuteContext(ctx) != nil {
		os.Exit(1)
	}
}

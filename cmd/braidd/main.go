// Command braidd is the part of Braid that knows the cluster.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	root := &cobra.Command{
		Use:           "braidd",
		Short:         "the part of Braid that knows the cluster",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(daemonCommand(), dhcpCommand(), installCommand(), planCommand(), repairCommand(), resolveCommand(), sweepCommand(), uninstallCommand(), versionCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "braidd:", err)
		os.Exit(1)
	}
}

package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/braid-cni/braid/node/install"
)

// uninstallCommand takes Braid off a node.
func uninstallCommand() *cobra.Command {
	var cniDir string
	var force, stay bool
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "take Braid off this node",
		Long: "Takes away what `braidd install` put on this node, and restores what was there. What others have changed since\n" +
			"stays as they left it. It refuses while pods have networks that only Braid can undo, and names them.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			if err := install.Uninstall(cmd.Context(), cniDir, force, log); err != nil || !stay {
				return err
			}
			<-cmd.Context().Done()
			return nil
		},
	}
	cmd.Flags().StringVar(&cniDir, "cni-dir", "/var/lib/cni/braid", "as it was given to install")
	cmd.Flags().BoolVar(&force, "force", false, "uninstall although pods need Braid")
	cmd.Flags().BoolVar(&stay, "stay", false, "when done, wait to be stopped: for a pod that is not to be started again")
	return cmd
}

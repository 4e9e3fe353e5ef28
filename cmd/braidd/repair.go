package main

import (
	"github.com/spf13/cobra"

	"github.com/braid-cni/braid/cmd/internal/own"
	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/journal"
)

// repairCommand makes again what running pods have lost on the node, once. The daemon does so by way of `braidd sweep`.
func repairCommand() *cobra.Command {
	var config, confDir, cniDir string
	var asJSON bool
	o := delegate.SweepOptions{Repair: true, Spare: true}
	cmd := &cobra.Command{
		Use:   "repair [--dry-run] [--config FILE | --conf-dir DIR]",
		Short: "make again what running pods have lost on the node",
		Long: "Looks at every attachment in the plugin's journal whose pod runs, and makes again what is missing of it on the\n" +
			"node: a bridge that was deleted, with the MAC address that pods know, the connection of their ports to it with\n" +
			"properties and VLANs, gateway addresses, masquerade and the MAC spoof check. Pods are not restarted. Of plugins,\n" +
			"Braid's own bridge can be repaired. What is as it should be is not touched, nor is what is inside a pod.\n\n" +
			"Prints what it finds. With --repair the daemon does this every minute. Nothing but the node is needed. The exit\n" +
			"status is not 0 if something is still missing.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			req, err := sweepRequest(config, confDir, cniDir)
			if err != nil {
				return err
			}
			d := &delegate.Delegator{Own: own.Plugins, Stderr: cmd.ErrOrStderr(), BootID: journal.BootID()}
			write := printFinding
			if asJSON {
				write = encodeFinding
			}
			return sweepTwice(cmd.Context(), d, req, o, true, func(f *delegate.Finding) error {
				if f.Verdict != delegate.Broken {
					return nil
				}
				return write(cmd.OutOrStdout(), f)
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&config, "config", "", "the plugin's configuration, or a list that has it")
	flags.StringVar(&confDir, "conf-dir", "/etc/cni/net.d",
		"where the first configuration with the plugin is taken from, without --config")
	flags.StringVar(&cniDir, "cni-dir", "", "the plugin's cniDir, if there is no configuration of the plugin")
	flags.BoolVar(&o.DryRun, "dry-run", false, "change nothing, print what is missing")
	flags.BoolVar(&asJSON, "json", false, "print a JSON document a line")
	cmd.MarkFlagsMutuallyExclusive("config", "conf-dir")
	return cmd
}

package main

import (
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/braid-cni/braid/internal/buildinfo"
)

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "print which Braid this is",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "braidd %s %s/%s %s\n", buildinfo.Version, runtime.GOOS, runtime.GOARCH, runtime.Version())
			return err
		},
	}
}

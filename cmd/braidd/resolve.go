package main

import (
	"errors"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/braid-cni/braid/kube/manifests"
	"github.com/braid-cni/braid/resolve"
)

// resolveCommand serves one ADD on standard input and output.
func resolveCommand() *cobra.Command {
	var kubeconfig, folder, statusDir string
	cmd := &cobra.Command{
		Use:   "resolve",
		Short: "answer the plugin's questions on standard input and output",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := newResolver(kubeconfig, folder, statusDir)
			if err != nil {
				return err
			}
			return resolve.Serve(cmd.Context(), os.Stdin, os.Stdout, r)
		},
	}
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how the API server is reached")
	cmd.Flags().StringVar(&folder, "manifests", "", "a folder with Pods and NetworkAttachmentDefinitions instead")
	cmd.Flags().StringVar(&statusDir, "status-dir", "", "where the status of pods is written, with --manifests")
	return cmd
}

func newResolver(kubeconfig, folder, statusDir string) (resolve.Resolver, error) {
	if folder == "" {
		return nil, errors.New("not yet")
	}
	return &manifests.Resolver{Dir: folder, StatusDir: statusDir, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}, nil
}

package main

import (
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/braid-cni/braid/kube"
	"github.com/braid-cni/braid/kube/devices"
	"github.com/braid-cni/braid/kube/manifests"
	"github.com/braid-cni/braid/resolve"
)

// resolveCommand serves one ADD on standard input and output.
func resolveCommand() *cobra.Command {
	var kubeconfig, folder, statusDir, podResources string
	cmd := &cobra.Command{
		Use:   "resolve [--kubeconfig FILE | --manifests DIR [--status-dir DIR]] [--pod-resources SOCKET]",
		Short: "answer the plugin's questions on standard input and output",
		Long: "Reads requests from standard input, one JSON document a line, and answers each with a line, until the input\n" +
			"ends. The plugin starts it for a folder of manifests and, when there is no daemon, for a kubeconfig with more in it\n" +
			"than it reads itself. Pods and networks come from an API server, or from a folder of manifests; with neither flag,\n" +
			"from the API server of the cluster that this pod is in.",
		Example: `  echo '{"resolve":{"pod":{"namespace":"default","name":"web"}}}' | braidd resolve --manifests examples/manifests`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := newResolver(kubeconfig, folder, statusDir, podResources)
			if err != nil {
				return err
			}
			return resolve.ServeStdio(cmd.Context(), r)
		},
	}
	cmd.Flags().StringVar(&kubeconfig, "kubeconfig", "", "how the API server is reached")
	cmd.Flags().StringVar(&folder, "manifests", "", "a folder with Pods and NetworkAttachmentDefinitions instead")
	cmd.Flags().StringVar(&statusDir, "status-dir", "", "where the status of pods is written, with --manifests; else it is logged")
	cmd.Flags().StringVar(&podResources, "pod-resources", devices.DefaultSocket, "socket on which the kubelet tells the devices of pods")
	cmd.MarkFlagsMutuallyExclusive("kubeconfig", "manifests")
	cmd.MarkFlagsMutuallyExclusive("kubeconfig", "status-dir")
	return cmd
}

func newResolver(kubeconfig, folder, statusDir, podResources string) (resolve.Resolver, error) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if folder != "" {
		m := &manifests.Resolver{Dir: folder, StatusDir: statusDir, Log: log}
		return &devices.Resolver{Resolver: m, Socket: podResources}, nil
	}
	k, err := kube.Open(kubeconfig, log)
	if err != nil {
		return nil, err
	}
	return &devices.Resolver{Resolver: k, Socket: podResources}, nil
}

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/resolve"
)

// planCommand prints what an ADD would do, and does nothing.
func planCommand() *cobra.Command {
	var config, manifests, ifName string
	cmd := &cobra.Command{
		Use:   "plan --config FILE NAMESPACE/POD",
		Short: "print which networks a pod would be attached to, and how",
		Long: "Prints the attachments that the plugin would make for a pod, in order, or why it would refuse to.\n" +
			"FILE is the plugin's configuration, \"type\": \"braid\". Nothing is changed.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			namespace, name, ok := strings.Cut(args[0], "/")
			if !ok {
				return fmt.Errorf("pod is %q: want NAMESPACE/POD", args[0])
			}
			b, err := os.ReadFile(config)
			if err != nil {
				return err
			}
			if manifests != "" {
				if manifests, err = filepath.Abs(manifests); err != nil {
					return err
				}
				if b, err = conf.With(b, map[string]any{"manifests": manifests, "kubeconfig": nil}); err != nil {
					return fmt.Errorf("read %s: %w", config, err)
				}
			}
			plan, err := planOf(cmd.Context(), b, resolve.Pod{Namespace: namespace, Name: name}, ifName)
			if err != nil {
				return err
			}
			return delegate.WritePlan(cmd.OutOrStdout(), plan)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "the plugin's configuration (required)")
	cmd.Flags().StringVar(&manifests, "manifests", "", "a folder with the pod and the networks, in place of what the configuration names")
	cmd.Flags().StringVar(&ifName, "interface", "eth0", "the interface that the runtime asks for")
	if err := cmd.MarkFlagRequired("config"); err != nil {
		panic(err) // the flag is defined above
	}
	return cmd
}

func planOf(ctx context.Context, config []byte, pod resolve.Pod, ifName string) ([]delegate.Planned, error) {
	c, err := conf.Parse(config)
	if err != nil {
		return nil, err
	}
	if err := c.CheckDefaultNetwork(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.Deadlines.Resolve)
	defer cancel()
	var answer *resolve.Answer
	if c.Kubeconfig != "" || c.Manifests != "" {
		r, err := newResolver(c.Kubeconfig, c.Manifests, "", c.PodResources)
		if err != nil {
			return nil, err
		}
		if answer, err = r.Resolve(ctx, delegate.NewQuery(c, pod)); err != nil {
			return nil, err
		}
	}
	return delegate.NewPlan(c, answer, ifName, nil)
}

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/braid-cni/braid/kube"
	"github.com/braid-cni/braid/node/install"
)

// cidrWait is how long an install waits for the pod CIDR of a new node.
const cidrWait = 2 * time.Minute

// installCommand puts Braid on a node.
func installCommand() *cobra.Command {
	var o install.Options
	var config string
	cmd := &cobra.Command{
		Use:   "install",
		Short: "put Braid on this node",
		Long: "Puts the binaries beside the other CNI plugins, writes a kubeconfig and the configuration that the container\n" +
			"runtime reads, and notes what it did for `braidd uninstall`. It can be run again at any time, also while pods\n" +
			"start. Plugins and configurations of others stay as they are.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			var err error
			if o.Config, err = document(config); err != nil {
				return fmt.Errorf("--config: %w", err)
			}
			if o.Source == "" {
				if o.Source, err = ownFolder(); err != nil {
					return err
				}
			}
			return install.Install(cmd.Context(), o, cluster{log}, log)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Source, "source", "", "folder with braid, braidd and braid-shim (default: that of this program)")
	f.StringVar(&o.BinDir, "bin-dir", "/opt/cni/bin", "where the runtime looks for CNI plugins")
	f.StringVar(&o.ConfDir, "conf-dir", "/etc/cni/net.d", "where the runtime looks for CNI configurations")
	f.StringVar(&o.NetworksDir, "networks-dir", "/etc/cni/braid/net.d", `the plugin's "confDir": configurations by name`)
	f.StringVar(&o.CNIDir, "cni-dir", "/var/lib/cni/braid", `the plugin's "cniDir": what Braid keeps`)
	f.StringSliceVar(&o.Plugins, "plugins", []string{"loopback"}, "own plugins to link under their names where the name is free, or "+install.AllPlugins+" for all")
	f.BoolVar(&o.Overwrite, "overwrite", false, "give own plugins their names even if taken; uninstall puts back what was there")
	f.BoolVar(&o.Worker, "worker", true, `the daemon runs a worker: the configuration is of type "braid-shim", which hands it the calls of the runtime, not "braid"`)
	f.StringVar(&o.ClusterNetwork, "cluster-network", install.Auto, "default network of pods: "+install.Auto+" (the first other configuration in --conf-dir, else Braid's own bridge), "+install.Bridge+", or a path")
	f.DurationVar(&o.PrimaryWait, "primary-wait", 5*time.Second, "how long a first install waits for another CNI's configuration, with --cluster-network="+install.Auto)
	f.StringVar(&o.Name, "name", "", "of the network as the runtime knows it (default: that of the cluster's network)")
	f.StringVar(&config, "config", "", "further keys of the plugin's configuration: a JSON object, or the path of a file with one")
	f.StringVar(&o.Kubeconfig, "kubeconfig", "", "a kubeconfig that is there already; by default one is written")
	f.StringVar(&o.APIServer, "api-server", apiServer(os.Getenv), "URL of the API server, for the kubeconfig")
	f.StringVar(&o.Credentials, "credentials", "/var/run/secrets/kubernetes.io/serviceaccount", "folder with the service account's token and ca.crt")
	f.StringVar(&o.NodeName, "node-name", os.Getenv("NODE_NAME"), "of the Node object, whose pod CIDRs Braid's own bridge gets; also NODE_NAME in the environment")
	f.StringSliceVar(&o.PodCIDRs, "pod-cidr", nil, "of this node, in place of those of the Node object")
	return cmd
}

// document returns a JSON document that is given as it is or by its path.
func document(s string) ([]byte, error) {
	if s == "" || strings.HasPrefix(strings.TrimSpace(s), "{") {
		return []byte(s), nil
	}
	return os.ReadFile(s)
}

// apiServer is where a pod of the cluster is told to find it.
func apiServer(getenv func(string) string) string {
	host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return ""
	}
	return "https://" + net.JoinHostPort(host, port)
}

func ownFolder() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	self, err = filepath.EvalSymlinks(self)
	return filepath.Dir(self), err
}

// A cluster answers the installer.
type cluster struct{ log *slog.Logger }

func (c cluster) PodCIDRs(ctx context.Context, kubeconfig, node string) ([]string, error) {
	r, err := kube.Open(kubeconfig, c.log)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cidrWait)
	defer cancel()
	return r.PodCIDRs(ctx, node)
}

func (c cluster) Runtime(ctx context.Context, kubeconfig, node string) (string, error) {
	r, err := kube.Open(kubeconfig, c.log)
	if err != nil {
		return "", err
	}
	return r.ContainerRuntime(ctx, node)
}

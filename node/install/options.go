// Package install puts Braid on a node and takes it away again: the binaries beside the other CNI plugins, a kubeconfig, and
// the configuration that the container runtime reads. [Guard] keeps the configuration in place while the daemon runs,
// [KeepCredentials] keeps the token fresh.
//
// Whatever moment the power goes, a file is there as it was or as it will be: each is written under another name that
// nothing reads, synced, and renamed. What was put on the node is noted in install.json of the plugin's cniDir, before it is
// done, so that [Uninstall] takes away that and no more, and restores what had to give way.
package install

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/braid-cni/braid/conf"
)

// What Options.ClusterNetwork can be besides a path.
const (
	Auto   = "auto"   // the first configuration of another CNI in ConfDir; Braid's own bridge while there is none
	Bridge = "bridge" // Braid's own bridge, with the pod CIDRs of the node
)

// AllPlugins in Options.Plugins stands for all of Braid's own.
const AllPlugins = "missing"

// ownPlugins are the names that the binary is a plugin under.
var ownPlugins = []string{"bridge", "dhcp", "host-local", "ipvlan", "loopback", "macvlan", "static"}

// Options say what is installed, and where. They are kept on the node, for [Guard] and [Uninstall]. Paths are absolute.
type Options struct {
	Source      string   `json:"source"`      // folder with braid, braidd and braid-shim
	BinDir      string   `json:"binDir"`      // where the runtime looks for plugins
	ConfDir     string   `json:"confDir"`     // where the runtime looks for configurations
	NetworksDir string   `json:"networksDir"` // the plugin's confDir, where Braid's own bridge is configured
	CNIDir      string   `json:"cniDir"`      // the plugin's cniDir
	Plugins     []string `json:"plugins"`     // own plugins that get a name of their own in BinDir unless the name is taken
	Overwrite   bool     `json:"overwrite"`   // names that are taken, too; what was there is kept for Uninstall
	Worker      bool     `json:"worker"`      // the daemon has a worker, to which the runtime's calls are handed over

	ClusterNetwork string          `json:"clusterNetwork"`   // Auto, Bridge, or the path of a configuration
	PrimaryWait    time.Duration   `json:"primaryWait"`      // how long the first install waits for another CNI, with Auto
	Name           string          `json:"name"`             // of the network as the runtime knows it; empty: as that of the primary
	Config         json.RawMessage `json:"config,omitempty"` // further keys of the plugin's configuration, an object

	// How the API server is reached. Kubeconfig names one that is there already; else one is written, for APIServer, and
	// the token and the certificate authority of the folder Credentials are copied beside it.
	Kubeconfig  string `json:"kubeconfig"`
	APIServer   string `json:"apiServer"`
	Credentials string `json:"credentials"`

	// For Braid's own bridge. Without PodCIDRs the API server is asked for those of the node.
	NodeName string   `json:"nodeName"`
	PodCIDRs []string `json:"podCIDRs"`
}

// ownKeys of the plugin's configuration are set by the installer.
var ownKeys = []string{
	"type", "name", "cniVersion", "clusterNetwork", "delegates", "kubeconfig", "manifests", "binDir", "confDir", "cniDir",
}

// validate names each option by its flag.
func (o *Options) validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, p := range []struct{ flag, path string }{
		{"source", o.Source}, {"bin-dir", o.BinDir}, {"conf-dir", o.ConfDir}, {"networks-dir", o.NetworksDir}, {"cni-dir", o.CNIDir},
	} {
		if !filepath.IsAbs(p.path) {
			bad("--%s: found %q, want an absolute path", p.flag, p.path)
		}
	}
	if o.NetworksDir == o.ConfDir {
		bad("--networks-dir: found the folder of --conf-dir, want another: the runtime must not read what is in it")
	}
	for _, name := range o.Plugins {
		if name != AllPlugins && !slices.Contains(ownPlugins, name) {
			bad("--plugins: found %q, want some of %s, or %s", name, strings.Join(ownPlugins, ", "), AllPlugins)
		}
	}
	if c := o.ClusterNetwork; c != Auto && c != Bridge && !filepath.IsAbs(c) {
		bad("--cluster-network: found %q, want %s, %s or an absolute path", c, Auto, Bridge)
	}
	if o.Kubeconfig != "" && !filepath.IsAbs(o.Kubeconfig) {
		bad("--kubeconfig: found %q, want an absolute path", o.Kubeconfig)
	}
	if o.Kubeconfig == "" {
		if u, err := url.Parse(o.APIServer); err != nil || u.Scheme != "https" || u.Host == "" {
			bad("--api-server: found %q, want a URL like https://10.96.0.1:443 (a pod of the cluster has it in its environment), or --kubeconfig", o.APIServer)
		}
	}
	for _, cidr := range o.PodCIDRs {
		if p, err := netip.ParsePrefix(cidr); err != nil || p.Masked() != p {
			bad("--pod-cidr: found %q, want a subnet like 10.244.0.0/24", cidr)
		}
	}
	if err := o.validateConfig(); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (o *Options) validateConfig() error {
	if len(o.Config) == 0 {
		return nil
	}
	if err := conf.CheckJSON(o.Config, conf.MaxNetwork); err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(o.Config, &keys); err != nil {
		return fmt.Errorf("--config: found %.80s, want a JSON object", o.Config)
	}
	for _, key := range ownKeys {
		if _, found := keys[key]; found {
			return fmt.Errorf("--config: found %q, which is set by the installer: see the other flags", key)
		}
	}
	return nil
}

// links returns the plugins that get a name of their own.
func (o *Options) links() []string {
	if slices.Contains(o.Plugins, AllPlugins) {
		return ownPlugins
	}
	return o.Plugins
}

// kubeconfigDir is beside the configurations, in a folder that runtimes do not look into.
func (o *Options) kubeconfigDir() string { return filepath.Join(o.ConfDir, "braid.d") }

// pluginType is the type of the configuration: what the runtime executes.
func (o *Options) pluginType() string {
	if o.Worker {
		return conf.ShimType
	}
	return conf.OwnType
}

// dirs are all folders that files are put in.
func (o *Options) dirs() []string {
	return []string{o.BinDir, o.ConfDir, o.kubeconfigDir(), o.NetworksDir}
}

func (o *Options) kubeconfig() string {
	if o.Kubeconfig != "" {
		return o.Kubeconfig
	}
	return filepath.Join(o.kubeconfigDir(), "kubeconfig")
}

// bridgeConf is the configuration of Braid's own bridge.
func (o *Options) bridgeConf() string { return filepath.Join(o.NetworksDir, "10-cluster.conflist") }

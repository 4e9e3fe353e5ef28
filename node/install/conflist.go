package install

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/braid-cni/braid/conf"
)

// A list is a CNI configuration list as it is written.
type list struct {
	CNIVersion  string   `json:"cniVersion"`
	CNIVersions []string `json:"cniVersions,omitempty"`
	Name        string   `json:"name"`
	// Plugins of a folder that has the network's name, which is the primary's, belong to the primary.
	LoadOnlyInlinedPlugins bool  `json:"loadOnlyInlinedPlugins,omitempty"`
	Plugins                []any `json:"plugins"`
}

// versions: a runtime that knows "cniVersions" takes the highest that it speaks, and sends STATUS and GC from 1.1.0 on. One
// that does not, like containerd 1.6, takes "cniVersion", which may be no more than it can read in the answer.
const baseVersion = "1.0.0"

var versions = []string{"0.4.0", "1.0.0", "1.1.0"}

// capabilities are what the runtime may pass; the default network gets what it declares itself.
var capabilities = map[string]bool{
	"portMappings": true, "bandwidth": true, "ips": true, "mac": true, "infinibandGUID": true, "deviceID": true,
	"CNIDeviceInfoFile": true, "io.kubernetes.cri.pod-annotations": true,
}

// compose returns the configuration of Braid, valid by the plugin's own rules and by those of a runtime.
func (s *state) compose() ([]byte, error) {
	plugin := map[string]any{
		"type":           s.Options.pluginType(),
		"capabilities":   capabilities,
		"kubeconfig":     s.Options.kubeconfig(),
		"clusterNetwork": s.Primary,
		"binDir":         s.Options.BinDir,
		"confDir":        s.Options.NetworksDir,
		"cniDir":         s.Options.CNIDir,
	}
	if s.Result != "" {
		plugin["result"] = s.Result
	}
	var extra map[string]json.RawMessage
	if len(s.Options.Config) > 0 {
		if err := json.Unmarshal(s.Options.Config, &extra); err != nil {
			return nil, err
		}
	}
	for key, value := range extra {
		plugin[key] = value
	}
	b, err := marshal(list{
		CNIVersion: baseVersion, CNIVersions: versions, Name: s.Network, LoadOnlyInlinedPlugins: true, Plugins: []any{plugin},
	})
	if err != nil {
		return nil, err
	}
	return b, validate(b)
}

func marshal(v any) ([]byte, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return append(b, '\n'), err
}

// validate reads a configuration as a runtime does, and each plugin of our type in it as the plugin does.
func validate(b []byte) error {
	n, err := conf.ParseNetwork(b, "")
	if err != nil {
		return err
	}
	for _, p := range n.Plugins {
		if !conf.IsOwnType(p.Type) {
			continue
		}
		injected, err := conf.With(p.Bytes, map[string]any{"name": n.Name, "cniVersion": n.CNIVersion})
		if err != nil {
			return err
		}
		c, err := conf.Parse(injected)
		if err != nil {
			return err
		}
		if err := c.CheckDefaultNetwork(); err != nil {
			return err
		}
	}
	return nil
}

// bridgeNetwork is the name of the network of Braid's own bridge.
const bridgeNetwork = "cluster"

// ownBridge is the bridge of that network.
const ownBridge = "braid0"

// composeBridge returns the configuration of Braid's own bridge for the pod CIDRs of the node.
func (o *Options) composeBridge(ctx context.Context, podCIDRs []string) ([]byte, error) {
	var ranges [][]map[string]string
	for _, cidr := range podCIDRs {
		p, err := netip.ParsePrefix(cidr)
		if err != nil {
			return nil, fmt.Errorf("pod CIDR %q: %w", cidr, err)
		}
		ranges = append(ranges, []map[string]string{{"subnet": p.Masked().String()}})
	}
	plugins := []any{map[string]any{
		"type": "bridge", "bridge": ownBridge, "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
		"ipam": map[string]any{"type": "host-local", "ranges": ranges},
	}}
	version := "1.1.0"
	if portmap := filepath.Join(o.BinDir, "portmap"); exists(portmap) {
		plugins = append(plugins, map[string]any{"type": "portmap", "snat": true, "capabilities": map[string]bool{"portMappings": true}})
		if !speaks(ctx, portmap, version) {
			version = baseVersion
		}
	}
	b, err := marshal(list{CNIVersion: version, Name: bridgeNetwork, LoadOnlyInlinedPlugins: true, Plugins: plugins})
	if err != nil {
		return nil, err
	}
	return b, validate(b)
}

// speaks asks a plugin for its versions. One that cannot be run here, for want of its libraries in a container, is taken
// for an old one.
func speaks(ctx context.Context, plugin, version string) bool {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, plugin)
	cmd.Env = append(os.Environ(), "CNI_COMMAND=VERSION")
	cmd.Stdin = bytes.NewReader([]byte(`{"cniVersion": "1.0.0"}`))
	out, err := cmd.Output()
	var answer struct {
		SupportedVersions []string `json:"supportedVersions"`
	}
	return err == nil && json.Unmarshal(out, &answer) == nil && slices.Contains(answer.SupportedVersions, version)
}

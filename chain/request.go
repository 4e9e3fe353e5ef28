package chain

import (
	"encoding/json"
	"fmt"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
)

// request derives what plugin i is asked (CNI specification, section 3, "Deriving request configuration from plugin
// configuration").
func (c *Chain) request(i int, at cni.Attachment, capabilities map[string]any, prev *types100.Result) (*cni.Request, error) {
	set := map[string]any{"runtimeConfig": runtimeConfig(c.links[i].conf, capabilities)}
	if prev != nil {
		b, err := cni.MarshalResult(prev, c.version)
		if err != nil {
			return nil, fmt.Errorf("plugin %s: pass on prevResult: %w", c.links[i].conf.Type, err)
		}
		set["prevResult"] = json.RawMessage(b)
	}
	config, err := c.derive(i, set)
	if err != nil {
		return nil, err
	}
	return &cni.Request{Attachment: at, Path: c.path, Config: config}, nil
}

// derive returns the configuration of plugin i with the keys that the runtime inserts. "capabilities: must not be
// set", and "All other fields not prefixed with cni.dev/ should be passed through unaltered."
func (c *Chain) derive(i int, set map[string]any) ([]byte, error) {
	if set == nil {
		set = make(map[string]any)
	}
	set["cniVersion"], set["name"], set["capabilities"] = c.version, c.network.Name, nil
	config, err := conf.With(c.links[i].conf.Bytes, set)
	if err != nil {
		return nil, fmt.Errorf("plugin %s: derive configuration: %w", c.links[i].conf.Type, err)
	}
	return config, nil
}

// runtimeConfig returns what was requested and the plugin takes: "the runtime must insert an object consisting of the
// union of capabilities provided by the plugin and requested by the runtime" (by union the intersection is meant). It
// is nil, so that no key is set, if there is nothing.
func runtimeConfig(p *conf.Plugin, requested map[string]any) any {
	taken := make(map[string]any)
	for name, value := range requested {
		if p.Capabilities[name] {
			taken[name] = value
		}
	}
	if len(taken) == 0 {
		return nil
	}
	return taken
}

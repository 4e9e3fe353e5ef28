package chain

import (
	"encoding/json"
	"fmt"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/internal/memo"
)

// request derives what plugin i is asked (CNI specification, section 3, "Deriving request configuration from plugin
// configuration").
func (c *Chain) request(i int, at cni.Attachment, capabilities map[string]any, prev *types100.Result) (*cni.Request, error) {
	common, err := c.common(i)
	if err != nil {
		return nil, err
	}
	config := []byte(common)
	if prev != nil {
		b, err := cni.MarshalResult(prev, c.version)
		if err != nil {
			return nil, fmt.Errorf("plugin %s: pass on prevResult: %w", c.links[i].conf.Type, err)
		}
		if config, err = conf.Append(config, "prevResult", json.RawMessage(b)); err != nil {
			return nil, err
		}
	}
	if taken := runtimeConfig(c.links[i].conf, capabilities); taken != nil {
		if config, err = conf.Append(config, "runtimeConfig", taken); err != nil {
			return nil, fmt.Errorf("plugin %s: derive configuration: %w", c.links[i].conf.Type, err)
		}
	}
	return &cni.Request{Attachment: at, Path: c.path, Config: config, Common: cni.Common{Text: common, Memory: c.memory}}, nil
}

// common is the configuration of plugin i for every attachment.
func (c *Chain) common(i int) (string, error) {
	p := c.links[i].conf
	return memo.Of(c.memory, derived{string(p.Bytes), c.version, c.network.Name}, len(p.Bytes), func() (string, error) {
		b, err := c.derive(i, map[string]any{"prevResult": nil, "runtimeConfig": nil})
		return string(b), err
	})
}

// derived is what common goes by.
type derived struct{ plugin, version, name string }

// derive returns the configuration of plugin i with the keys that the runtime inserts. "capabilities: must not be
// set", and "All other fields not prefixed with cni.dev/ should be passed through unaltered."
func (c *Chain) derive(i int, set map[string]any) ([]byte, error) {
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
func runtimeConfig(p *conf.Plugin, requested map[string]any) (taken map[string]any) {
	for name, value := range requested {
		if !p.Capabilities[name] {
			continue
		}
		if taken == nil {
			taken = make(map[string]any)
		}
		taken[name] = value
	}
	return taken
}

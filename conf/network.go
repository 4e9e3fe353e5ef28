package conf

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/internal/memo"
)

// A Network is a CNI network configuration: always a list of plugins, a lone plugin is a list of one. It is immutable;
// what changes it returns a copy. As JSON it is a CNI configuration list, and comes back from it as it was.
type Network struct {
	CNIVersion             string   `json:"cniVersion"` // the highest that the configuration offers and Braid supports
	Name                   string   `json:"name"`
	DisableCheck           bool     `json:"disableCheck,omitempty"`
	DisableGC              bool     `json:"disableGC,omitempty"`
	LoadOnlyInlinedPlugins bool     `json:"loadOnlyInlinedPlugins,omitempty"`
	Plugins                []Plugin `json:"plugins"` // at least one
}

// A Plugin is one plugin configuration object of a network. Bytes are the truth, the other fields are read from them.
type Plugin struct {
	Type         string
	Capabilities map[string]bool
	IPAM         string          // type of the address plugin, empty if the configuration names none
	ParentInPod  bool            // "linkInContainer": it looks for the parent of its interface in the pod; also if that is no boolean
	Bytes        json.RawMessage // as written, without the keys that only a runtime may set
}

// MarshalJSON returns Bytes.
func (p Plugin) MarshalJSON() ([]byte, error) { return p.Bytes, nil }

// ParseNetwork decodes the configuration of a network, as a plugin or as a list of plugins. DefaultName is taken if the
// configuration has no name:
//
// "the CNI Delegating Plugin shall add a 'name' field containing the NetworkAttachmentDefinition object's name to the
// CNI JSON before sending that CNI JSON configuration to a delegate plugin"
//
// The input may be hostile. Errors are of type *types.Error: code 6 if the input is no JSON object, 1 if it offers no
// supported CNI version, else 7, with all complaints at once.
func ParseNetwork(b []byte, defaultName string) (*Network, error) {
	if err := CheckJSON(b, MaxNetwork); err != nil {
		return nil, decodingError("network configuration", err)
	}
	return newNetwork(b, Network{Name: defaultName}, nil)
}

// ParseList is [ParseNetwork] for a configuration list that lies in a file: load returns the plugins in the folder that
// has the network's name, in their order, each a document that [CheckJSON] accepts. It is not called if the list has
// "loadOnlyInlinedPlugins".
//
// "Any valid plugin configuration objects aggregated from other sources must be appended to the final list of `plugins`
// for that network name."
func ParseList(b []byte, load func(name string) ([]json.RawMessage, error)) (*Network, error) {
	if err := CheckJSON(b, MaxNetwork); err != nil {
		return nil, decodingError("network configuration", err)
	}
	return newNetwork(b, Network{}, load)
}

// ParseNetworkWith is [ParseNetwork] of a text, with a memory.
func ParseNetworkWith(m *memo.Memory, text, defaultName string) (*Network, error) {
	return memo.Of(m, networkText{text, defaultName}, len(text), func() (*Network, error) {
		return ParseNetwork([]byte(text), defaultName)
	})
}

type networkText struct{ text, defaultName string }

// UnmarshalJSON decodes what MarshalJSON encoded.
func (n *Network) UnmarshalJSON(b []byte) error {
	if err := checkKeys(b); err != nil {
		return decodingError("network configuration", err)
	}
	parsed, err := newNetwork(b, Network{}, nil)
	if err != nil {
		return err
	}
	*n = *parsed
	return nil
}

// UnmarshalNetwork is UnmarshalJSON with a memory.
func UnmarshalNetwork(m *memo.Memory, b []byte) (*Network, error) {
	return memo.Of(m, networkDocument(b), len(b), func() (*Network, error) {
		n := new(Network)
		return n, n.UnmarshalJSON(b)
	})
}

type networkDocument string

// Supports reports whether a plugin of the network declares the capability.
//
// "must verify that at least one plugin in the attachment list supports the "ips" capability"
func (n *Network) Supports(capability string) bool {
	return slices.ContainsFunc(n.Plugins, func(p Plugin) bool { return p.Capabilities[capability] })
}

// WithCNIArgs returns a copy of the network in which args.cni of every plugin has the given keys. Where the
// configuration has them too, the given win:
//
// "the implementation must combine the values from the following sources in the following priority order"
func (n *Network) WithCNIArgs(args map[string]json.RawMessage) (*Network, error) {
	if len(args) == 0 {
		return n, nil
	}
	set := make(map[string]any, len(args))
	for key, value := range args {
		set[key] = value
	}
	c := *n
	c.Plugins = slices.Clone(n.Plugins)
	for i := range c.Plugins {
		p := &c.Plugins[i]
		var err error
		if p.Bytes, err = withCNIArgs(p.Bytes, set); err != nil {
			return nil, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("network %s: plugin %s: %v", n.Name, p.Type, err), "")
		}
	}
	return &c, nil
}

// WithDevice returns a copy of the network in which every plugin is told a device by the keys "deviceID" and "pciBusID",
// one of which every plugin for devices reads. What the configuration has there gives way.
func (n *Network) WithDevice(id string) (*Network, error) {
	c := *n
	c.Plugins = slices.Clone(n.Plugins)
	for i := range c.Plugins {
		p := &c.Plugins[i]
		var err error
		if p.Bytes, err = With(p.Bytes, map[string]any{"deviceID": id, "pciBusID": id}); err != nil {
			return nil, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("network %s: plugin %s: %v", n.Name, p.Type, err), "")
		}
	}
	return &c, nil
}

func withCNIArgs(plugin json.RawMessage, set map[string]any) (json.RawMessage, error) {
	args, err := memberObject(plugin, "args")
	if err != nil {
		return nil, err
	}
	cniArgs, err := memberObject(args, "cni")
	if err != nil {
		return nil, fmt.Errorf("args: %w", err)
	}
	if cniArgs, err = With(cniArgs, set); err != nil {
		return nil, err
	}
	if args, err = With(args, map[string]any{"cni": json.RawMessage(cniArgs)}); err != nil {
		return nil, err
	}
	return With(plugin, map[string]any{"args": json.RawMessage(args)})
}

// memberObject returns the object that is the value of a key, an empty one if there is none.
func memberObject(of []byte, key string) ([]byte, error) {
	var c complaints
	o, _ := openObject(of, "", &c)
	raw, ok := o.raw(key)
	if !ok {
		return []byte("{}"), nil
	}
	if _, err := membersOf(raw); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return raw, nil
}

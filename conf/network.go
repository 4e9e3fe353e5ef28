package conf

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
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

// A loader returns the plugins of the folder that has a network's name.
type loader = func(name string) ([]json.RawMessage, error)

func newNetwork(b []byte, defaults Network, load loader) (*Network, error) {
	var c complaints
	n := parseNetwork(b, "", defaults, load, &c)
	if err := c.err("network configuration"); err != nil {
		return nil, err
	}
	return n, nil
}

// parseNetwork decodes a network whose JSON is known to be sound. Name and CNIVersion are taken from defaults where the
// configuration has none. Load may be nil.
func parseNetwork(b []byte, path string, defaults Network, load loader, c *complaints) *Network {
	n := &defaults
	o, ok := openObject(b, path, c)
	if !ok {
		c.code = types.ErrDecodingFailure
		return n
	}
	o.readVersion(&n.CNIVersion)
	o.readName("name", &n.Name, isNetworkName, wantNetwork)
	_, single := o.raw("type")
	_, list := o.raw("plugins")
	switch {
	case single && list:
		c.addf(path, `found both "type" and "plugins", want one: `+wantPlugins)
	case single:
		n.Plugins = []Plugin{parsePlugin(b, path, c)}
	default:
		o.readList(n, load)
	}
	o.misspelt()
	return n
}

const wantPlugins = `"type" in the configuration of a plugin, "plugins" in a list of them`

// readVersion selects the CNI version.
//
// "CNI runtimes MUST select the highest supported version from the set of network configuration versions given by the
// `cniVersion` and `cniVersions` fields."
func (o *object) readVersion(selected *string) {
	var single string
	var offered []string
	o.read("cniVersion", &single, "a string")
	o.read("cniVersions", &offered, "a list of strings")
	if single != "" {
		offered = append(offered, single)
	}
	if len(offered) == 0 {
		if *selected == "" {
			*selected = "0.1.0" // what a plugin takes an absent version for
		}
		return
	}
	supported := version.All.SupportedVersions()
	for _, v := range slices.Backward(supported) {
		if slices.Contains(offered, v) {
			*selected = v
			return
		}
	}
	o.complaints.code = types.ErrIncompatibleCNIVersion
	o.mismatch(o.path+"cniVersion", strings.Join(offered, ", "), "one of "+strings.Join(supported, ", "))
}

// readList reads the keys that only a list has.
func (o *object) readList(n *Network, load loader) {
	n.DisableCheck = o.readBool("disableCheck")
	n.DisableGC = o.readBool("disableGC")
	n.LoadOnlyInlinedPlugins = o.readBool("loadOnlyInlinedPlugins")

	var plugins []json.RawMessage
	_, list := o.raw("plugins")
	if list && (!o.read("plugins", &plugins, "a list of plugin configurations") || len(plugins) == 0) {
		if plugins != nil {
			o.addf(o.path+"plugins", "found an empty list, want one plugin at least")
		}
		return
	}
	if !list && n.LoadOnlyInlinedPlugins {
		// "If `plugins` is not present in the network configuration, `loadOnlyInlinedPlugins` cannot be set to `true`."
		o.addf(o.path+"loadOnlyInlinedPlugins", `found true, want false, or a key "plugins"`)
		return
	}
	if load != nil && !n.LoadOnlyInlinedPlugins && isNetworkName(n.Name) {
		loaded, err := load(n.Name)
		if err != nil {
			o.addf("", "%v", err)
			return
		}
		plugins = append(plugins, loaded...)
	}
	o.parsePlugins(n, plugins)
}

func (o *object) parsePlugins(n *Network, plugins []json.RawMessage) {
	switch {
	case len(plugins) == 0:
		o.addf(strings.TrimSuffix(o.path, "."), `found neither "type" nor "plugins", want one: `+wantPlugins)
	case len(plugins) > maxPlugins:
		o.addf(o.path+"plugins", "found %d, want %d at most", len(plugins), maxPlugins)
		return
	}
	for i, p := range plugins {
		n.Plugins = append(n.Plugins, parsePlugin(p, fmt.Sprintf("%splugins[%d]", o.path, i), o.complaints))
	}
}

// readBool takes "true" and "false" for what they mean, as earlier versions of the specification did.
func (o *object) readBool(key string) (b bool) {
	var s string
	raw, _ := o.raw(key)
	if json.Unmarshal(raw, &s) == nil {
		raw = json.RawMessage(strings.ToLower(s))
	}
	if len(raw) > 0 && json.Unmarshal(raw, &b) != nil {
		o.mismatch(o.path+key, raw, "true or false")
	}
	return b
}

// parsePlugin decodes one plugin configuration object.
func parsePlugin(b json.RawMessage, path string, c *complaints) (p Plugin) {
	o, ok := openObject(b, path, c)
	if !ok {
		return p
	}
	o.readName("type", &p.Type, isFileName, wantType)
	o.read("capabilities", &p.Capabilities, `an object of true and false, like {"ips": true}`)
	if ipam, ok := o.raw("ipam"); ok {
		p.IPAM = readIPAM(ipam, o.path+"ipam", c)
	}
	o.misspelt()
	p.Bytes = withoutReserved(b, o.members)
	return p
}

// readIPAM returns the type of the address plugin. An empty one counts as none, as the reference plugins have it.
//
// "Refers to the filename of the IPAM plugin executable. Must not contain characters disallowed in file paths"
func readIPAM(b json.RawMessage, path string, c *complaints) (pluginType string) {
	o, _ := openObject(b, path, c)
	if o.read("type", &pluginType, wantType) && pluginType != "" && !isFileName(pluginType) {
		o.mismatch(o.path+"type", pluginType, wantType)
	}
	o.misspelt()
	return pluginType
}

// withoutReserved removes the keys that only a runtime may set. A tenant could forge them in a
// NetworkAttachmentDefinition.
//
// "These keys are generated by the runtime at execution time, and thus should not be used in configuration."
// "prevResult: [...] This field must not be set for the first _add_ in a chain."
//
// "args" is kept: the Network CRD standard merges the arguments of a selection into it.
func withoutReserved(b json.RawMessage, members []member) json.RawMessage {
	kept := slices.DeleteFunc(slices.Clone(members), func(m member) bool { return isReserved(m.key) })
	if len(kept) == len(members) {
		return b
	}
	b, _ = writeObject(kept) // of members that were read
	return b
}

func isReserved(key string) bool {
	key = fold(key)
	return key == "runtimeconfig" || key == "prevresult" || strings.HasPrefix(key, "cni.dev/")
}

package conf

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

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
		n.Plugins = []Plugin{o.plugin(b)}
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
	if o, ok := openObject(b, path, c); ok {
		p = o.plugin(b)
	}
	return p
}

// plugin decodes the object, which was read from b, as that of a plugin.
func (o *object) plugin(b json.RawMessage) (p Plugin) {
	o = &object{path: o.path, members: o.members, complaints: o.complaints}
	o.readName("type", &p.Type, isFileName, wantType)
	o.read("capabilities", &p.Capabilities, `an object of true and false, like {"ips": true}`)
	if ipam, ok := o.raw("ipam"); ok {
		p.IPAM = readIPAM(ipam, o.path+"ipam", o.complaints)
	}
	o.misspelt()
	p.ParentInPod = slices.ContainsFunc(o.members, func(m member) bool {
		return fold(m.key) == "linkincontainer" && string(m.value) != "false" && string(m.value) != "null"
	})
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

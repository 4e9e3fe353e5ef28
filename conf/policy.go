package conf

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/braid-cni/braid/internal/memo"
)

// A Policy says what a NetworkAttachmentDefinition may be, by its namespace: whoever can create one there writes the
// configuration of plugins that run as root on the node. The first rule counts whose Namespaces match; where none does,
// [DefaultRule]. The operator's own networks, in files and in the plugin's configuration, are free; who may use those in
// files is said by Files.
type Policy []Rule

// A Rule lists what is allowed, as patterns of [filepath.Match]. A nil list allows what DefaultRule has in its place, an
// empty one allows nothing.
type Rule struct {
	Name       string   // for messages
	Namespaces []string // of the NetworkAttachmentDefinitions that it is for

	Pods    []string // namespaces of the pods that may use them
	Names   []string // of the networks, by which plugins keep reservations: values of "name"
	Types   []string // plugin types, those of address plugins too
	Masters []string // parents: the values of "master", "device", and of other keys by which a plugin finds one
	Bridges []string // values of "bridge"
	Sysctls []string // keys of "sysctl", with dots
	Keys    []string // of those that are refused otherwise, see nodeKeys
	CNIArgs []string // keys of "cni-args" that pods may give

	// Subnets are those that addresses have to be in: of ranges, of a static configuration, and those that a pod asks for.
	Subnets []netip.Prefix

	// Paths are folders and files of the node that a configuration may name, with all that lies below them.
	Paths []string

	// Files are the names of networks in the configuration folder that a NetworkAttachmentDefinition may stand for by having
	// no configuration. Nil allows none, or all in a namespace that the operator has drawn no line around.
	Files []string

	// HostPorts are the ports of the node that pods may redirect to themselves.
	HostPorts []PortRange

	// AnyDevice: pods may ask for devices that the kubelet has not allocated to them.
	AnyDevice bool

	// DefaultNetwork: pods may choose one of these networks for their default network, and so leave the cluster's.
	DefaultNetwork bool

	namesBridges bool // Bridges are the operator's word, and no default

	// Of one check.
	entry    string   // the type of the plugin itself, which would take a tenant's networks for the operator's
	reserved []string // bridges of the operator's networks
}

// DefaultRule is for namespaces that the operator has no rule for. A tenant chooses no path on the node, no kernel
// setting beyond the pod's own network, and none of the ports that the node itself lives by.
var DefaultRule = Rule{
	Name:           "default",
	Pods:           []string{"*"},
	Names:          []string{"*"},
	Types:          []string{"*"},
	Masters:        []string{"*"},
	Bridges:        []string{"*"},
	Sysctls:        []string{"net.*"},
	Keys:           []string{},
	CNIArgs:        []string{"*"},
	Subnets:        []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)},
	Paths:          []string{},
	HostPorts:      defaultHostPorts,
	DefaultNetwork: true,
}

// readPolicy reads the key "policy".
func (c *Config) readPolicy(o *object) {
	var rules []json.RawMessage
	if !o.read("policy", &rules, "a list of rules") {
		return
	}
	for i, raw := range rules {
		c.Policy = append(c.Policy, readRule(raw, fmt.Sprintf("policy[%d]", i), o.complaints))
	}
}

func readRule(raw json.RawMessage, at string, c *complaints) Rule {
	r := DefaultRule
	r.Name = at
	o, _ := openObject(raw, at, c)
	o.readName("name", &r.Name, func(s string) bool { return s != "" }, "a name for messages")
	if _, found := o.raw("namespaces"); !found {
		o.addf(at+".namespaces", `missing, want a list like ["team-*"]`)
	}
	for _, list := range []struct {
		key  string
		into *[]string
	}{
		{"namespaces", &r.Namespaces}, {"pods", &r.Pods}, {"names", &r.Names}, {"types", &r.Types}, {"masters", &r.Masters},
		{"bridges", &r.Bridges}, {"sysctls", &r.Sysctls}, {"keys", &r.Keys}, {"cniArgs", &r.CNIArgs}, {"files", &r.Files},
	} {
		o.readNames(list.key, list.into, isPattern, "a name in which * stands for anything")
	}
	_, r.namesBridges = o.raw("bridges")
	isCleanPath := func(s string) bool { return filepath.IsAbs(s) && filepath.Clean(s) == s }
	o.readNames("paths", &r.Paths, isCleanPath, "an absolute path without . and ..")
	if subnets, found := o.readPrefixes("subnets"); found {
		r.Subnets = subnets
	}
	if ports, found := o.readPortRanges("hostPorts"); found {
		r.HostPorts = ports
	}
	const wantDevices = `"allocated", what the kubelet has allocated to the pod, or "any"`
	devices := "allocated"
	o.readOptional("deviceIDs", &devices, func(s string) bool { return s == "allocated" || s == "any" }, wantDevices)
	r.AnyDevice = devices == "any"
	if _, found := o.raw("defaultNetwork"); found {
		r.DefaultNetwork = o.readBool("defaultNetwork")
	}
	o.unknown("")
	return r
}

func isPattern(s string) bool {
	_, err := filepath.Match(s, "")
	return s != "" && err == nil
}

// rule returns the one for NetworkAttachmentDefinitions of a namespace.
func (p Policy) rule(namespace string) *Rule {
	for i := range p {
		if allowed(p[i].Namespaces, namespace) {
			return &p[i]
		}
	}
	return &DefaultRule
}

// AllowsAnyDevice tells if a pod may ask for any device on networks of a namespace, whether or not the kubelet has
// allocated it to the pod.
func (p Policy) AllowsAnyDevice(namespace string) bool { return p.rule(namespace).AnyDevice }

// A Use is what a pod makes of a NetworkAttachmentDefinition.
type Use struct {
	Namespace string // of the NetworkAttachmentDefinition
	Pod       string // namespace of the pod
	Default   bool   // it is the pod's default network
	HostPorts []PortMapping
	IPs       []string // addresses that the pod asks for
	CNIArgs   []string // keys that the pod gives
	Bridges   []string // of the operator's networks: no tenant's, unless the rule says which bridges are
}

// CheckPolicy returns an error, code 7, if the operator's policy does not let a pod use a network in this way. FromFile says
// that the NetworkAttachmentDefinition has no configuration, so that the network is the one of its name in the configuration
// folder. The error names the rule, and everything that the rule refuses.
func (c *Config) CheckPolicy(u Use, n *Network, fromFile bool) error {
	r := c.Policy.rule(u.Namespace)
	var bad complaints
	if !allowed(r.Pods, u.Pod) {
		bad.addf("", "pods of namespace %s must not use it, want %s", quote(u.Pod), want(r.Pods))
	}
	if u.Default && !r.DefaultNetwork {
		bad.addf("", "pods must not have it as their default network")
	}
	r.checkHostPorts(u.HostPorts, &bad)
	for i, ip := range u.IPs {
		r.checkSubnet(fmt.Sprintf("ips[%d]", i), ip, &bad)
	}
	for _, key := range u.CNIArgs {
		if !slices.ContainsFunc(r.CNIArgs, func(pattern string) bool { return allowed([]string{fold(pattern)}, fold(key)) }) {
			bad.mismatch("cni-args", key, want(r.CNIArgs))
		}
	}
	if fromFile {
		files := c.files(r, u.Namespace)
		if !allowed(files, n.Name) {
			bad.addf("", "a NetworkAttachmentDefinition without spec.config must not stand for the file of network %s, want %s; "+
				`give it a configuration, or have the operator allow the name under "files"`, quote(n.Name), want(files))
		}
	} else {
		c.checkNetwork(r, u, n, &bad)
	}
	return bad.refusal(r)
}

// checkNetwork looks at the configuration that a tenant wrote, unless it is known to have nothing wrong.
func (c *Config) checkNetwork(r *Rule, u Use, n *Network, bad *complaints) {
	own := *r
	if own.entry = c.Type; !r.namesBridges {
		own.reserved = u.Bridges
	}
	check := func() (struct{}, error) {
		var found complaints
		own.checkNetwork(n, &found)
		bad.list = append(bad.list, found.list...)
		return struct{}{}, found.err("")
	}
	memory := c.Memory
	if len(u.CNIArgs) > 0 {
		memory = nil // the network is this pod's alone
	}
	_, _ = memo.Of(memory, allowedNetwork{r, c.Type, fmt.Sprintf("%q", own.reserved), n}, n.size(), check)
}

// An allowedNetwork is what [Rule.checkNetwork] goes by. Rule and network are immutable, and known by where they are: that
// is nobody else's place as long as they are remembered here.
type allowedNetwork struct {
	rule            *Rule
	entry, reserved string
	network         *Network
}

// size is how long the texts are that a network holds.
func (n *Network) size() (size int) {
	for _, p := range n.Plugins {
		size += len(p.Bytes)
	}
	return size
}

// files returns the networks of the configuration folder that a namespace's NetworkAttachmentDefinitions may stand for.
// The standard has it that they can, and no tenant becomes root by it: the operator wrote the file. But a network that is
// there for some is not there for all. So the standard holds until the operator draws a line, by a rule or by
// namespaceIsolation; from then on, what is not said is for the operator's own namespaces only.
func (c *Config) files(r *Rule, namespace string) []string {
	switch {
	case r.Files != nil:
		return r.Files
	case r == &DefaultRule && !c.NamespaceIsolation,
		namespace == c.NetworkNamespace, slices.Contains(c.GlobalNamespaces, namespace):
		return []string{"*"}
	}
	return nil
}

// allowed tells if a pattern matches the name.
func allowed(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		ok, err := filepath.Match(pattern, name)
		return err == nil && ok
	})
}

func want(patterns []string) string {
	if len(patterns) == 0 {
		return "nothing: the rule allows none"
	}
	return "one of " + strings.Join(patterns, ", ")
}

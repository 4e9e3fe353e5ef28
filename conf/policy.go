package conf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// A Policy says what a NetworkAttachmentDefinition may be, by its namespace: whoever can create one there writes the
// configuration of plugins that run as root on the node. The first rule counts whose Namespaces match; where none does,
// [DefaultRule]. The operator's own networks, in files and in the plugin's configuration, are free.
type Policy []Rule

// A Rule lists what is allowed, as patterns of [filepath.Match]. A nil list allows what DefaultRule has in its place, an
// empty one allows nothing.
type Rule struct {
	Name       string   // for messages
	Namespaces []string // of the NetworkAttachmentDefinitions that it is for

	Pods    []string // namespaces of the pods that may use them
	Types   []string // plugin types, those of address plugins too
	Masters []string // parents: the values of "master", "device", and of other keys by which a plugin finds one
	Bridges []string // values of "bridge"
	Sysctls []string // keys of "sysctl", with dots

	// Paths are folders and files of the node that a configuration may name, with all that lies below them.
	Paths []string

	// AnyDevice: pods may ask for devices that the kubelet has not allocated to them.
	AnyDevice bool

	// DefaultNetwork: pods may choose one of these networks for their default network, and so leave the cluster's.
	DefaultNetwork bool
}

// DefaultRule is for namespaces that the operator has no rule for. A tenant chooses no path on the node and no kernel
// setting beyond the pod's own network.
var DefaultRule = Rule{
	Name:           "default",
	Pods:           []string{"*"},
	Types:          []string{"*"},
	Masters:        []string{"*"},
	Bridges:        []string{"*"},
	Sysctls:        []string{"net.*"},
	Paths:          []string{},
	DefaultNetwork: true,
}

// defaultPaths are what plugins use if a configuration names no path, so naming them chooses nothing.
var defaultPaths = []string{"/var/lib/cni/networks", "/run/cni/dhcp.sock"}

// Keys are folded: plugins that are written in Go do not tell "dataDir" from "DATADIR".
var (
	// pathKeys have values that are paths, whatever they look like.
	pathKeys = []string{
		"datadir", "resolvconf", "daemonsocketpath", "kubeconfig", "confdir", "bindir", "cnidir", "configuration_path",
		"logfile", "log_file", "socketfile", "socket_file",
	}
	// pathSuffixes are those of keys whose values are paths if there is a slash in them.
	pathSuffixes = []string{"file", "path", "dir", "directory", "folder", "socket"}
	// parentKeys have values by which a plugin finds an interface, or a device, of the node: macvlan, ipvlan and vlan, then
	// host-device, then sriov.
	parentKeys = []string{"master", "device", "hwaddr", "kernelpath", "pcibusid", "deviceid"}
)

var (
	// parentPlugins are the types that look for a parent by themselves if the configuration names none.
	parentPlugins = []string{"macvlan", "ipvlan"}
	// inPodPlugins are the types that look for the parent in the pod if the configuration says "linkInContainer".
	inPodPlugins = []string{"macvlan", "ipvlan", "vlan"}
	// MetaPlugins attach pods to several networks themselves, which they look up by names that no rule knows.
	MetaPlugins = []string{"braid", "multus", "multus-shim", "danm", "genie"}
)

// defaultBridge is that of the plugin bridge.
const defaultBridge = "cni0"

// readPolicy reads the key "policy".
func (c *Config) readPolicy(o *object) {
	var rules []json.RawMessage
	if !o.read("policy", &rules, "a list of rules") {
		return
	}
	for i, raw := range rules {
		at := fmt.Sprintf("policy[%d]", i)
		r := DefaultRule
		r.Name = at
		rule, _ := openObject(raw, at, o.complaints)
		rule.readName("name", &r.Name, func(s string) bool { return s != "" }, "a name for messages")
		if _, found := rule.raw("namespaces"); !found {
			rule.addf(at+".namespaces", `missing, want a list like ["team-*"]`)
		}
		for _, list := range []struct {
			key  string
			into *[]string
		}{
			{"namespaces", &r.Namespaces}, {"pods", &r.Pods}, {"types", &r.Types}, {"masters", &r.Masters}, {"bridges", &r.Bridges}, {"sysctls", &r.Sysctls},
		} {
			rule.readNames(list.key, list.into, isPattern, "a name in which * stands for anything")
		}
		isCleanPath := func(s string) bool { return filepath.IsAbs(s) && filepath.Clean(s) == s }
		rule.readNames("paths", &r.Paths, isCleanPath, "an absolute path without . and ..")
		const wantDevices = `"allocated", what the kubelet has allocated to the pod, or "any"`
		devices := "allocated"
		rule.readOptional("deviceIDs", &devices, func(s string) bool { return s == "allocated" || s == "any" }, wantDevices)
		r.AnyDevice = devices == "any"
		if _, found := rule.raw("defaultNetwork"); found {
			r.DefaultNetwork = rule.readBool("defaultNetwork")
		}
		rule.unknown("")
		c.Policy = append(c.Policy, r)
	}
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

// Check returns an error, code 7, if pods of a namespace may not use the network that a NetworkAttachmentDefinition of
// another, or the same, describes. It names the rule, and everything that the rule refuses.
func (p Policy) Check(namespace, podNamespace string, isDefault bool, n *Network) error {
	r := p.rule(namespace)
	var bad complaints
	if !allowed(r.Pods, podNamespace) {
		bad.addf("", "pods of namespace %s must not use it; %s", quote(podNamespace), want(r.Pods))
	}
	if isDefault && !r.DefaultNetwork {
		bad.addf("", "pods must not have it as their default network")
	}
	for i := range n.Plugins {
		at := ""
		if len(n.Plugins) > 1 {
			at = fmt.Sprintf("plugins[%d].", i)
		}
		r.checkObject(n.Plugins[i].Bytes, at, &bad)
	}
	if len(bad.list) == 0 {
		return nil
	}
	err := bad.err("network")
	if e, ok := errors.AsType[*types.Error](err); ok {
		e.Msg = fmt.Sprintf("policy rule %q does not allow it: %s", r.Name, strings.TrimPrefix(e.Msg, "invalid network: "))
	}
	return err
}

// checkObject looks at an object of a configuration: that of a plugin, or one within, since there are plugins that hand
// objects of their configuration to others. What is no configuration of a plugin has to keep to the same words.
func (r *Rule) checkObject(object json.RawMessage, at string, bad *complaints) {
	members, err := membersOf(object)
	if err != nil {
		bad.addf(strings.TrimSuffix(at, "."), "%v", err)
		return
	}
	o := objectOf(members)
	switch {
	case slices.Contains(parentPlugins, o.pluginType) && !o.inPod && !o.hasParent && !allowed(r.Masters, ""):
		bad.addf(at+"master", "missing, %s", want(r.Masters))
	case o.pluginType == "bridge" && !o.hasBridge && !allowed(r.Bridges, defaultBridge):
		bad.mismatch(at+"bridge", defaultBridge, want(r.Bridges))
	}
	for _, m := range members {
		key, at := fold(m.key), at+printable(m.key)
		value, isString := stringOf(m.value)
		switch {
		case key == "type" && isString:
			r.checkType(at, value, bad)
		case key == "bridge" && isString && value != "" && !allowed(r.Bridges, value):
			bad.mismatch(at, value, want(r.Bridges))
		case key == "sysctl":
			r.checkSysctls(at, m.value, bad)
		case key == "links" && !o.linksInPod:
			r.checkLinks(at, m.value, bad)
		case slices.Contains(parentKeys, key) && !(key == "master" && o.inPod) && isSet(m.value) && !allowed(r.Masters, value):
			bad.mismatch(at, m.value, want(r.Masters))
		}
		r.checkValue(key, m.value, at, bad)
	}
}

// A pluginObject is what an object of a configuration says about a plugin, if it is one's.
type pluginObject struct {
	pluginType           string
	hasParent, hasBridge bool
	inPod                bool // the parent is the pod's own
	linksInPod           bool // and so are those of bond
}

func objectOf(members []member) (o pluginObject) {
	for _, m := range members {
		switch fold(m.key) {
		case "type":
			o.pluginType, _ = stringOf(m.value)
		case "master":
			o.hasParent = isSet(m.value)
		case "bridge":
			o.hasBridge = isSet(m.value)
		case "linkincontainer":
			o.inPod = string(m.value) == "true"
		case "linksincontainer":
			o.linksInPod = string(m.value) == "true"
		}
	}
	// Others do not know the keys, and look for parents on the node.
	o.inPod = o.inPod && slices.Contains(inPodPlugins, o.pluginType)
	o.linksInPod = o.linksInPod && o.pluginType == "bond"
	return o
}

// isSet tells if plugins take the value for one: it is neither null nor the empty string.
func isSet(value json.RawMessage) bool { return string(value) != "null" && string(value) != `""` }

// stringOf returns the value if it is a string.
func stringOf(value json.RawMessage) (s string, ok bool) {
	ok = bytes.HasPrefix(value, []byte(`"`)) && json.Unmarshal(value, &s) == nil
	return s, ok
}

func (r *Rule) checkType(at, pluginType string, bad *complaints) {
	switch {
	case pluginType == "": // of an address plugin: there is none
	case !allowed(r.Types, pluginType):
		bad.mismatch(at, pluginType, want(r.Types))
	case slices.Contains(MetaPlugins, pluginType) && !slices.Contains(r.Types, pluginType):
		bad.mismatch(at, pluginType, "a plugin that attaches pods to one network: the operator has to allow this one by its whole name under \"types\"")
	}
}

// checkLinks looks at the parents of bond, a list of objects with the key "name".
func (r *Rule) checkLinks(at string, value json.RawMessage, bad *complaints) {
	var links []struct{ Name string }
	_ = json.Unmarshal(value, &links) // a value of another type is for the plugin to complain about
	for i, link := range links {
		if !allowed(r.Masters, link.Name) {
			bad.mismatch(fmt.Sprintf("%s[%d].name", at, i), link.Name, want(r.Masters))
		}
	}
}

func (r *Rule) checkSysctls(at string, value json.RawMessage, bad *complaints) {
	var sysctls map[string]json.RawMessage
	_ = json.Unmarshal(value, &sysctls)
	for _, key := range slices.Sorted(maps.Keys(sysctls)) {
		name := strings.ReplaceAll(key, "/", ".")
		if strings.Contains(name, "..") || !allowed(r.Sysctls, name) {
			bad.mismatch(at, key, want(r.Sysctls))
		}
	}
}

// checkValue looks into a value, and whether it is a path that the rule does not allow.
func (r *Rule) checkValue(key string, value json.RawMessage, at string, bad *complaints) {
	var elements []json.RawMessage
	switch {
	case bytes.HasPrefix(value, []byte("{")):
		r.checkObject(value, at+".", bad)
	case bytes.HasPrefix(value, []byte("[")) && json.Unmarshal(value, &elements) == nil:
		for i, e := range elements {
			r.checkValue(key, e, fmt.Sprintf("%s[%d]", at, i), bad)
		}
	}
	if s, ok := stringOf(value); ok && s != "" && isPath(key, s) && !r.allowsPath(s) {
		bad.mismatch(at, s, wantPath(r.Paths))
	}
}

// isPath tells if a plugin may take the value of a key, which is folded, for a path. It looks at that of a plugin Braid
// knows nothing of, too: what begins with a slash is a path, and what has a name that says so. Subnets have a slash within,
// and two points have a meaning in paths alone.
func isPath(key, value string) bool {
	value = strings.TrimSpace(value)
	for _, scheme := range []string{"unix:", "file:"} {
		value = strings.TrimPrefix(value, scheme)
	}
	hasSuffix := func(suffix string) bool { return strings.HasSuffix(key, suffix) }
	return strings.HasPrefix(value, "/") || slices.Contains(pathKeys, key) ||
		slices.Contains(strings.Split(value, "/"), "..") ||
		strings.Contains(value, "/") && slices.ContainsFunc(pathSuffixes, hasSuffix)
}

func (r *Rule) allowsPath(p string) bool {
	if slices.Contains(defaultPaths, p) {
		return true
	}
	return filepath.Clean(p) == p && slices.ContainsFunc(r.Paths, func(below string) bool {
		return p == below || strings.HasPrefix(p, strings.TrimSuffix(below, "/")+"/")
	})
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

func wantPath(paths []string) string {
	if len(paths) == 0 {
		return "no path of the node: leave the key out, or have the operator allow it under \"paths\""
	}
	return "a path below one of " + strings.Join(paths, ", ")
}

package conf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	Masters []string // parents: the values of "master" and "device", and of "pciBusID", "deviceID" and "hwaddr"
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

// pathKeys have values that are paths, whatever they look like.
var pathKeys = []string{
	"dataDir", "resolvConf", "daemonSocketPath", "kubeconfig", "confDir", "binDir", "cniDir", "configuration_path", "logFile", "log_file",
	"socketFile", "socket_file",
}

// parentPlugins are the types that look for a parent by themselves if the configuration names none.
var parentPlugins = []string{"macvlan", "ipvlan"}

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
		r.checkPlugin(&n.Plugins[i], at, &bad)
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

func (r *Rule) checkPlugin(p *Plugin, at string, bad *complaints) {
	judge := func(key, value string, patterns []string) {
		if value != "" && !allowed(patterns, value) {
			bad.mismatch(at+key, value, want(patterns))
		}
	}
	judge("type", p.Type, r.Types)
	judge("ipam.type", p.IPAM, r.Types)
	var c struct {
		Master, Device, Bridge     string
		PCIBusID, DeviceID, HWAddr string
		LinkInContainer            bool
		Sysctl                     map[string]json.RawMessage
	}
	// A value of another type is for the plugin to complain about; what could be read is judged.
	_ = json.Unmarshal(p.Bytes, &c)
	if !c.LinkInContainer {
		if c.Master == "" && slices.Contains(parentPlugins, p.Type) && !allowed(r.Masters, "") {
			bad.addf(at+"master", "missing, %s", want(r.Masters))
		}
		judge("master", c.Master, r.Masters)
	}
	judge("device", c.Device, r.Masters)
	judge("pciBusID", c.PCIBusID, r.Masters)
	judge("deviceID", c.DeviceID, r.Masters)
	judge("hwaddr", c.HWAddr, r.Masters)
	if c.Bridge == "" && p.Type == "bridge" {
		c.Bridge = "cni0"
	}
	judge("bridge", c.Bridge, r.Bridges)
	for key := range c.Sysctl {
		name := strings.ReplaceAll(key, "/", ".")
		if strings.Contains(name, "..") || !allowed(r.Sysctls, name) {
			bad.mismatch(at+"sysctl", key, want(r.Sysctls))
		}
	}
	r.checkPaths(p.Bytes, at, bad)
}

// checkPaths looks at every string of a configuration, that of a plugin Braid knows nothing of too: one that begins with
// a slash is a path.
func (r *Rule) checkPaths(config []byte, at string, bad *complaints) {
	var levels []level
	d := json.NewDecoder(bytes.NewReader(config))
	for {
		token, err := d.Token()
		if err != nil {
			if err != io.EOF {
				bad.addf(at, "%v", err)
			}
			return
		}
		n := len(levels)
		switch v := token.(type) {
		case json.Delim:
			switch v {
			case '{':
				levels = append(levels, level{keys: map[string]string{}})
			case '[':
				levels = append(levels, level{})
			default:
				levels = levels[:n-1]
				next(levels)
			}
			continue
		case string:
			if n > 0 && levels[n-1].keys != nil && !levels[n-1].value {
				levels[n-1].key, levels[n-1].value = v, true
				continue
			}
			isPath := strings.HasPrefix(strings.TrimSpace(v), "/")
			if n > 0 && v != "" && slices.ContainsFunc(pathKeys, func(k string) bool { return strings.EqualFold(k, levels[n-1].key) }) {
				isPath = true
			}
			if isPath && !r.allowsPath(v) {
				bad.mismatch(at+strings.TrimSuffix(path(levels), ": "), v, wantPath(r.Paths))
			}
		}
		next(levels)
	}
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

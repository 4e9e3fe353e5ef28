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
	"unicode"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/internal/memo"
)

// defaultPaths are what plugins use if a configuration names no path, so naming them chooses nothing.
var defaultPaths = []string{"/var/lib/cni/networks", "/run/cni/dhcp.sock"}

// Keys are folded: plugins that are written in Go do not tell "dataDir" from "DATADIR".
var (
	// pathKeys have values that are paths, whatever they look like.
	pathKeys = []string{
		"datadir", "resolvconf", "daemonsocketpath", "kubeconfig", "confdir", "bindir", "cnidir", "configuration_path",
		"logfile", "log_file", "socketfile", "socket_file",
	}
	// nodeKeys reach beyond the pod, and need a rule that has them. The words of conditionsV4 and conditionsV6 of portmap become
	// arguments of iptables, or text of nft, a line of which can be any command. hostAccess of macvlan gives the node routes to
	// the addresses that the pod has, which may be those of others; forceAddress of bridge takes a bridge the address of another
	// network.
	nodeKeys = []string{"conditionsv4", "conditionsv6", "hostaccess", "forceaddress"}
	// bridgeKeys have names of bridges: those of bridge, tap and ovs, and of userspace.
	bridgeKeys = []string{"bridge", "bridgename"}
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
	// metaPlugins are names of plugins that attach pods to several networks themselves, which they look up by names that no
	// rule knows. Other versions of one lie beside it under names that begin with its own.
	metaPlugins = []string{"braid*", "multus*", "danm*", "genie*", "kactus*"}
)

// defaultBridge is that of the plugin bridge.
const defaultBridge = "cni0"

// refusal is the error of a rule, nil if it refuses nothing.
func (c *complaints) refusal(r *Rule) error {
	err := c.err("network")
	if e, ok := errors.AsType[*types.Error](err); ok {
		e.Msg = fmt.Sprintf("policy rule %s does not allow it: %s", quote(r.Name), strings.TrimPrefix(e.Msg, "invalid network: "))
	}
	return err
}

// checkNetwork looks at the configuration that a tenant wrote.
func (r *Rule) checkNetwork(n *Network, bad *complaints) {
	if !allowed(r.Names, n.Name) {
		bad.mismatch("name", n.Name, want(r.Names))
	}
	for i := range n.Plugins {
		at := ""
		if len(n.Plugins) > 1 {
			at = fmt.Sprintf("plugins[%d].", i)
		}
		r.checkObject(n.Plugins[i].Bytes, at, bad)
	}
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
	case o.pluginType == "bridge" && !o.hasBridge:
		r.checkBridge(at+"bridge", defaultBridge, bad)
	}
	for _, m := range members {
		key, at := fold(m.key), at+printable(m.key)
		value, isString := stringOf(m.value)
		switch {
		case key == "type" && isString:
			r.checkType(at, value, bad)
		case slices.Contains(bridgeKeys, key) && isString && value != "":
			r.checkBridge(at, value, bad)
		case slices.Contains(nodeKeys, key) && isSet(m.value) && string(m.value) != "false" && !r.allowsKey(key):
			bad.mismatch(at, m.value, `none: it reaches beyond the pod, have the operator allow the key under "keys"`)
		case isReserved(key) && !r.allowsKey(key): // of a plugin they were taken away: this is for one that it calls
			bad.mismatch(at, m.value, "none: only a runtime may set the key")
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
	if n := len(value); n >= 2 && value[0] == '"' && isPlain(value[1:n-1]) {
		return string(value[1 : n-1]), true
	}
	ok = bytes.HasPrefix(value, []byte(`"`)) && json.Unmarshal(value, &s) == nil
	return s, ok
}

// IsMetaPlugin tells if a plugin of the type attaches pods to several networks itself.
func IsMetaPlugin(pluginType string) bool { return allowed(metaPlugins, pluginType) }

func (r *Rule) checkType(at, pluginType string, bad *complaints) {
	switch {
	case pluginType == "": // of an address plugin: there is none
	case !allowed(r.Types, pluginType):
		bad.mismatch(at, pluginType, want(r.Types))
	case (IsMetaPlugin(pluginType) || pluginType == r.entry) && !slices.Contains(r.Types, pluginType):
		bad.mismatch(at, pluginType, "a plugin that attaches pods to one network: the operator has to allow this one by its whole name under \"types\"")
	}
}

func (r *Rule) checkBridge(at, bridge string, bad *complaints) {
	switch {
	case !allowed(r.Bridges, bridge):
		bad.mismatch(at, bridge, want(r.Bridges))
	case slices.Contains(r.reserved, bridge):
		bad.mismatch(at, bridge, `another: it is that of a network of the operator, who has to allow it under "bridges"`)
	}
}

// Bridges returns the bridges that a network names, or that its plugins use if it names none.
func (n *Network) Bridges(m *memo.Memory) []string {
	bridges, _ := memo.Of(m, bridgesOf{n}, n.size(), func() (bridges []string, _ error) {
		for i := range n.Plugins {
			bridges = appendBridges(bridges, n.Plugins[i].Bytes)
		}
		return bridges, nil
	})
	return bridges
}

// bridgesOf has a network that is immutable, see [allowedNetwork].
type bridgesOf struct{ network *Network }

func appendBridges(bridges []string, object json.RawMessage) []string {
	members, _ := membersOf(object) // of a network that was read
	o := objectOf(members)
	if !o.hasBridge && (o.pluginType == "bridge" || o.pluginType == "flannel") {
		bridges = append(bridges, defaultBridge)
	}
	for _, m := range members {
		if name, isString := stringOf(m.value); isString && slices.Contains(bridgeKeys, fold(m.key)) {
			bridges = append(bridges, name)
		}
		if bytes.HasPrefix(m.value, []byte("{")) {
			bridges = appendBridges(bridges, m.value)
		}
	}
	return bridges
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
	s, isString := stringOf(value)
	if isString && s != "" && isPath(key, s) && !r.allowsPath(s) {
		bad.mismatch(at, s, wantPath(r.Paths))
	}
	if isString && strings.Contains(s, "/") && key != "dst" { // where a route leads to is no address of the pod
		r.checkSubnet(at, s, bad)
	}
}

// isPath tells if a plugin may take the value of a key, which is folded, for a path, or for words of which one is a path. It
// looks at that of a plugin Braid knows nothing of, too: what begins with a slash is a path, and what has a name that says so.
// Subnets have a slash within, and two points have a meaning in paths alone.
func isPath(key, value string) bool {
	hasSuffix := func(suffix string) bool { return strings.HasSuffix(key, suffix) }
	return slices.Contains(pathKeys, key) ||
		strings.Contains(value, "/") && slices.ContainsFunc(pathSuffixes, hasSuffix) ||
		slices.ContainsFunc(strings.FieldsFunc(value, separatesWords), isPathWord)
}

func separatesWords(r rune) bool { return unicode.IsSpace(r) || strings.ContainsRune(`=,;|"'`, r) }

func isPathWord(word string) bool {
	for _, scheme := range []string{"unix:", "file:"} {
		word = strings.TrimPrefix(word, scheme)
	}
	return strings.HasPrefix(word, "/") || slices.Contains(strings.Split(word, "/"), "..")
}

// allowsKey tells if the rule has a key, however it is written.
func (r *Rule) allowsKey(folded string) bool {
	return slices.ContainsFunc(r.Keys, func(pattern string) bool { return allowed([]string{fold(pattern)}, folded) })
}

func (r *Rule) allowsPath(p string) bool {
	if slices.Contains(defaultPaths, p) {
		return true
	}
	return filepath.Clean(p) == p && slices.ContainsFunc(r.Paths, func(below string) bool {
		return p == below || strings.HasPrefix(p, strings.TrimSuffix(below, "/")+"/")
	})
}

func wantPath(paths []string) string {
	if len(paths) == 0 {
		return "no path of the node: leave the key out, or have the operator allow it under \"paths\""
	}
	return "a path below one of " + strings.Join(paths, ", ")
}

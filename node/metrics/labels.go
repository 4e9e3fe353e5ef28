package metrics

import (
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Outcomes of everything that can fail.
const (
	success = "success"
	failure = "failure"
)

// other is the value of a label that has none of the values that are told apart.
const other = "other"

func outcome(failed bool) string {
	if failed {
		return failure
	}
	return success
}

// oneOf returns a value that is known, or other.
func oneOf(known []string, value string) string {
	if slices.Contains(known, value) {
		return value
	}
	return other
}

// clean makes a value fit to be shown.
func clean(s string) string {
	const longest = 320 // "namespace/name", each as long as Kubernetes lets it be
	s = strings.ToValidUTF8(s, "?")
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "")
	}
	return s
}

// wellKnown are the plugins that are told apart always: Braid's own, and those that most nodes have.
var wellKnown = []string{
	"bridge", "macvlan", "ipvlan", "loopback", "host-local", "dhcp", "static",
	"bandwidth", "dummy", "firewall", "host-device", "portmap", "ptp", "sbr", "tap", "tuning", "vlan", "vrf",
	"calico", "cilium-cni", "flannel", "kindnet", "ovs", "ovn-k8s-cni-overlay", "sriov", "whereabouts",
}

// maxPluginTypes is how many other plugins are told apart.
const maxPluginTypes = 32

var isPluginType = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`).MatchString

// pluginTypes are the plugins that are told apart. Tenants write their types in NetworkAttachmentDefinitions, so one that
// is not well known gets a place with its first success: a name that no binary of the node has never takes one.
type pluginTypes struct {
	mu    sync.Mutex
	known map[string]bool
}

// label returns a plugin's type, or other.
func (p *pluginTypes) label(pluginType string, succeeded bool) string {
	if slices.Contains(wellKnown, pluginType) {
		return pluginType
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.known[pluginType] {
		if !succeeded || len(p.known) >= maxPluginTypes || !isPluginType(pluginType) {
			return other
		}
		if p.known == nil {
			p.known = map[string]bool{}
		}
		p.known[pluginType] = true
	}
	return pluginType
}

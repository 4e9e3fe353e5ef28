package conf

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last int }

func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(r.First)
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// defaultHostPorts are all but those that a node lives by. A redirection comes before whoever listens, so a pod that could
// have port 22, 443 or 10250 would answer in the name of the node, and nothing of what keeps pods from "hostPort" in their
// specification (Pod Security admission) looks into annotations. Spared are the ports that need privileges, those that the
// Kubernetes documentation has under "Ports and Protocols" (etcd, the API server, kubelet, kube-proxy, controller manager and
// scheduler), and NodePorts.
var defaultHostPorts = []PortRange{{1024, 2378}, {2381, 6442}, {6444, 10247}, {10260, 29999}, {32768, 65535}}

// readPortRanges reads a list of ports and ranges of them.
func (o *object) readPortRanges(key string) (ranges []PortRange, found bool) {
	const want = `a list of ports and ranges like [8080, "9000-9099"]`
	var list []json.RawMessage
	if !o.read(key, &list, want) {
		return nil, false
	}
	for i, raw := range list {
		r, err := parsePortRange(raw)
		if err != nil {
			o.mismatch(fmt.Sprintf("%s%s[%d]", o.path, key, i), raw, `a port from 1 to 65535, or a range like "9000-9099"`)
		}
		ranges = append(ranges, r)
	}
	return ranges, true
}

func parsePortRange(raw json.RawMessage) (r PortRange, err error) {
	text := string(raw)
	if s, ok := stringOf(raw); ok {
		text = s
	}
	first, last, isRange := strings.Cut(text, "-")
	if !isRange {
		last = first
	}
	if r.First, err = strconv.Atoi(first); err != nil {
		return r, err
	}
	if r.Last, err = strconv.Atoi(last); err != nil {
		return r, err
	}
	if r.First < 1 || r.First > r.Last || r.Last > 65535 {
		return r, fmt.Errorf("no range of ports: %s", text)
	}
	return r, nil
}

// checkHostPorts looks at the ports that a pod's annotation asks for. Those of the pod's specification come from the runtime,
// for the cluster's own network: who may have them is for admission to say.
func (r *Rule) checkHostPorts(mappings []PortMapping, bad *complaints) {
	for i, m := range mappings {
		if !slices.ContainsFunc(r.HostPorts, func(p PortRange) bool { return p.First <= m.HostPort && m.HostPort <= p.Last }) {
			bad.mismatch(fmt.Sprintf("portMappings[%d].hostPort", i), m.HostPort, wantPorts(r.HostPorts))
		}
	}
}

func wantPorts(ranges []PortRange) string {
	if len(ranges) == 0 {
		return "none: the rule allows no port of the node"
	}
	names := make([]string, len(ranges))
	for i, r := range ranges {
		names[i] = r.String()
	}
	return "a port of " + strings.Join(names, ", ")
}

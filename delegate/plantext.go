package delegate

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// WritePlan prints a plan as a table: what the pod's interfaces will be, from which networks, by which plugins, with
// what the pod wishes of each.
func WritePlan(w io.Writer, plan []Planned) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "INTERFACE\tNETWORK\tPLUGINS\tREQUESTED")
	for i := range plan {
		p := &plan[i]
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", p.IfName, p.title(), p.plugins(), p.requested())
	}
	return tw.Flush()
}

func (p *Planned) title() string {
	if p.Default {
		return p.Name + " (default)"
	}
	return p.Name
}

// plugins names the chain, each with its address plugin: "bridge+host-local, tuning".
func (p *Planned) plugins() string {
	var types []string
	for _, plugin := range p.Network.Plugins {
		t := plugin.Type
		if plugin.IPAM != "" {
			t += "+" + plugin.IPAM
		}
		types = append(types, t)
	}
	return strings.Join(types, ", ")
}

func (p *Planned) requested() string {
	var wishes []string
	for _, name := range slices.Sorted(maps.Keys(p.Capabilities)) {
		value, err := json.Marshal(p.Capabilities[name])
		if err != nil {
			value = []byte(err.Error())
		}
		wishes = append(wishes, fmt.Sprintf("%s=%s", name, value))
	}
	if p.Selection.TakesDefaultRoute() {
		wishes = append(wishes, fmt.Sprintf("default-route=%v", p.Selection.DefaultRoute))
	}
	if len(wishes) == 0 {
		return "-"
	}
	return strings.Join(wishes, " ")
}

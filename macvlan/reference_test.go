package macvlan_test

import (
	"encoding/json"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/cni"
)

// Both plugins get the same input. Where the results and what the kernel has differ, it is for a reason that README.md
// gives, and that is taken out here before they are compared.
func TestSideBySideWithTheReference(t *testing.T) {
	const routes = `"ipam": {"type": "static", "addresses": [{"address": "192.0.2.2/24", "gateway": "192.0.2.1"}, {"address": "2001:db8::2/64", "gateway": "2001:db8::1"}],
		"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "198.51.100.0/24", "gw": "192.0.2.9"}], "dns": {"nameservers": ["192.0.2.53"]}}`
	for name, keys := range map[string]string{
		"layer 2":   `"master": "NIC"`,
		"private":   `"master": "NIC", "mode": "private", "mtu": 1400`,
		"vepa":      `"master": "NIC", "mode": "vepa", "bcqueuelen": 500`,
		"passthru":  `"master": "NIC", "mode": "passthru"`,
		"MAC":       `"master": "NIC", "mac": "02:00:00:00:00:01", "runtimeConfig": {"mac": "02:00:00:00:00:02"}`,
		"addresses": `"master": "NIC", ` + fixed("192.0.2.2/24 192.0.2.1"),
		"routes":    `"master": "NIC", ` + routes,
		"own DNS":   `"master": "NIC", "dns": {"nameservers": ["192.0.2.54"], "search": ["example.org"]}, ` + fixed("192.0.2.2/24"),
		"extra":     `"master": "NIC", "an unknown key": [1, 2]`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, keys)
			var states []string
			for _, p := range []cni.Plugin{cni.Exec{Type: "macvlan"}, plugin} {
				w.plugin = p
				w.newPod(keys)
				res := w.add()
				states = append(states, w.state(res))
				must(t, w.check(res))
				must(t, w.plugin.Del(t.Context(), w.later(res)))
				if links := w.pod.Links(t); len(links) != 0 {
					t.Errorf("DEL left %v", links)
				}
			}
			if diff := cmp.Diff(states[0], states[1]); diff != "" {
				t.Errorf("-reference +braid:\n%s", diff)
			}
		})
	}
}

// state prints a result and what the kernel has.
func (w *world) state(res *types100.Result) string {
	w.Helper()
	c := *res
	c.Interfaces = []*types100.Interface{res.Interfaces[0].Copy()}
	c.Interfaces[0].Mtu, c.Interfaces[0].Sandbox = 0, ""
	if !strings.Contains(string(w.req.Config), `"mac"`) {
		c.Interfaces[0].Mac = "random"
	}
	if !containsDNS(w.req.Config) {
		c.DNS.Nameservers = nil
	}
	doc, err := json.MarshalIndent(&c, "", "  ")
	must(w.T, err)
	return string(doc) + "\n" + w.pod.State(w, "net1")
}

// containsDNS tells whether the configuration has DNS of its own: that of the IPAM plugin the reference loses.
func containsDNS(config []byte) bool {
	var conf struct{ DNS *struct{} }
	return json.Unmarshal(config, &conf) == nil && conf.DNS != nil
}

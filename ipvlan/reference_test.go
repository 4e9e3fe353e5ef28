package ipvlan_test

import (
	"encoding/json"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/cni"
)

// Both plugins get the same input. Where the results and what the kernel has differ, it is for a reason that README.md
// gives, and that is taken out here before they are compared.
func TestSideBySideWithTheReference(t *testing.T) {
	const ipam = `"ipam": {"type": "static", "addresses": [{"address": "192.0.2.2/24", "gateway": "192.0.2.1"}, {"address": "2001:db8::2/64", "gateway": "2001:db8::1"}],
		"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}, {"dst": "198.51.100.0/24", "gw": "192.0.2.9"}]}`
	for name, keys := range map[string]string{
		"l2":    `"master": "NIC", ` + ipam,
		"l3":    `"master": "NIC", "mode": "l3", "mtu": 1400, ` + ipam,
		"l3s":   `"master": "NIC", "mode": "l3s", "dns": {"nameservers": ["192.0.2.54"]}, ` + ipam,
		"chain": `"prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "NIC"}], "ips": [{"address": "192.0.2.2/24", "interface": 0}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, keys)
			var states []string
			for _, p := range []cni.Plugin{cni.Exec{Type: "ipvlan"}, plugin} {
				w.plugin = p
				w.newPod(keys)
				res := w.add()
				states = append(states, w.state(res))
				if name == "chain" {
					w.req.Config = w.config(`"master": "NIC"`) // the reference looks for it in the configuration then
				}
				must(t, w.check(res))
				w.del(res)
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
	last := len(res.Interfaces) - 1
	c.Interfaces = []*types100.Interface{res.Interfaces[last].Copy()}
	c.Interfaces[0].Mtu, c.Interfaces[0].Sandbox = 0, ""
	c.IPs = nil
	for _, ip := range res.IPs {
		ip = ip.Copy()
		if *ip.Interface == last {
			ip.Interface = types100.Int(0)
		}
		c.IPs = append(c.IPs, ip)
	}
	doc, err := json.MarshalIndent(&c, "", "  ")
	must(w.T, err)
	return string(doc) + "\n" + w.pod.State(w, "net1")
}

package dhcp_test

import (
	"testing"

	"github.com/braid-cni/braid/internal/manpage"
)

// The examples of the manual, on a network that has everything. What they say is found in the results.
func TestExamples(t *testing.T) {
	for name, example := range manpage.Examples(t, "README.md") {
		t.Run(name, func(t *testing.T) {
			w := newWorld6(t)
			w.keeper()
			w.dnsmasq("--dhcp-range=192.0.2.50,192.0.2.59,255.255.255.0,2m", "--enable-ra", "--dhcp-range=2001:db8::50,2001:db8::59,slaac,64,2m")
			p := w.pod("")
			var ipam map[string]any
			p.req.Config = with(t, []byte(example), "master", w.nic.Name)
			ipam = member(t, p.req.Config, "ipam")
			ipam["daemonSocketPath"] = w.socket
			p.req.Config = with(t, p.req.Config, "ipam", ipam)
			p.req.Args = "K8S_POD_NAME=blue"
			p.add()
			if err := p.check(); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			want := 1
			if ipam["ipv6"] == "stateful" {
				want = 2
			}
			if got := len(p.res.IPs); got != want {
				t.Errorf("%d addresses, want %d: %s", got, want, text(t, p.res))
			}
			p.del()
		})
	}
}

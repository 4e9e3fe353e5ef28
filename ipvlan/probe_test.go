package ipvlan_test

import (
	"fmt"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/internal/nettest"
)

// awake returns when the kernel of the LAN answers, which it does not for IPv6 addresses of a link that is new.
func (w *world) awake() {
	w.Helper()
	w.node.Address(w, w.nic.Name, "2001:db8::aaaa/64")
	nettest.Reach(w, w.node, w.nic.LAN, "2001:db8::1")
}

const probe = `"master": "NIC", "probe": {"count": 2, "interval": "200ms"}, `

func TestProbeTakesNextAddress(t *testing.T) {
	w := newWorld(t, probe+fmt.Sprintf(`"ipam": {"type": "host-local", "dataDir": %q, "ranges": [
		[{"subnet": "192.0.2.0/24", "gateway": "192.0.2.254"}], [{"subnet": "2001:db8::/64", "gateway": "2001:db8::fe"}]]}`, t.TempDir()))
	w.awake()
	res, err := w.plugin.Add(t.Context(), w.req)
	must(t, err)
	if got := fmt.Sprint(res.IPs[0].Address.String(), " ", res.IPs[1].Address.String()); got != "192.0.2.2/24 2001:db8::2/64" {
		t.Errorf("the pod has %s", got)
	}
	nettest.Reach(t, w.pod, w.nic.LAN, "192.0.2.1")
	nettest.Reach(t, w.pod, w.nic.LAN, "2001:db8::1")
}

func TestProbeFindsFixedAddressTaken(t *testing.T) {
	for _, address := range []string{"192.0.2.1", "2001:db8::1"} {
		t.Run(address, func(t *testing.T) {
			w := newWorld(t, probe+`"ipam": {"type": "static", "addresses": [{"address": "`+address+`/24"}]}`)
			w.awake()
			_, err := w.plugin.Add(t.Context(), w.req)
			mac := w.nic.LAN.Link(t, w.nic.Port).Attrs().HardwareAddr.String()
			wantError(t, err, types.ErrTryAgainLater, "address "+address+" is in use by "+mac)
			if links := w.pod.Links(t); len(links) != 0 {
				t.Errorf("ADD that failed left %v", links)
			}
		})
	}
}

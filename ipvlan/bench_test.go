package ipvlan_test

import (
	"testing"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/internal/refplugins"
)

// One ADD, with a fixed address of the address plugin. The time of DEL, which is that of an RCU grace period, is left out.
func BenchmarkAdd(b *testing.B) {
	nettest.NeedKernel(b, nettest.IPVLAN)
	nic := nettest.Parent(b, nettest.Node(b))
	pod := nettest.NewNS(b)
	for who, p := range map[string]cni.Plugin{"braid": plugin, "reference": cni.Exec{Type: "ipvlan"}} {
		b.Run(who, func(b *testing.B) {
			req := &cni.Request{
				Attachment: cni.Attachment{ContainerID: "pod", Netns: pod.Path(), IfName: "net1"},
				Path:       []string{refplugins.Dir(b)},
				Config: []byte(`{"cniVersion": "1.0.0", "name": "lan", "type": "ipvlan", "master": "` + nic.Name + `",
					"ipam": {"type": "static", "addresses": [{"address": "192.0.2.2/24"}]}}`),
			}
			for b.Loop() {
				if _, err := p.Add(b.Context(), req); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if err := p.Del(b.Context(), req); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

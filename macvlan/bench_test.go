package macvlan_test

import (
	"testing"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/internal/refplugins"
)

// One ADD and one DEL, with a fixed address of an IPAM binary, and on layer 2.
func BenchmarkAddDel(b *testing.B) {
	node := nettest.Node(b)
	nic := nettest.Parent(b, node)
	pod := nettest.NewNS(b)
	for name, keys := range map[string]string{
		"layer2": "",
		"static": `, "ipam": {"type": "static", "addresses": [{"address": "192.0.2.2/24"}]}`,
	} {
		for who, p := range map[string]cni.Plugin{"braid": plugin, "reference": cni.Exec{Type: "macvlan"}} {
			b.Run(name+"/"+who, func(b *testing.B) {
				req := &cni.Request{
					Attachment: cni.Attachment{ContainerID: "pod", Netns: pod.Path(), IfName: "net1"},
					Path:       []string{refplugins.Dir(b)},
					Config:     []byte(`{"cniVersion": "1.0.0", "name": "lan", "type": "macvlan", "master": "` + nic.Name + `"` + keys + `}`),
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
}

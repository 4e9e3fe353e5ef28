package bridge_test

import (
	"testing"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
)

// ADD and DEL of one pod, in-process against the reference plugin.
func BenchmarkAddDel(b *testing.B) {
	for name, keys := range map[string]string{
		"layer 2":        ``,
		"gateway":        `"isDefaultGateway": true, ` + hostLocal(subnet4),
		"gateway, masq":  `"isDefaultGateway": true, "ipMasq": true, "ipMasqBackend": "nftables", ` + hostLocal(subnet4),
		"gateway, spoof": `"isDefaultGateway": true, "macspoofchk": true, ` + hostLocal(subnet4),
	} {
		for _, reference := range []bool{false, true} {
			who := "braid"
			if reference {
				who = "reference"
			}
			b.Run(name+"/"+who, func(b *testing.B) {
				w := &world{TB: b, plugin: plugin, node: nettest.Node(b), bridge: nettest.Name("br"), data: b.TempDir()}
				b.Cleanup(w.deleteBridge)
				if reference {
					w.plugin = cni.Exec{Type: "bridge"}
					b.Cleanup(func() { flushRules(b) })
				}
				w.attached(keys) // makes the bridge
				p := w.pod(keys)
				for b.Loop() {
					must(b, p.add())
					b.StopTimer()
					must(b, p.del())
					b.StartTimer()
				}
			})
		}
	}
}

package dhcp_test

import (
	"context"
	"testing"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/refplugins"
	"github.com/braid-cni/braid/ipam/dhcp"
)

// ADD and DEL of the address alone, with a server that answers at once: in the process of the caller, and as the
// binaries of the reference.
func BenchmarkAddDel(b *testing.B) {
	for name, start := range map[string]func(w *world) (socket string, p cni.Plugin){
		"own":       func(w *world) (string, cni.Plugin) { w.keeper(); return w.socket, dhcp.Plugin{} },
		"reference": func(w *world) (string, cni.Plugin) { return w.reference(), cni.Exec{Type: "dhcp"} },
	} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b)
			w.server(router)
			p := w.pod("")
			w.interfaces(p, 1)
			socket, plugin := start(w)
			req := *p.req
			req.IfName, req.Path = "n0", []string{refplugins.Dir(b)}
			ipam := member(b, req.Config, "ipam")
			ipam["daemonSocketPath"] = socket
			req.Config = with(b, req.Config, "ipam", ipam)
			for b.Loop() {
				if _, err := plugin.Add(context.Background(), &req); err != nil {
					b.Fatal(err)
				}
				if err := plugin.Del(context.Background(), &req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

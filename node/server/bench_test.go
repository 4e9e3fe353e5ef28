package server_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/braid-cni/braid/node/server"
	"github.com/braid-cni/braid/resolve"
)

// fixed answers every question with the same.
type fixed struct{ resolve.Answer }

func (f *fixed) Resolve(context.Context, *resolve.Query) (*resolve.Answer, error) {
	return &f.Answer, nil
}
func (f *fixed) Report(context.Context, *resolve.Report) error { return nil }

// What an ADD asks the daemon, and what it tells it.
func BenchmarkADD(b *testing.B) {
	for _, n := range []int{1, 8} {
		b.Run(fmt.Sprintf("%d networks", n), func(b *testing.B) {
			f := new(fixed)
			f.Pod, f.Queues = resolve.Pod{Namespace: "blue", Name: "web", UID: "6f1c6c3a-0d0e-4bd8-9ad9-3ad5d7f5f5f3"}, true
			f.Networks = make(map[string]resolve.Network)
			var names []string
			for i := range n {
				name := fmt.Sprint("net", i)
				names = append(names, name)
				f.Networks["blue/"+name] = resolve.Network{Config: fmt.Sprintf(`{"cniVersion": "1.1.0", "type": "macvlan", "master": "eth1", "mode": "bridge",
					"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.9.%d.0/24"}]]}}`, i)}
			}
			f.Annotations = map[string]string{"k8s.v1.cni.cncf.io/networks": strings.Join(names, ",")}
			s := server.New(server.Options{Socket: filepath.Join(b.TempDir(), "braidd.sock"), Resolver: f, Log: slog.New(slog.DiscardHandler)})
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error)
			go func() { done <- s.Run(ctx) }()
			defer func() {
				cancel()
				if err := <-done; err != nil {
					b.Error(err)
				}
			}()
			for s.State() != server.Serving {
			}
			report := &resolve.Report{Pod: f.Pod, Record: &resolve.Record{ContainerID: strings.Repeat("0", 64), IfName: "eth0"}}
			for b.Loop() {
				node := &resolve.Node{Socket: s.Socket, Fallback: new(resolve.Child), Log: func(msg string, args ...any) { b.Fatal(msg, args) }}
				_, err := node.Resolve(ctx, &resolve.Query{Pod: f.Pod, Journal: "/var/lib/braid/attachments"})
				if err == nil {
					err = node.Report(ctx, report)
				}
				if err == nil {
					err = node.Close()
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

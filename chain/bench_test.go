package chain_test

import (
	"context"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/chain"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/memo"
	"github.com/braid-cni/braid/ipam"
)

// nop is a plugin that looks for its address plugin, and does nothing.
type nop struct{ cni.Plugin }

func (nop) Add(_ context.Context, req *cni.Request) (*types100.Result, error) {
	_, err := ipam.For(req, func(string) cni.Plugin { return nop{} })
	return &types100.Result{CNIVersion: types100.ImplementedSpecVersion}, err
}

func (nop) Del(_ context.Context, req *cni.Request) error {
	_, err := ipam.For(req, func(string) cni.Plugin { return nop{} })
	return err
}

// What is derived of a network's configuration for its plugin, and what that decodes.
func BenchmarkAddDel(b *testing.B) {
	n := network(b, `{"cniVersion":"1.1.0","name":"net1","type":"macvlan","master":"eth1","mode":"bridge",
		"ipam":{"type":"host-local","ranges":[[{"subnet":"10.2.0.0/16"}]],"routes":[{"dst":"10.3.0.0/16"}]}}`)
	for name, m := range map[string]*memo.Memory{"anew": nil, "remembered": new(memo.Memory)} {
		b.Run(name, func(b *testing.B) {
			c := chain.Lenient(n, nil, func(string) cni.Plugin { return nop{} }).With(m)
			for b.Loop() {
				res, err := c.Add(b.Context(), at, nil)
				if err == nil {
					err = c.Del(b.Context(), at, nil, res)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

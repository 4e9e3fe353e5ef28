package cni_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
)

// given is a plugin whose every ADD has the same result.
type given struct {
	cni.Plugin
	result *types100.Result
}

func (g given) Add(context.Context, *cni.Request) (*types100.Result, error) { return g.result, nil }

// A call of the runtime, without what the plugin does.
func BenchmarkADD(b *testing.B) {
	for _, n := range []int{1, 9} {
		b.Run(fmt.Sprintf("%d networks", n), func(b *testing.B) {
			res := new(types100.Result)
			for i := range n {
				res.Interfaces = append(res.Interfaces, &types100.Interface{Name: fmt.Sprint("net", i), Mac: "0a:58:0a:f4:00:02", Sandbox: "/run/netns/web"})
				ip := net.IPNet{IP: net.IPv4(10, 9, byte(i), 2).To4(), Mask: net.CIDRMask(24, 32)}
				res.IPs = append(res.IPs, &types100.IPConfig{Interface: types100.Int(i), Address: ip, Gateway: net.IPv4(10, 9, byte(i), 1).To4()})
			}
			res.Routes = []*types.Route{{Dst: net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, GW: net.IPv4(10, 9, 0, 1).To4()}}
			env := map[string]string{"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c1", "CNI_NETNS": "/dev/null", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin"}
			for b.Loop() {
				var out, complaints bytes.Buffer
				code := cni.Run(b.Context(), given{result: res}, "", cni.Process{
					Env: func(name string) string { return env[name] }, Stdin: strings.NewReader(`{"cniVersion": "1.0.0", "name": "pods", "type": "braid"}`),
					Stdout: &out, Stderr: &complaints,
				})
				if code != 0 || out.Len() == 0 {
					b.Fatal(code, out.String(), complaints.String())
				}
			}
		})
	}
}

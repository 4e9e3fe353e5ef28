package loopback_test

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/manpage"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/loopback"
)

func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }

const config = `{"cniVersion": "1.1.0", "name": "lo", "type": "loopback"}`

// pod has lo as the kernel makes it: down.
func pod(t *testing.T) (*nettest.NS, *cni.Request) {
	t.Helper()
	nettest.LeakCheck(t)
	ns := nettest.NewNS(t)
	must(t, ns.Handle().LinkSetDown(ns.Link(t, "lo")))
	return ns, &cni.Request{
		Attachment: cni.Attachment{ContainerID: "pod", Netns: ns.Path(), IfName: "eth0"},
		Config:     []byte(config),
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func isUp(t *testing.T, ns *nettest.NS) bool {
	return ns.Link(t, "lo").Attrs().Flags&net.FlagUp != 0
}

func withPrevResult(t *testing.T, prev *types100.Result) []byte {
	t.Helper()
	doc, err := cni.MarshalResult(prev, "1.1.0")
	must(t, err)
	return bytes.Replace([]byte(config), []byte("{"), []byte(`{"prevResult": `+string(doc)+`, `), 1)
}

func TestLifeOfExamples(t *testing.T) {
	for name, example := range manpage.Examples(t, "README.md") {
		t.Run(name, func(t *testing.T) {
			ns, req := pod(t)
			req.Config = []byte(example)
			p := loopback.Plugin{}
			res, err := p.Add(t.Context(), req)
			must(t, err)
			if !isUp(t, ns) {
				t.Error("lo is down after ADD")
			}
			doc, err := json.Marshal(res)
			must(t, err)
			want := `{"cniVersion":"1.1.0","interfaces":[{"mac":"00:00:00:00:00:00","mtu":65536,"name":"lo","sandbox":"` + ns.Path() +
				`"}],"ips":[{"address":"127.0.0.1/8","interface":0},{"address":"::1/128","interface":0}]}`
			if diff := cmp.Diff(want, string(doc)); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			req.Config = withPrevResult(t, res)
			must(t, p.Check(t.Context(), req))
			must(t, p.Del(t.Context(), req))
			if isUp(t, ns) {
				t.Error("lo is up after DEL")
			}
			if err := p.Check(t.Context(), req); err == nil {
				t.Error("CHECK passes with lo down")
			}
			must(t, p.Del(t.Context(), req))
			must(t, p.GC(t.Context(), req))
			must(t, p.Status(t.Context(), req))
		})
	}
}

func TestPrevResultIsPassedThrough(t *testing.T) {
	ns, req := pod(t)
	prev := &types100.Result{
		CNIVersion: "1.1.0",
		Interfaces: []*types100.Interface{{Name: "eth0", Sandbox: req.Netns}},
		IPs: []*types100.IPConfig{{Interface: types100.Int(0), Address: net.IPNet{
			IP: net.IPv4(192, 0, 2, 2), Mask: net.CIDRMask(24, 32)}}},
	}
	req.Config = withPrevResult(t, prev)
	res, err := loopback.Plugin{}.Add(t.Context(), req)
	must(t, err)
	if diff := cmp.Diff(prev, res); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	if !isUp(t, ns) {
		t.Error("lo is down after ADD")
	}
}

func TestErrors(t *testing.T) {
	ns, req := pod(t)
	p := loopback.Plugin{}
	if err := p.Check(t.Context(), req); err == nil || !strings.Contains(err.Error(), "prevResult") {
		t.Errorf("CHECK without prevResult: %v", err)
	}
	must(t, ns.Handle().AddrAdd(ns.Link(t, "lo"), &netlink.Addr{IPNet: &net.IPNet{IP: net.IP{192, 0, 2, 2}, Mask: net.CIDRMask(32, 32)}}))
	if _, err := p.Add(t.Context(), req); err == nil || !strings.Contains(err.Error(), "192.0.2.2/32") {
		t.Errorf("ADD with another address on lo: %v", err)
	}
	ns.Remove(t)
	for _, netns := range []string{ns.Path(), "", t.TempDir()} {
		req.Netns = netns
		must(t, p.Del(t.Context(), req))
		if _, err := p.Add(t.Context(), req); err == nil {
			t.Errorf("ADD passes without a namespace (%q)", netns)
		}
	}
	req.Config = []byte(`{`)
	if _, err := p.Add(t.Context(), req); err == nil {
		t.Error("ADD passes with broken JSON")
	}
}

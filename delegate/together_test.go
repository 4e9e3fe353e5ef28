package delegate_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/bridge"
	"github.com/braid-cni/braid/chain"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/ipam/hostlocal"
	"github.com/braid-cni/braid/macvlan"
)

// A pod has two networks that Braid makes itself, one of a plugin that is executed, two own ones, and one with a lease. When the
// lease is released, its interface is there; when the plugin is told of the DEL, the interfaces of those after it are gone, and of
// those before it there.
func TestDelDeletesInterfacesTogether(t *testing.T) {
	nettest.LeakCheck(t)
	w := newWorld(t)
	nic := nettest.Parent(t, nettest.Node(t))
	d := w.delegator()
	d.Observer = nil
	fakes := d.Own(nil)
	var atRelease []string // in the pod
	dhcp := &cnitest.Fake{
		Result: &types100.Result{IPs: []*types100.IPConfig{{Address: net.IPNet{IP: net.IPv4(10, 2, 0, 2).To4(), Mask: net.CIDRMask(16, 32)}}}},
		On: func(_ context.Context, command string, _ *cni.Request) error {
			if command == "DEL" {
				atRelease = w.netns.Links(t)
			}
			return nil
		},
	}
	d.Own = func(find cni.Lookup) map[string]cni.Plugin {
		return map[string]cni.Plugin{
			"bridge": bridge.Plugin{Find: find}, "macvlan": macvlan.Plugin{Find: find}, "host-local": hostlocal.Plugin{}, "dhcp": dhcp,
			"fake-one": fakes["fake-one"],
		}
	}
	br := nettest.Name("br")
	t.Cleanup(func() {
		if link, err := netlink.LinkByName(br); err == nil {
			_ = netlink.LinkDel(link)
		}
	})
	ipam := fmt.Sprintf(`"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.1.0.0/16"}]]}`, filepath.Join(w.dir, "addresses"))
	network := func(name, link string) string {
		return fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,%s,%s}`, name, link, ipam)
	}
	ownBridge, ownMacvlan := fmt.Sprintf(`"type":"bridge","bridge":%q`, br), fmt.Sprintf(`"type":"macvlan","master":%q`, nic.Name)
	req := w.request("")
	req.Config = fmt.Appendf(nil, `{"cniVersion":"1.1.0","name":"pods","type":"braid","cniDir":%q,"delegates":[%s,%s,%s,%s,%s,%s]}`, w.dir,
		network("a", ownBridge), network("b", ownMacvlan), `{"cniVersion":"1.1.0","name":"c","type":"fake-one"}`, network("d", ownMacvlan), network("e", ownBridge),
		`{"cniVersion":"1.1.0","name":"f",`+ownMacvlan+`,"ipam":{"type":"dhcp"}}`)
	if _, err := d.Add(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if found := w.netns.Links(t); !slices.Contains(found, "net5") {
		t.Fatalf("interfaces after ADD: %q", found)
	}
	// The name of an interface that somebody has put in the place of Braid's does not make it Braid's.
	for _, name := range []string{"net1", "net4"} { // the latter of the kind that Braid's had
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		h := w.netns.Handle()
		if err := errors.Join(h.LinkDel(w.netns.Link(t, name)), h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far-" + name})); err != nil {
			t.Fatal(err)
		}
	}

	var left []string // in the pod, when the plugin has been executed that is no own one
	ctx := chain.WithCalls(t.Context(), func(call chain.Call) {
		if call.Type == "fake-one" {
			left = w.netns.Links(t)
		}
	})
	if err := d.Del(ctx, req); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(atRelease, "net5") {
		t.Errorf("interfaces when the lease is released: %q, want net5 among them", atRelease)
	}
	slices.Sort(left)
	if diff := cmp.Diff([]string{"eth0", "far-net1", "far-net4", "net1", "net4"}, left); diff != "" {
		t.Errorf("interfaces after the DEL of the plugin in the middle (-want +got):\n%s", diff)
	}
	left = w.netns.Links(t)
	slices.Sort(left)
	if diff := cmp.Diff([]string{"far-net1", "far-net4", "net1", "net4"}, left); diff != "" {
		t.Errorf("interfaces after DEL (-want +got):\n%s", diff)
	}
	w.wantRecords(0)
}

package parent

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/netdev"
)

func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }

func parse(t *testing.T, doc string) Selector {
	t.Helper()
	var s Selector
	if err := json.Unmarshal([]byte(doc), &s); err != nil {
		t.Fatalf("%s: %v", doc, err)
	}
	return s
}

func TestSelectorErrorsNameTheKey(t *testing.T) {
	for doc, want := range map[string]string{
		`"a/b"`:              `master: "a/b" is no name`,
		`".."`:               `master: ".." is no name`,
		`7`:                  `master: cannot unmarshal number`,
		`{}`:                 `master: the object is empty`,
		`{"regexp": "eth."}`: `master: unknown field "regexp"; write`,
		`{"regex": "eth("}`:  "master.regex: ",
		`{"regex": "` + strings.Repeat("x", 300) + `"}`:   "master.regex: it is longer",
		`{"subnet": "192.0.2.1"}`:                         `master.subnet: "192.0.2.1" is no subnet`,
		`{"mac": "zz"}`:                                   `master.mac: "zz" is no MAC`,
		`{"defaultRoute": "ipv5"}`:                        `master.defaultRoute: "ipv5" is none of`,
		`{"name": "eth0\u0000"}`:                          `master.name: "eth0\x00" is no name`,
		`{"altName": "` + strings.Repeat("x", 128) + `"}`: "master.altName",
	} {
		var s Selector
		err := json.Unmarshal([]byte(doc), &s)
		var ce *types.Error
		if !errors.As(err, &ce) || ce.Code != types.ErrInvalidNetworkConfig || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want code 7 and %q", doc, err, want)
		}
	}
}

func FuzzSelector(f *testing.F) {
	f.Add(`"eth1"`)
	f.Add(`{"regex": "ens[0-9]+", "subnet": "192.0.2.0/24", "mac": "02:00:00:00:00:01", "altName": "a", "defaultRoute": "any"}`)
	f.Fuzz(func(t *testing.T, doc string) {
		var s Selector
		if json.Unmarshal([]byte(doc), &s) == nil {
			_ = s.String()
		}
	})
}

// node has two NICs, a bond of the second one if the kernel can, and macvlan interfaces that must not be found.
func TestResolve(t *testing.T) {
	nettest.LeakCheck(t)
	ns := nettest.NewNS(t)
	h := ns.Handle()
	first, second := nettest.Parent(t, ns), nettest.Parent(t, ns)
	ns.Address(t, first.Name, "192.0.2.10/24", "2001:db8::10/64")
	ns.Address(t, second.Name, "198.51.100.10/24")
	if err := h.LinkAddAltName(ns.Link(t, second.Name), "storage-network-of-rack-7"); err != nil {
		t.Fatal(err)
	}
	shim := &netlink.Macvlan{LinkAttrs: netlink.NewLinkAttrs(), Mode: netlink.MACVLAN_MODE_BRIDGE}
	shim.Name, shim.ParentIndex = "shim0", ns.Link(t, first.Name).Attrs().Index
	if err := h.LinkAdd(shim); err != nil {
		t.Fatal(err)
	}
	ns.Address(t, "shim0", "192.0.2.11/24")
	route := func(link, dst, gw string, metric int) {
		t.Helper()
		_, to, _ := net.ParseCIDR(dst)
		r := &netlink.Route{LinkIndex: ns.Link(t, link).Attrs().Index, Dst: to, Gw: net.ParseIP(gw), Priority: metric}
		if err := h.RouteAdd(r); err != nil {
			t.Fatal(err)
		}
	}
	route(first.Name, "0.0.0.0/0", "192.0.2.1", 200)
	route(second.Name, "0.0.0.0/0", "198.51.100.1", 100)
	route(first.Name, "::/0", "2001:db8::1", 0)

	pod, err := netdev.Open(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	mac := ns.Link(t, second.Name).Attrs().HardwareAddr.String()
	for _, c := range []struct{ doc, want, err string }{
		{`"` + first.Name + `"`, first.Name, ""},
		{`"storage-network-of-rack-7"`, second.Name, ""},
		{`"shim0"`, "shim0", ""}, // asked for by name
		{`null`, second.Name, ""},
		{`{"altName": "storage-network-of-rack-7"}`, second.Name, ""},
		{`{"regex": "storage-.*"}`, second.Name, ""},
		{`{"regex": "` + second.Name + `"}`, second.Name, ""},
		{`{"regex": "` + second.Name[:5] + `"}`, "", "no such parent interface: regex"}, // not a whole name
		{`{"regex": "nic.*"}`, "", "it must mean one"},
		{`{"regex": "nic.*", "subnet": "198.51.0.0/16"}`, second.Name, ""},
		{`{"subnet": "192.0.2.0/24"}`, first.Name, ""}, // and not its macvlan
		{`{"subnet": "2001:db8::/32"}`, first.Name, ""},
		{`{"subnet": "203.0.113.0/24"}`, "", "no such parent interface: subnet 203.0.113.0/24"},
		{`{"mac": "` + strings.ToUpper(mac) + `"}`, second.Name, ""},
		{`{"defaultRoute": "any"}`, second.Name, ""},
		{`{"defaultRoute": "ipv6"}`, first.Name, ""},
		{`{"defaultRoute": "ipv4", "regex": "` + first.Name + `"}`, first.Name, ""},
		{`{"name": "` + first.Name + `", "mac": "` + mac + `"}`, "", "no such parent"},
		{`"eth9"`, "", "no such parent interface: eth9"},
	} {
		link, err := parse(t, c.doc).Resolve(pod)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v, %v; want the error %q", c.doc, link, err, c.err)
			}
		case err != nil:
			t.Errorf("%s: %v, want %s", c.doc, err, c.want)
		case link.Attrs().Name != c.want:
			t.Errorf("%s: %s, want %s", c.doc, link.Attrs().Name, c.want)
		}
	}
}

// A bond and its members have one MAC, a NIC and its VLANs too: the one that carries the others is meant.
func TestResolveStacked(t *testing.T) {
	nettest.NeedKernel(t, nettest.VLAN, nettest.Bond)
	ns := nettest.NewNS(t)
	h := ns.Handle()
	nic, member := nettest.Parent(t, ns), nettest.Parent(t, ns)
	add := func(l netlink.Link) {
		t.Helper()
		if err := h.LinkAdd(l); err != nil {
			t.Fatal(err)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = "vlan7", ns.Link(t, nic.Name).Attrs().Index
	add(&netlink.Vlan{LinkAttrs: attrs, VlanId: 7})
	attrs = netlink.NewLinkAttrs()
	attrs.Name = "bond9"
	bond := netlink.NewLinkBond(attrs)
	bond.Mode = netlink.BOND_MODE_ACTIVE_BACKUP
	add(bond)
	link := ns.Link(t, member.Name)
	if err := errors.Join(h.LinkSetDown(link), h.LinkSetMaster(link, bond)); err != nil {
		t.Fatal(err)
	}
	pod, err := netdev.Open(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	for _, want := range []string{nic.Name, "bond9"} {
		mac := ns.Link(t, want).Attrs().HardwareAddr.String()
		got, err := parse(t, `{"mac": "`+mac+`"}`).Resolve(pod)
		if err != nil || got.Attrs().Name != want {
			t.Errorf("%s: %v, %v; want %s", mac, got, err, want)
		}
	}
}

// TestTogether: what is looked for together is looked up once, and anew by who does not belong to them.
func TestTogether(t *testing.T) {
	ns := nettest.NewNS(t)
	pod, err := netdev.Open(ns.Path())
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	resolve := func(ctx context.Context, doc string) (int, error) {
		link, err := parse(t, doc).ResolveOnce(ctx, pod)
		if err != nil {
			return 0, err
		}
		return link.Attrs().Index, nil
	}
	together := Together(t.Context())
	lo, err := resolve(together, `"lo"`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := resolve(together, `"eth1"`); !errors.Is(err, ErrNotFound) {
		t.Errorf("an interface that is not there: %v", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth1"
	if err := ns.Handle().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far"}); err != nil {
		t.Fatal(err)
	}
	if _, err := resolve(together, `"eth1"`); !errors.Is(err, ErrNotFound) {
		t.Errorf("it was looked up again: %v", err)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if again, err := resolve(together, `"lo"`); err != nil || again != lo {
				t.Errorf("found %d (%v), want %d", again, err, lo)
			}
			if other, err := resolve(together, `{"name": "lo"}`); err != nil || other != lo {
				t.Errorf("found %d (%v), want %d", other, err, lo)
			}
		})
	}
	all.Wait()
	for _, ctx := range []context.Context{t.Context(), Together(together)} {
		if index, err := resolve(ctx, `"eth1"`); err != nil || index == lo {
			t.Errorf("found %d (%v), want eth1", index, err)
		}
	}
}

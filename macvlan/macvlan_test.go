package macvlan_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/internal/manpage"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/internal/refplugins"
	"github.com/braid-cni/braid/ipam/hostlocal"
	"github.com/braid-cni/braid/ipam/static"
	"github.com/braid-cni/braid/macvlan"
)

func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }

var plugin = macvlan.Plugin{Find: func(pluginType string) cni.Plugin {
	switch pluginType {
	case "host-local":
		return hostlocal.Plugin{}
	case "static":
		return static.Plugin{}
	}
	return cni.Exec{Type: pluginType}
}}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a node with one NIC, a pod, and a request to attach it.
type world struct {
	*testing.T
	plugin cni.Plugin
	node   *nettest.NS
	nic    *nettest.NIC
	pod    *nettest.NS
	req    *cni.Request
}

func newWorld(t *testing.T, keys string) *world {
	t.Helper()
	nettest.LeakCheck(t)
	w := &world{T: t, plugin: plugin, node: nettest.Node(t)}
	w.nic = nettest.Parent(t, w.node)
	w.nic.LAN.Address(t, w.nic.Port, "192.0.2.1/24", "2001:db8::1/64")
	w.newPod(keys)
	return w
}

// newPod makes another pod. The keys are those of the configuration besides the usual ones; NIC stands for the parent.
func (w *world) newPod(keys string) {
	w.Helper()
	w.pod = nettest.NewNS(w)
	w.req = &cni.Request{
		Attachment: cni.Attachment{ContainerID: nettest.Name("pod-"), Netns: w.pod.Path(), IfName: "net1"},
		Path:       []string{refplugins.Dir(w)},
		Config:     w.config(keys),
	}
}

func (w *world) config(keys string) []byte {
	keys = strings.ReplaceAll(keys, "NIC", w.nic.Name)
	if keys != "" {
		keys = ", " + keys
	}
	return []byte(`{"cniVersion": "1.1.0", "name": "lan", "type": "macvlan"` + keys + `}`)
}

// fixed is an "ipam" with fixed addresses, each "address" or "address gateway".
func fixed(addresses ...string) string {
	var list []string
	for _, a := range addresses {
		address, gw, _ := strings.Cut(a, " ")
		entry := fmt.Sprintf(`{"address": %q`, address)
		if gw != "" {
			entry += fmt.Sprintf(`, "gateway": %q`, gw)
		}
		list = append(list, entry+"}")
	}
	return `"ipam": {"type": "static", "addresses": [` + strings.Join(list, ",") + `]}`
}

func (w *world) add() *types100.Result {
	w.Helper()
	res, err := w.plugin.Add(w.Context(), w.req)
	must(w.T, err)
	return res
}

// refused says that ADD fails with a code and a text, and leaves nothing.
func (w *world) refused(code uint, text string) {
	w.Helper()
	_, err := w.plugin.Add(w.Context(), w.req)
	w.isError(err, code, text)
	if links := w.pod.Links(w); len(links) != 0 {
		w.Errorf("ADD that failed left %v", links)
	}
}

func (w *world) isError(err error, code uint, text string) {
	w.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		w.Errorf("got %v, want an error with %q", err, text)
		return
	}
	var ce *types.Error
	if errors.As(err, &ce); code != 0 && (ce == nil || ce.Code != code) {
		w.Errorf("the error has code %v, want %d: %v", ce, code, err)
	}
}

// later is the request with the result of ADD.
func (w *world) later(res *types100.Result) *cni.Request {
	w.Helper()
	doc, err := cni.MarshalResult(res, "1.1.0")
	must(w.T, err)
	req := *w.req
	req.Config = bytes.Replace(req.Config, []byte("{"), []byte(`{"prevResult": `+string(doc)+`, `), 1)
	return &req
}

func (w *world) check(res *types100.Result) error {
	w.Helper()
	return w.plugin.Check(w.Context(), w.later(res))
}

func (w *world) link() *netlink.Macvlan {
	w.Helper()
	return w.pod.Link(w, "net1").(*netlink.Macvlan)
}

// TestCheckAllowsAnotherMTU, if the result has it: a later plugin of the chain may have changed it.
func TestCheckAllowsAnotherMTU(t *testing.T) {
	w := newWorld(t, `"master": "NIC", "mtu": 1400`)
	res := w.add()
	must(t, w.pod.Handle().LinkSetMTU(w.link(), 1300))
	res.Interfaces[0].Mtu = 1300
	must(t, w.check(res))
}

func TestConformance(t *testing.T) {
	node := nettest.Node(t)
	for name, subject := range map[string]struct {
		keys, failing string
		layer2        bool
	}{
		"host-local": {
			keys: `"ipam": {"type": "host-local", "dataDir": "DIR", "ranges": [[{"subnet": "192.0.2.0/24"}]],
				"routes": [{"dst": "203.0.113.0/24"}]}`,
			failing: `"ipam": {"type": "host-local", "dataDir": "DIR", "ranges": [[{"subnet": "192.0.2.0/24"}]],
				"routes": [{"dst": "198.51.100.0/24", "gw": "203.0.113.1"}]}`,
		},
		"layer 2":     {keys: `"mode": "private"`, layer2: true},
		"host access": {keys: `"hostAccess": true, "ipam": {"type": "host-local", "dataDir": "DIR", "ranges": [[{"subnet": "192.0.2.0/24"}]]}`},
	} {
		t.Run(name, func(t *testing.T) {
			cnitest.Run(t, func(t *testing.T) *cnitest.Subject {
				dir := t.TempDir()
				nic := nettest.Parent(t, node)
				node.Address(t, nic.Name, "192.0.2.254/24")
				config := func(keys string) []byte {
					return []byte(`{"name": "blue", "type": "macvlan", "master": "` + nic.Name + `", ` + strings.ReplaceAll(keys, "DIR", dir) + `}`)
				}
				s := &cnitest.Subject{
					Plugin: plugin,
					Config: config(subject.keys),
					Path:   []string{refplugins.Dir(t)},
					Layer2: subject.layer2,
					Leaked: func() error { return reservations(dir) },
				}
				if subject.failing != "" {
					s.Failing = map[string][]byte{"a gateway that cannot be reached": config(subject.failing)}
				}
				return s
			})
		})
	}
}

func reservations(dir string) error {
	entries, err := os.ReadDir(dir + "/blue")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if net.ParseIP(e.Name()) != nil {
			err = errors.Join(err, fmt.Errorf("address %s is still reserved", e.Name()))
		}
	}
	return err
}

func TestModes(t *testing.T) {
	for mode, want := range map[string]netlink.MacvlanMode{
		"":         netlink.MACVLAN_MODE_BRIDGE,
		"bridge":   netlink.MACVLAN_MODE_BRIDGE,
		"private":  netlink.MACVLAN_MODE_PRIVATE,
		"vepa":     netlink.MACVLAN_MODE_VEPA,
		"passthru": netlink.MACVLAN_MODE_PASSTHRU,
	} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, fmt.Sprintf(`"master": "NIC", "mode": %q, %s`, mode, fixed("192.0.2.2/24")))
			res := w.add()
			link := w.link()
			if link.Mode != want || link.MTU != 1500 || link.NumTxQueues != 1 {
				t.Errorf("mode %v, MTU %d, queues %d; want %v, 1500, 1", link.Mode, link.MTU, link.NumTxQueues, want)
			}
			wantResult := &types100.Result{
				CNIVersion: "1.1.0",
				Interfaces: []*types100.Interface{{Name: "net1", Mac: link.HardwareAddr.String(), Mtu: 1500, Sandbox: w.pod.Path()}},
				IPs: []*types100.IPConfig{{Interface: types100.Int(0),
					Address: net.IPNet{IP: net.ParseIP("192.0.2.2"), Mask: net.CIDRMask(24, 32)}}},
			}
			if diff := cmp.Diff(wantResult, res); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			nettest.Reach(t, w.pod, w.nic.LAN, "192.0.2.1")
			must(t, w.check(res))
			must(t, w.plugin.Status(t.Context(), w.req))
			must(t, w.plugin.Del(t.Context(), w.later(res)))
		})
	}
}

// Pods on one parent reach each other in bridge mode only, and through the wire in none without a switch that helps.
func TestPodsReachEachOther(t *testing.T) {
	for mode, reach := range map[string]bool{"bridge": true, "private": false} {
		t.Run(mode, func(t *testing.T) {
			w := newWorld(t, `"master": "NIC", "mode": "`+mode+`", `+fixed("192.0.2.2/24"))
			w.add()
			first := w.pod
			w.newPod(`"master": "NIC", "mode": "` + mode + `", ` + fixed("192.0.2.3/24"))
			w.add()
			if reach {
				nettest.Reach(t, first, w.pod, "192.0.2.3")
			} else {
				nettest.NoReach(t, first, w.pod, "192.0.2.3")
			}
		})
	}
}

func TestSourceMode(t *testing.T) {
	w := newWorld(t, "")
	known := w.nic.LAN.Link(t, w.nic.Port).Attrs().HardwareAddr.String()
	w.req.Config = w.config(`"master": "NIC", "mode": "source", "sourceMACs": ["02:00:00:00:00:07"], ` + fixed("192.0.2.2/24"))
	w.add()
	nettest.NoReach(t, w.pod, w.nic.LAN, "192.0.2.1")

	w.newPod(`"master": "NIC", "mode": "source", "sourceMACs": ["02:00:00:00:00:07", "` + known + `"], ` + fixed("192.0.2.3/24"))
	res := w.add()
	nettest.Reach(t, w.pod, w.nic.LAN, "192.0.2.1")
	must(t, w.check(res))
	must(t, w.pod.Handle().MacvlanMACAddrFlush(w.link()))
	w.isError(w.check(res), 0, "accepts the sources")
}

func TestMAC(t *testing.T) {
	w := newWorld(t, `"master": "NIC", "mac": "02:00:00:00:00:01"`)
	w.req.Args = "IgnoreUnknown=1;MAC=02:00:00:00:00:02"
	res := w.add()
	if got := w.link().HardwareAddr.String(); got != "02:00:00:00:00:02" || res.Interfaces[0].Mac != got {
		t.Errorf("MAC is %s, %s in the result; want 02:00:00:00:00:02", got, res.Interfaces[0].Mac)
	}
	w.newPod(`"master": "NIC", "runtimeConfig": {"mac": "02:00:00:00:00:02"}`)
	w.refused(0, "another interface on this parent has that MAC")
	w.newPod(`"master": "NIC", "runtimeConfig": {"mac": "01:00:00:00:00:02"}`)
	w.refused(types.ErrInvalidNetworkConfig, "runtimeConfig.mac")
}

func TestRefused(t *testing.T) {
	w := newWorld(t, "")
	for keys, want := range map[string]struct {
		code uint
		text string
	}{
		`"master": "NIC", "mode": "bridged"`:                                        {types.ErrUnsupportedField, `mode: found "bridged", want one of bridge, passthru, private`},
		`"master": "NIC", "mtu": -1`:                                                {types.ErrInvalidNetworkConfig, "mtu: -1 is negative"},
		`"master": "NIC", "mtu": 1501`:                                              {types.ErrInvalidNetworkConfig, "mtu: 1501 is more than the 1500 of the parent " + w.nic.Name},
		`"master": "NIC", "mtu": "big"`:                                             {types.ErrInvalidNetworkConfig, "mtu: found string, want int"},
		`"master": "NIC", "bcqueuelen": -1`:                                         {types.ErrInvalidNetworkConfig, "bcqueuelen: found number -1, want uint32"},
		`"master": "NIC", "numTxQueues": 1e6`:                                       {types.ErrInvalidNetworkConfig, "numTxQueues"},
		`"master": "absent0"`:                                                       {types.ErrPluginNotAvailable, "master: no such parent interface: absent0"},
		`"master": {"subnet": "198.51.100.0/24"}`:                                   {types.ErrPluginNotAvailable, "subnet 198.51.100.0/24"},
		`"master": {"regexp": "x"}`:                                                 {types.ErrInvalidNetworkConfig, `unknown field "regexp"`},
		`"master": 3`:                                                               {types.ErrInvalidNetworkConfig, "master: "},
		``:                                                                          {types.ErrPluginNotAvailable, "default route"},
		`"master": "NIC", "mode": "source"`:                                         {types.ErrInvalidNetworkConfig, "sourceMACs: found 0"},
		`"master": "NIC", "sourceMACs": ["02:00:00:00:00:01"]`:                      {types.ErrInvalidNetworkConfig, `sourceMACs: found 1 addresses with mode "bridge"`},
		`"master": "NIC", "mode": "source", "sourceMACs": ["x"]`:                    {types.ErrInvalidNetworkConfig, `sourceMACs[0]: "x" is no MAC`},
		`"master": "NIC", "mode": "private", "hostAccess": true`:                    {types.ErrInvalidNetworkConfig, "hostAccess: it needs mode"},
		`"master": "NIC", "linkInContainer": true, "hostAccess": true`:              {types.ErrInvalidNetworkConfig, "hostAccess: it needs a parent of the node"},
		`"master": "NIC", "linkInContainer": true`:                                  {types.ErrPluginNotAvailable, "no such parent interface: " + w.nic.Name},
		`"master": "NIC", "hostAccess": true, ` + fixed("192.0.2.2/24"):             {0, "hostAccess: the node has no address on the parent " + w.nic.Name},
		`"master": "NIC", "ipam": {"type": "absent"}`:                               {types.ErrPluginNotAvailable, `"absent" not found`},
		`"master": "NIC", "ipam": {"type": "static"}`:                               {0, "no address"},
		`"master": "NIC", "prevResult": {"cniVersion": "1.1.0", "interfaces": "x"}`: {types.ErrDecodingFailure, "prevResult"},
		`"master": "NIC", "ipam": {"type": "static", "addresses": [{"address": "192.0.2.2/24"}],
			"routes": [{"dst": "198.51.100.0/24", "gw": "203.0.113.1"}]}`: {0, "add route 198.51.100.0/24 via 203.0.113.1"},
	} {
		w.newPod(keys)
		w.refused(want.code, want.text)
	}
	w.newPod("")
	w.req.Config = []byte(`{`)
	w.refused(types.ErrDecodingFailure, "decode configuration")
}

// "If an interface of the requested name already exists in the container, the CNI plugin MUST return with an error." And
// the DEL that follows such an error must not take somebody else's interface.
func TestNameTaken(t *testing.T) {
	w := newWorld(t, `"master": "NIC"`)
	other := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "net1"}, PeerName: "peer"}
	must(t, w.pod.Handle().LinkAdd(other))
	_, err := w.plugin.Add(t.Context(), w.req)
	w.isError(err, 0, "net1 exists already")
	must(t, w.plugin.Del(t.Context(), w.req))
	if got := w.pod.Link(t, "net1").Type(); got != "veth" {
		t.Errorf("net1 is a %s now", got)
	}
}

func TestDNS(t *testing.T) {
	ipam := `"ipam": {"type": "static", "addresses": [{"address": "192.0.2.2/24"}], "dns": {"nameservers": ["192.0.2.53"]}}`
	w := newWorld(t, `"master": "NIC", `+ipam)
	if res := w.add(); !slices.Equal(res.DNS.Nameservers, []string{"192.0.2.53"}) {
		t.Errorf("DNS of the IPAM plugin: %v", res.DNS)
	}
	w.newPod(`"master": "NIC", "dns": {"nameservers": ["192.0.2.54"]}, ` + ipam)
	if res := w.add(); !slices.Equal(res.DNS.Nameservers, []string{"192.0.2.54"}) {
		t.Errorf("DNS of the configuration: %v", res.DNS)
	}
}

func TestDefaultRouteParent(t *testing.T) {
	w := newWorld(t, fixed("192.0.2.2/24"))
	w.node.Address(t, w.nic.Name, "192.0.2.254/24")
	route := &netlink.Route{LinkIndex: w.node.Link(t, w.nic.Name).Attrs().Index, Gw: net.ParseIP("192.0.2.1")}
	must(t, w.node.Handle().RouteAdd(route))
	res := w.add()
	nettest.Reach(t, w.pod, w.nic.LAN, "192.0.2.1")
	must(t, w.node.Handle().RouteDel(route))
	must(t, w.check(res)) // what it was stacked on is still what it is stacked on
	must(t, w.plugin.Del(t.Context(), w.later(res)))
	w.isError(w.plugin.Status(t.Context(), w.req), types.ErrPluginNotAvailable, "default route")
}

// A neighbour that knows the address from another pod learns that it has moved.
func TestAnnounced(t *testing.T) {
	w := newWorld(t, `"master": "NIC", "enabledad": false, `+fixed("192.0.2.2/24", "2001:db8::2/64"))
	h, port := w.nic.LAN.Handle(), w.nic.LAN.Link(t, w.nic.Port).Attrs().Index
	ips := []net.IP{net.ParseIP("192.0.2.2"), net.ParseIP("2001:db8::2")}
	for _, ip := range ips {
		must(t, h.NeighSet(&netlink.Neigh{LinkIndex: port, IP: ip, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, 9}, State: netlink.NUD_STALE}))
	}
	w.add()
	for _, ip := range ips {
		known := func() string {
			list, err := h.NeighList(port, netlink.FAMILY_ALL)
			must(t, err)
			for _, n := range list {
				if n.IP.Equal(ip) {
					return n.HardwareAddr.String()
				}
			}
			return ""
		}
		deadline := time.Now().Add(5 * time.Second)
		for known() != w.link().HardwareAddr.String() && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		if got, want := known(), w.link().HardwareAddr.String(); got != want {
			t.Errorf("the neighbour knows %s as %s, want %s", ip, got, want)
		}
	}
}

func TestDuplicateAddress(t *testing.T) {
	w := newWorld(t, `"master": "NIC", `+fixed("2001:db8::1/64"))
	w.refused(0, "address 2001:db8::1/64 is in use by another host")
}

// Parents that are stacked themselves.
func TestVLANAndBond(t *testing.T) {
	nettest.NeedKernel(t, nettest.VLAN, nettest.Bond)
	w := newWorld(t, "")
	node, lan := w.node.Handle(), w.nic.LAN.Handle()
	bond := netlink.NewLinkBond(netlink.LinkAttrs{Name: nettest.Name("bond")})
	bond.Mode = netlink.BOND_MODE_ACTIVE_BACKUP
	must(t, node.LinkAdd(bond))
	nic := w.node.Link(t, w.nic.Name)
	must(t, errors.Join(node.LinkSetDown(nic), node.LinkSetMaster(nic, bond), node.LinkSetUp(bond)))
	vlan := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: nettest.Name("vlan"), ParentIndex: bond.Index}, VlanId: 7}
	must(t, errors.Join(node.LinkAdd(vlan), node.LinkSetUp(vlan)))
	far := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "vlan7", ParentIndex: w.nic.LAN.Link(t, w.nic.Port).Attrs().Index}, VlanId: 7}
	must(t, errors.Join(lan.LinkAdd(far), lan.LinkSetUp(far)))
	w.nic.LAN.Address(t, "vlan7", "198.51.100.1/24")
	t.Cleanup(func() { must(t, errors.Join(node.LinkDel(vlan), node.LinkDel(bond))) })

	for parent, c := range map[string]struct{ address, answers string }{
		bond.Name: {"192.0.2.2/24", "192.0.2.1"},
		vlan.Name: {"198.51.100.2/24", "198.51.100.1"},
	} {
		w.newPod(`"master": "` + parent + `", ` + fixed(c.address))
		res := w.add()
		nettest.Reach(t, w.pod, w.nic.LAN, c.answers)
		must(t, w.check(res))
		must(t, w.plugin.Del(t.Context(), w.later(res)))
	}
}

// A parent that the node keeps in a routing domain of its own is as good as any: frames pass below it.
func TestVRF(t *testing.T) {
	nettest.NeedKernel(t, nettest.VRF)
	w := newWorld(t, "")
	node := w.node.Handle()
	vrf := &netlink.Vrf{LinkAttrs: netlink.LinkAttrs{Name: nettest.Name("vrf")}, Table: 77}
	must(t, node.LinkAdd(vrf))
	t.Cleanup(func() { must(t, node.LinkDel(vrf)) })
	must(t, errors.Join(node.LinkSetUp(vrf), node.LinkSetMaster(w.node.Link(t, w.nic.Name), vrf)))

	w.newPod(`"master": "NIC", ` + fixed("192.0.2.2/24"))
	res := w.add()
	nettest.Reach(t, w.pod, w.nic.LAN, "192.0.2.1")
	must(t, w.check(res))
	must(t, w.plugin.Del(t.Context(), w.later(res)))
}

func TestLinkInContainer(t *testing.T) {
	w := newWorld(t, "")
	inner := nettest.Parent(t, w.pod)
	inner.LAN.Address(t, inner.Port, "198.51.100.1/24")
	before := w.pod.Links(t)
	w.req.Config = w.config(`"master": "` + inner.Name + `", "linkInContainer": true, ` + fixed("198.51.100.2/24"))
	res := w.add()
	nettest.Reach(t, w.pod, inner.LAN, "198.51.100.1")
	must(t, w.check(res))
	must(t, w.plugin.Del(t.Context(), w.later(res)))
	if after := w.pod.Links(t); !slices.Equal(before, after) {
		t.Errorf("after DEL the pod has %v, before ADD %v", after, before)
	}
}

func TestChained(t *testing.T) {
	w := newWorld(t, "")
	prev := `"prevResult": {"cniVersion": "1.1.0",
		"interfaces": [{"name": "NIC"}, {"name": "eth0", "sandbox": "/run/netns/x", "mac": "02:00:00:00:00:01"}],
		"ips": [{"address": "10.0.0.2/24", "interface": 1}, {"address": "192.0.2.2/24", "gateway": "192.0.2.1", "interface": 0}],
		"routes": [{"dst": "198.51.100.0/24"}], "dns": {"nameservers": ["10.0.0.1"]}}`
	w.req.Config = w.config(prev) // the parent is the only interface of the node
	res := w.add()
	doc, err := json.Marshal(res)
	must(t, err)
	want := fmt.Sprintf(`{"cniVersion":"1.1.0","dns":{"nameservers":["10.0.0.1"]},"interfaces":[{"name":%q},`+
		`{"mac":"02:00:00:00:00:01","name":"eth0","sandbox":"/run/netns/x"},{"mac":%q,"mtu":1500,"name":"net1","sandbox":%q}],`+
		`"ips":[{"address":"10.0.0.2/24","interface":1},{"address":"192.0.2.2/24","gateway":"192.0.2.1","interface":2}],`+
		`"routes":[{"dst":"198.51.100.0/24"}]}`, w.nic.Name, w.link().HardwareAddr, w.pod.Path())
	if diff := cmp.Diff(want, string(doc)); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	nettest.Reach(t, w.pod, w.nic.LAN, "192.0.2.1")
	w.req.Config = w.config("")
	must(t, w.check(res))
}

func TestCheckFindsEveryDifference(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(w *world) error
		want string
	}{
		"parent down": {func(w *world) error { return w.node.Handle().LinkSetDown(w.node.Link(w, w.nic.Name)) }, "the parent"},
		"mode": {func(w *world) error {
			return w.pod.Handle().LinkSetMacvlanMode(w.link(), netlink.MACVLAN_MODE_PRIVATE)
		}, `another mode than "bridge"`},
		"mtu": {func(w *world) error { return w.pod.Handle().LinkSetMTU(w.link(), 1300) }, "MTU 1300, want 1400"},
		"mac": {func(w *world) error {
			return w.pod.Handle().LinkSetHardwareAddr(w.link(), net.HardwareAddr{2, 0, 0, 0, 0, 9})
		}, "has MAC 02:00:00:00:00:09"},
		"queue": {func(w *world) error {
			w.req.Config = bytes.Replace(w.req.Config, []byte("2000"), []byte("3000"), 1)
			return nil
		}, "bcqueuelen 2000, want 3000"},
		"another parent": {func(w *world) error {
			w.req.Config = bytes.Replace(w.req.Config, []byte(w.nic.Name), []byte(nettest.Parent(w, w.node).Name), 1)
			return nil
		}, "is stacked on"},
		"another type": {func(w *world) error {
			h := w.pod.Handle()
			veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "net1", HardwareAddr: w.link().HardwareAddr, MTU: 1400}, PeerName: "p"}
			return errors.Join(h.LinkDel(w.link()), h.LinkAdd(veth), h.LinkSetUp(veth))
		}, "is of type veth, want macvlan"},
		"reservation": {func(w *world) error {
			var conf struct{ IPAM struct{ DataDir string } }
			must(w.T, json.Unmarshal(w.req.Config, &conf))
			return os.Remove(conf.IPAM.DataDir + "/lan/192.0.2.2")
		}, "host-local"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, `"master": "NIC", "mtu": 1400, "bcqueuelen": 2000, "ipam": {"type": "host-local", "dataDir": "`+t.TempDir()+`",
				"ranges": [[{"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.2"}]]}`)
			res := w.add()
			must(t, w.check(res))
			must(t, c.do(w))
			w.isError(w.check(res), 0, c.want)
			// Before 1.1.0 a result has no MTU; the configuration has.
			if name == "mtu" {
				res.Interfaces[0].Mtu = 0
				w.isError(w.check(res), 0, c.want)
			}
		})
	}
}

// DEL releases the addresses and removes the interface, whatever else is wrong or gone.
func TestDelNeedsNothing(t *testing.T) {
	for name, spoil := range map[string]func(w *world){
		"nothing is wrong": func(*world) {},
		"invalid values": func(w *world) {
			w.req.Config = bytes.Replace(w.req.Config, []byte(`"mtu": 1400`), []byte(`"mtu": -7, "mode": "x", "hostAccess": "y"`), 1)
		},
		"no parent":    func(w *world) { must(w.T, w.node.Handle().LinkDel(w.node.Link(w, w.nic.Name))) },
		"no namespace": func(w *world) { w.pod.Remove(w) },
		"no netns":     func(w *world) { w.req.Netns = "" },
		"no interface": func(w *world) { must(w.T, w.pod.Handle().LinkDel(w.link())) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			w := newWorld(t, `"master": "NIC", "mtu": 1400, "ipam": {"type": "host-local", "dataDir": "`+dir+`", "subnet": "192.0.2.0/24"}`)
			w.add()
			spoil(w)
			must(t, w.plugin.Del(t.Context(), w.req))
			must(t, w.plugin.Del(t.Context(), w.req))
			if entries, _ := os.ReadDir(dir + "/lan"); slices.ContainsFunc(entries, func(e os.DirEntry) bool { return net.ParseIP(e.Name()) != nil }) {
				t.Errorf("an address is still reserved: %v", entries)
			}
		})
	}
}

// The addresses are released while the interface still exists, and the interface is removed though that fails.
func TestDelOrder(t *testing.T) {
	w := newWorld(t, `"master": "NIC", "ipam": {"type": "fake"}`)
	fake := &cnitest.Fake{
		Result: &types100.Result{IPs: []*types100.IPConfig{{Address: net.IPNet{IP: net.IP{192, 0, 2, 2}, Mask: net.CIDRMask(24, 32)}}}},
		On: func(_ context.Context, command string, _ *cni.Request) error {
			link := w.link()
			if up := link.Flags&net.FlagUp != 0; !up {
				t.Errorf("%s of the IPAM plugin with the interface down", command)
			}
			if command == "DEL" {
				return errors.New("the server does not answer")
			}
			return nil
		},
	}
	w.plugin = macvlan.Plugin{Find: func(string) cni.Plugin { return fake }}
	res := w.add()
	w.isError(w.plugin.Del(t.Context(), w.later(res)), 0, "the server does not answer")
	if links := w.pod.Links(t); len(links) != 0 {
		t.Errorf("DEL left %v", links)
	}
	if got, want := calls(fake), []string{"ADD net1", "DEL net1"}; !slices.Equal(got, want) {
		t.Errorf("the IPAM plugin was asked %v, want %v", got, want)
	}
}

// "If, on ADD, a delegated plugin fails, the upper plugin should execute again with DEL before returning failure."
func TestIPAMThatFailsIsAskedToDelete(t *testing.T) {
	w := newWorld(t, `"master": "NIC", "ipam": {"type": "fake"}`)
	fake := &cnitest.Fake{On: func(_ context.Context, command string, _ *cni.Request) error {
		if command == "ADD" {
			return types.NewError(types.ErrTryAgainLater, "no answer yet", "")
		}
		return nil
	}}
	w.plugin = macvlan.Plugin{Find: func(string) cni.Plugin { return fake }}
	w.refused(types.ErrTryAgainLater, "no answer yet")
	if got, want := calls(fake), []string{"ADD net1", "DEL net1"}; !slices.Equal(got, want) {
		t.Errorf("the IPAM plugin was asked %v, want %v", got, want)
	}
	w.req.Config = w.config(`"master": "NIC", "ipam": {"type": "fake"}, "cni.dev/valid-attachments": []`)
	must(t, w.plugin.GC(t.Context(), w.req))
	must(t, w.plugin.Status(t.Context(), w.req))
	if got := calls(fake)[2:]; !slices.Equal(got, []string{"GC net1", "STATUS net1"}) {
		t.Errorf("the IPAM plugin was asked %v", got)
	}
}

func TestExamples(t *testing.T) {
	for name, example := range manpage.Examples(t, "README.md") {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "")
			h := w.node.Handle()
			link := w.node.Link(t, w.nic.Name)
			must(t, errors.Join(h.LinkSetDown(link), h.LinkSetName(link, "eth1"), h.LinkSetUp(link)))
			w.node.Address(t, "eth1", "192.0.2.254/24", "2001:db8::254/64")
			must(t, h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: net.ParseIP("192.0.2.1")}))
			t.Cleanup(func() { must(t, w.plugin.Del(context.Background(), w.req)) })
			w.req.Config = []byte(example)
			if strings.Contains(example, "host-local") {
				w.req.Config = bytes.Replace(w.req.Config, []byte(`"type": "host-local"`), []byte(`"type": "host-local", "dataDir": "`+t.TempDir()+`"`), 1)
			}
			must(t, w.plugin.Status(t.Context(), w.req))
			res := w.add()
			must(t, w.check(res))
			if strings.Contains(example, `"ipam"`) {
				nettest.Reach(t, w.pod, w.nic.LAN, "192.0.2.1")
			}
			must(t, w.plugin.Del(t.Context(), w.later(res)))
			if links := w.pod.Links(t); len(links) != 0 {
				t.Errorf("DEL left %v", links)
			}
		})
	}
}

func calls(f *cnitest.Fake) (list []string) {
	for _, c := range f.Calls() {
		list = append(list, c.String())
	}
	return list
}

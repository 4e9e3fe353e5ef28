package ipvlan_test

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
	"github.com/braid-cni/braid/ipvlan"
)

func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }

var plugin = ipvlan.Plugin{Find: func(pluginType string) cni.Plugin {
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

func wantError(t *testing.T, err error, code uint, text string) {
	t.Helper()
	var ce *types.Error
	if err == nil || !strings.Contains(err.Error(), text) || code != 0 && (!errors.As(err, &ce) || ce.Code != code) {
		t.Errorf("got %v, want code %d and %q", err, code, text)
	}
}

// What is wrong with a configuration is found before the kernel is asked, so this needs no ipvlan.
func TestRefused(t *testing.T) {
	nettest.LeakCheck(t)
	pod := nettest.NewNS(t)
	for keys, want := range map[string]struct {
		code uint
		text string
	}{
		`"mode": "l4"`:                    {types.ErrUnsupportedField, `mode: found "l4", want one of l2, l3, l3s`},
		`"flag": "passthru"`:              {types.ErrUnsupportedField, `flag: found "passthru", want one of bridge, private, vepa`},
		`"mode": 2`:                       {types.ErrInvalidNetworkConfig, "mode: found number, want string"},
		`"mode": "l3", "probe": true`:     {types.ErrInvalidNetworkConfig, `probe: it needs mode "l2", found "l3"`},
		`"mtu": -1`:                       {types.ErrInvalidNetworkConfig, "mtu: -1 is negative"},
		`"master": "absent0"`:             {types.ErrPluginNotAvailable, "master: no such parent interface: absent0"},
		`"mac": "02:00:00:00:00:01"`:      {types.ErrUnsupportedField, "mac: 02:00:00:00:00:01 cannot be had"},
		`"runtimeConfig": {"mac": "x"}`:   {types.ErrInvalidNetworkConfig, "runtimeConfig.mac"},
		`"master": {"regex": "("}`:        {types.ErrInvalidNetworkConfig, "master.regex"},
		`"ipam": {"type": "../etc/ipam"}`: {types.ErrInvalidNetworkConfig, "ipam.type"},
	} {
		_, err := plugin.Add(t.Context(), &cni.Request{
			Attachment: cni.Attachment{ContainerID: "pod", Netns: pod.Path(), IfName: "net1"},
			Config:     []byte(`{"cniVersion": "1.1.0", "name": "lan", "type": "ipvlan", ` + keys + `}`),
		})
		wantError(t, err, want.code, want.text)
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
	nettest.NeedKernel(t, nettest.IPVLAN)
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
	if keys != "" {
		keys = ", " + strings.ReplaceAll(keys, "NIC", w.nic.Name)
	}
	return []byte(`{"cniVersion": "1.1.0", "name": "lan", "type": "ipvlan"` + keys + `}`)
}

func fixed(addresses ...string) string {
	var list []string
	for _, a := range addresses {
		list = append(list, fmt.Sprintf(`{"address": %q}`, a))
	}
	return `"ipam": {"type": "static", "addresses": [` + strings.Join(list, ",") + `]}`
}

func (w *world) add() *types100.Result {
	w.Helper()
	res, err := w.plugin.Add(w.Context(), w.req)
	must(w.T, err)
	return res
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

func (w *world) del(res *types100.Result) {
	w.Helper()
	must(w.T, w.plugin.Del(w.Context(), w.later(res)))
	if links := w.pod.Links(w); len(links) != 0 {
		w.Errorf("DEL left %v", links)
	}
}

func (w *world) link() *netlink.IPVlan {
	w.Helper()
	return w.pod.Link(w, "net1").(*netlink.IPVlan)
}

// routed puts the pods on a subnet of their own behind the node, which is what the L3 modes are for: nobody answers ARP
// for them.
func (w *world) routed() {
	w.Helper()
	w.node.Address(w, w.nic.Name, "192.0.2.254/24", "2001:db8::254/64")
	for dst, gw := range map[string]string{"198.51.100.0/24": "192.0.2.254", "2001:db8:1::/64": "2001:db8::254"} {
		_, subnet, err := net.ParseCIDR(dst)
		must(w.T, err)
		must(w.T, w.nic.LAN.Handle().RouteAdd(&netlink.Route{Dst: subnet, Gw: net.ParseIP(gw)}))
	}
}

func TestModesAndFlags(t *testing.T) {
	modes := map[string]netlink.IPVlanMode{"": netlink.IPVLAN_MODE_L2, "l2": netlink.IPVLAN_MODE_L2, "l3": netlink.IPVLAN_MODE_L3, "l3s": netlink.IPVLAN_MODE_L3S}
	flags := map[string]netlink.IPVlanFlag{"": netlink.IPVLAN_FLAG_BRIDGE, "private": netlink.IPVLAN_FLAG_PRIVATE, "vepa": netlink.IPVLAN_FLAG_VEPA}
	for mode, wantMode := range modes {
		for flag, wantFlag := range flags {
			t.Run(mode+" "+flag, func(t *testing.T) {
				w := newWorld(t, "")
				v4, v6 := "192.0.2.", "2001:db8::"
				if wantMode != netlink.IPVLAN_MODE_L2 {
					w.routed()
					v4, v6 = "198.51.100.", "2001:db8:1::"
				}
				keys := func(host string) string {
					return fmt.Sprintf(`"master": "NIC", "mode": %q, "flag": %q, "ipam": {"type": "static",
						"addresses": [{"address": "%s/24"}, {"address": "%s/64"}],
						"routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}`, mode, flag, v4+host, v6+host)
				}
				w.req.Config = w.config(keys("2"))
				res := w.add()
				link := w.link()
				if link.Mode != wantMode || link.Flag != wantFlag || link.MTU != 1500 || link.NumTxQueues != 1 {
					t.Errorf("mode %v, flag %v, MTU %d, queues %d; want %v, %v, 1500, 1",
						link.Mode, link.Flag, link.MTU, link.NumTxQueues, wantMode, wantFlag)
				}
				nettest.Reach(t, w.pod, w.nic.LAN, "192.0.2.1")
				nettest.Reach(t, w.nic.LAN, w.pod, v6+"2")
				must(t, w.check(res))
				must(t, w.plugin.Status(t.Context(), w.req))

				first := w.pod
				w.newPod(keys("3"))
				other := w.add()
				if flag == "" {
					nettest.Reach(t, first, w.pod, v4+"3")
				} else {
					nettest.NoReach(t, first, w.pod, v4+"3")
				}
				w.del(other)
			})
		}
	}
}

func TestResult(t *testing.T) {
	w := newWorld(t, `"master": "NIC", "ipam": {"type": "static",
		"addresses": [{"address": "192.0.2.2/24", "gateway": "192.0.2.1"}], "dns": {"nameservers": ["192.0.2.53"]}}`)
	res := w.add()
	doc, err := json.Marshal(res)
	must(t, err)
	mac := w.node.Link(t, w.nic.Name).Attrs().HardwareAddr.String()
	want := fmt.Sprintf(`{"cniVersion":"1.1.0","dns":{"nameservers":["192.0.2.53"]},"interfaces":[{"mac":%q,"mtu":1500,"name":"net1","sandbox":%q}],`+
		`"ips":[{"address":"192.0.2.2/24","gateway":"192.0.2.1","interface":0}]}`, mac, w.pod.Path())
	if diff := cmp.Diff(want, string(doc)); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	w.del(res)
}

func TestConformance(t *testing.T) {
	nettest.NeedKernel(t, nettest.IPVLAN)
	node := nettest.Node(t)
	cnitest.Run(t, func(t *testing.T) *cnitest.Subject {
		dir := t.TempDir()
		nic := nettest.Parent(t, node)
		config := func(routes string) []byte {
			return []byte(`{"name": "blue", "type": "ipvlan", "master": "` + nic.Name + `", "ipam": {"type": "host-local", "dataDir": "` + dir +
				`", "ranges": [[{"subnet": "192.0.2.0/24"}]], "routes": [` + routes + `]}}`)
		}
		return &cnitest.Subject{
			Plugin:  plugin,
			Config:  config(`{"dst": "203.0.113.0/24"}`),
			Failing: map[string][]byte{"a gateway that cannot be reached": config(`{"dst": "203.0.113.0/24", "gw": "198.51.100.1"}`)},
			Path:    []string{refplugins.Dir(t)},
			Leaked:  func() error { return reservations(dir) },
			Deviations: map[string]string{
				"two attachments of one container": "they share the MAC of the parent",
				"containers in parallel":           "they share the MAC of the parent",
			},
		}
	})
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

// As the reference test has it: an earlier plugin has found the parent and an address for the pod.
func TestChained(t *testing.T) {
	w := newWorld(t, "")
	w.req.Config = w.config(`"prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "NIC"}],
		"ips": [{"address": "192.0.2.2/24", "gateway": "192.0.2.1", "interface": 0}], "routes": [{"dst": "0.0.0.0/0"}]}`)
	res := w.add()
	doc, err := json.Marshal(res)
	must(t, err)
	want := fmt.Sprintf(`{"cniVersion":"1.1.0","interfaces":[{"name":%q},{"mac":%q,"mtu":1500,"name":"net1","sandbox":%q}],`+
		`"ips":[{"address":"192.0.2.2/24","gateway":"192.0.2.1","interface":1}],"routes":[{"dst":"0.0.0.0/0"}]}`,
		w.nic.Name, w.link().HardwareAddr, w.pod.Path())
	if diff := cmp.Diff(want, string(doc)); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
	w.nic.LAN.Address(t, "lo", "198.51.100.1/32")
	nettest.Reach(t, w.pod, w.nic.LAN, "198.51.100.1")
	w.req.Config = w.config("")
	must(t, w.check(res))
	w.del(res)
}

func TestWithoutIPAM(t *testing.T) {
	w := newWorld(t, `"master": "NIC", "mtu": 1400`)
	res := w.add()
	if w.link().Flags&net.FlagUp == 0 || w.link().MTU != 1400 || len(res.IPs) != 0 {
		t.Errorf("%+v, %v", w.link(), res)
	}
	must(t, w.check(res))
	w.del(res)
}

func TestMTU(t *testing.T) {
	w := newWorld(t, `"master": "NIC", "mtu": 1501`)
	_, err := w.plugin.Add(t.Context(), w.req)
	wantError(t, err, types.ErrInvalidNetworkConfig, "mtu: 1501 is more than the 1500 of the parent "+w.nic.Name)
}

func TestMacvlanOnTheSameParent(t *testing.T) {
	w := newWorld(t, `"master": "NIC"`)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = nettest.Name("mv"), w.node.Link(t, w.nic.Name).Attrs().Index
	must(t, w.node.Handle().LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}))
	_, err := w.plugin.Add(t.Context(), w.req)
	wantError(t, err, 0, "macvlan and ipvlan at once")
	must(t, w.node.Handle().LinkDel(w.node.Link(t, attrs.Name)))
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

func TestCheckFindsEveryDifference(t *testing.T) {
	w := newWorld(t, `"master": "NIC", `+fixed("192.0.2.2/24"))
	res := w.add()
	first := w.later(res)
	must(t, w.plugin.Check(t.Context(), first))

	// The mode belongs to the parent: another network changes it for all.
	w.newPod(`"master": "NIC", "mode": "l3", ` + fixed("192.0.2.3/24"))
	other := w.add()
	wantError(t, w.plugin.Check(t.Context(), first), 0, "of another mode than")
	w.del(other)

	first.Config = bytes.Replace(first.Config, []byte(`"master": "`+w.nic.Name), []byte(`"mode": "l3", "master": "`+nettest.Parent(t, w.node).Name), 1)
	wantError(t, w.plugin.Check(t.Context(), first), 0, "is stacked on "+w.nic.Name)
}

func TestDelNeedsNothing(t *testing.T) {
	for name, spoil := range map[string]func(w *world){
		"invalid values": func(w *world) { w.req.Config = bytes.Replace(w.req.Config, []byte(`"l2"`), []byte(`"l7"`), 1) },
		"no parent":      func(w *world) { must(w.T, w.node.Handle().LinkDel(w.node.Link(w, w.nic.Name))) },
		"no namespace":   func(w *world) { w.pod.Remove(w) },
		"no netns":       func(w *world) { w.req.Netns = "" },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			w := newWorld(t, `"master": "NIC", "mode": "l2", "ipam": {"type": "host-local", "dataDir": "`+dir+`", "subnet": "192.0.2.0/24"}`)
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

func TestExamples(t *testing.T) {
	for name, example := range manpage.Examples(t, "README.md") {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "")
			h := w.node.Handle()
			link := w.node.Link(t, w.nic.Name)
			must(t, errors.Join(h.LinkSetDown(link), h.LinkSetName(link, "eth1"), h.LinkSetUp(link)))
			w.nic.Name = "eth1"
			w.routed()
			t.Cleanup(func() { must(t, w.plugin.Del(context.Background(), w.req)) })
			w.req.Config = bytes.Replace([]byte(example), []byte(`"type": "host-local"`), []byte(`"type": "host-local", "dataDir": "`+t.TempDir()+`"`), 1)
			must(t, w.plugin.Status(t.Context(), w.req))
			res := w.add()
			must(t, w.check(res))
			if strings.Contains(example, `"ipam"`) {
				nettest.Reach(t, w.pod, w.nic.LAN, "192.0.2.1")
			}
			w.del(res)
		})
	}
}

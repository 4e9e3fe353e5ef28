package bridge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/bridge"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/internal/refplugins"
	"github.com/braid-cni/braid/ipam/hostlocal"
	"github.com/braid-cni/braid/ipam/static"
)

var plugin = bridge.Plugin{Find: func(pluginType string) cni.Plugin {
	switch pluginType {
	case "host-local":
		return hostlocal.Plugin{}
	case "static":
		return static.Plugin{}
	}
	return cni.Exec{Type: pluginType}
}}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is a node without a bridge, whose name is known though, and whatever pods the test attaches.
type world struct {
	testing.TB
	plugin cni.Plugin
	node   *nettest.NS
	bridge string
	data   string // of host-local
}

func newWorld(t testing.TB) *world {
	t.Helper()
	nettest.LeakCheck(t)
	w := &world{TB: t, plugin: plugin, node: nettest.Node(t), bridge: nettest.Name("br"), data: t.TempDir()}
	t.Cleanup(func() {
		w.noRules()
		w.deleteBridge()
	})
	return w
}

// deleteBridge removes what stays when the last pod has gone.
func (w *world) deleteBridge() {
	w.Helper()
	for _, name := range w.node.Links(w) {
		if name == w.bridge || strings.HasPrefix(name, w.bridge+".") {
			must(w, w.node.Handle().LinkDel(w.node.Link(w, name)))
		}
	}
}

// noRules fails the test if there is any of nf_tables.
func (w *world) noRules() {
	w.Helper()
	if err := rules(); err != nil {
		w.Error(err)
	}
}

func rules() error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	tables, err := c.ListTables()
	for _, table := range tables {
		err = errors.Join(err, fmt.Errorf("nf_tables has the table %s", table.Name))
	}
	return err
}

// config returns a configuration with some keys besides the usual ones. BRIDGE and DATA stand for names of this world.
func (w *world) config(keys string) []byte {
	if keys != "" {
		keys = ", " + keys
	}
	keys = strings.NewReplacer("BRIDGE", w.bridge, "DATA", w.data).Replace(keys)
	return []byte(`{"cniVersion": "1.1.0", "name": "blue", "type": "bridge", "bridge": "` + w.bridge + `"` + keys + `}`)
}

// hostLocal is an "ipam" with a range per subnet.
func hostLocal(subnets ...string) string {
	var sets []string
	for _, s := range subnets {
		sets = append(sets, fmt.Sprintf(`[{"subnet": %q}]`, s))
	}
	return `"ipam": {"type": "host-local", "dataDir": "DATA", "ranges": [` + strings.Join(sets, ", ") + `]}`
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

const (
	dual    = `"isDefaultGateway": true, "ipMasq": true, `
	subnet4 = "10.88.0.0/24"
	subnet6 = "2001:db8:88::/64"
)

// pod is a namespace and the request to attach it.
type pod struct {
	*world
	ns  *nettest.NS
	req *cni.Request
	res *types100.Result
}

func (w *world) pod(keys string) *pod {
	w.Helper()
	ns := nettest.NewNS(w)
	p := &pod{world: w, ns: ns, req: &cni.Request{
		Attachment: cni.Attachment{ContainerID: nettest.Name("pod-"), Netns: ns.Path(), IfName: "net1"},
		Path:       []string{refplugins.Dir(w)},
		Config:     w.config(keys),
	}}
	// Whatever the test has left, and however it ended.
	w.Cleanup(func() {
		if err := w.plugin.Del(context.Background(), p.later()); err != nil {
			w.Errorf("DEL at the end: %v", err)
		}
	})
	return p
}

func (w *world) attached(keys string) *pod {
	w.Helper()
	p := w.pod(keys)
	must(w, p.add())
	return p
}

func (p *pod) add() (err error) {
	p.Helper()
	p.res, err = p.plugin.Add(context.Background(), p.req)
	return err
}

// later is the request of a CHECK or DEL.
func (p *pod) later() *cni.Request {
	p.Helper()
	if p.res == nil {
		return p.req
	}
	return p.withPrevResult(p.res)
}

func (p *pod) withPrevResult(res *types100.Result) *cni.Request {
	p.Helper()
	doc, err := cni.MarshalResult(res, "1.1.0")
	must(p, err)
	req := *p.req
	req.Config = bytes.Replace(req.Config, []byte("{"), []byte(`{"prevResult": `+string(doc)+`, `), 1)
	return &req
}

func (p *pod) check() error { return p.plugin.Check(context.Background(), p.later()) }

func (p *pod) del() error { return p.plugin.Del(context.Background(), p.later()) }

// mustNotice says that CHECK must have found out.
func (p *pod) mustNotice(text string) {
	p.Helper()
	p.isError(p.check(), 0, text)
}

// mend repairs what the pod lacks on the node, after which CHECK finds nothing.
func (p *pod) mend() {
	p.Helper()
	repairer := p.plugin.(cni.Repairer)
	must(p, repairer.Repair(context.Background(), p.later()))
	must(p, repairer.Broken(context.Background(), p.later()))
	must(p, p.check())
}

// refused says that ADD fails with a code (0: any) and a text, and leaves nothing of the pod.
func (p *pod) refused(code uint, text string) {
	p.Helper()
	links := p.ns.Links(p)
	p.isError(p.add(), code, text)
	if left := p.ns.Links(p); len(left) != len(links) {
		p.Errorf("ADD that failed left %v in the pod, %v were there before", left, links)
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

// port returns the node's end, as the result names it.
func (p *pod) port() netlink.Link {
	p.Helper()
	return p.node.Link(p, p.res.Interfaces[1].Name)
}

func (w *world) br() *netlink.Bridge {
	w.Helper()
	return w.node.Link(w, w.bridge).(*netlink.Bridge)
}

func (w *world) addresses(ns *nettest.NS, link string) (found []string) {
	w.Helper()
	addrs, err := ns.Handle().AddrList(ns.Link(w, link), netlink.FAMILY_ALL)
	must(w, err)
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() {
			found = append(found, a.IPNet.String())
		}
	}
	return found
}

// noBridge fails the test if an ADD has left the bridge.
func (w *world) noBridge() {
	w.Helper()
	for _, name := range w.node.Links(w) {
		if strings.HasPrefix(name, w.bridge) || strings.HasPrefix(name, "veth") {
			w.Errorf("ADD that failed left %s on the node", name)
		}
	}
}

// reservations returns the addresses that host-local has given away.
func (w *world) reservations() (ips []string) {
	w.Helper()
	files, err := filepath.Glob(filepath.Join(w.data, "*", "*"))
	must(w, err)
	for _, f := range files {
		if net.ParseIP(filepath.Base(f)) != nil {
			ips = append(ips, filepath.Base(f))
		}
	}
	return ips
}

func TestConformance(t *testing.T) {
	for name, keys := range map[string]string{
		"layer 2":  ``,
		"gateway":  dual + `"macspoofchk": true, ` + hostLocal(subnet4, subnet6),
		"ordinary": `"mtu": 1400, "hairpinMode": true, ` + hostLocal(subnet4),
	} {
		t.Run(name, func(t *testing.T) {
			cnitest.Run(t, func(t *testing.T) *cnitest.Subject {
				w := &world{TB: t, node: nettest.Node(t), bridge: nettest.Name("br"), data: t.TempDir()}
				t.Cleanup(w.deleteBridge)
				s := &cnitest.Subject{
					Plugin: plugin,
					Config: w.config(keys),
					Path:   []string{refplugins.Dir(t)},
					Layer2: keys == "",
					Shared: []string{w.bridge},
					Leaked: func() error {
						err := rules()
						if left := w.reservations(); len(left) > 0 {
							err = errors.Join(err, fmt.Errorf("reserved: %v", left))
						}
						return err
					},
				}
				if keys != "" {
					s.Failing = map[string][]byte{
						"a route to nowhere": w.config(`"isGateway": true, ` + strings.Replace(hostLocal(subnet4), `"ranges"`,
							`"routes": [{"dst": "198.51.100.0/24", "gw": "203.0.113.9"}], "ranges"`, 1)),
					}
				}
				return s
			})
		})
	}
}

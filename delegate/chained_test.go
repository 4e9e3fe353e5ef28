package delegate_test

import (
	"context"
	"net"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
)

// chained returns the request of a plugin that stands in a list after the one that made eth0, whose default routes lead
// through it.
func (w *world) chained() *cni.Request {
	w.t.Helper()
	w.netns.Do(w.t, func() {
		w.dummy("eth0", "10.1.0.5/16")
		w.route("eth0", "10.1.0.1")
	})
	req := w.request("")
	req.Config = []byte(strings.Replace(string(req.Config), `"delegates":[{"cniVersion":"1.1.0","name":"cluster","type":"fake-default"}]`,
		`"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"cni0"},{"name":"eth0","mac":"02:00:00:00:00:05","sandbox":"`+w.netns.Path()+`"}],
		"ips":[{"interface":1,"address":"10.1.0.5/16","gateway":"10.1.0.1"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.1"},{"dst":"10.9.0.0/16"}]}`, 1))
	return req
}

// dummy makes an interface in the namespace of the thread.
func (w *world) dummy(name, address string) {
	w.t.Helper()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "peer-" + name}
	addr, err := netlink.ParseAddr(address)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, err := range []error{netlink.LinkAdd(link), netlink.AddrAdd(link, addr), netlink.LinkSetUp(link)} {
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// route makes a default route in the namespace of the thread.
func (w *world) route(ifName, gw string) {
	w.t.Helper()
	link, err := netlink.LinkByName(ifName)
	if err != nil {
		w.t.Fatal(err)
	}
	_, everywhere, _ := net.ParseCIDR("0.0.0.0/0")
	if err := netlink.RouteAddEcmp(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: everywhere, Gw: net.ParseIP(gw)}); err != nil {
		w.t.Fatal(err)
	}
}

// TestChained: the network of the plugin before is the pod's default network.
func TestChained(t *testing.T) {
	w := newWorld(t)
	w.answer.Annotations[conf.AnnotationNetworks] = "one"
	res, err := w.delegator().Add(t.Context(), w.chained())
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Interfaces) != 3 || len(res.Routes) != 2 || res.IPs[0].Gateway.String() != "10.1.0.1" {
		t.Errorf("result: %v", res)
	}
	const status = `[{"name":"pods","interface":"eth0","ips":["10.1.0.5"],"mac":"02:00:00:00:00:05","default":true},` +
		`{"name":"blue/one","interface":"net1","default":false}]`
	if got := string(w.reports[0].Status); got != status {
		t.Errorf("status = %s", got)
	}
}

// TestChainedDefaultRoute: "the default route and gateway will be cleared from the cluster-wide default network
// attachment", whoever made that: in the kernel, and in the result that CHECK of the plugins before will get.
func TestChainedDefaultRoute(t *testing.T) {
	for _, tt := range []struct{ name, selection string }{
		{"gateway", `[{"name":"one","default-route":["10.2.0.1"]}]`},
		{"the network's own", `[{"name":"one","default-route":[]}]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.answer.Annotations[conf.AnnotationNetworks] = tt.selection
			d := w.delegator()
			own := d.Own(nil)
			own["fake-one"] = &routed{w: w, Plugin: own["fake-one"]}
			res, err := d.Add(t.Context(), w.chained())
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range res.Routes {
				got = append(got, r.Dst.String()+" "+r.GW.String())
			}
			if want := "10.9.0.0/16 <nil>, 0.0.0.0/0 10.2.0.1"; strings.Join(got, ", ") != want {
				t.Errorf("routes of the result: %q, want %q", got, want)
			}
		})
	}
}

// TestDefaultRouteBesideAnAttachmentWithoutInterface: not every plugin makes an interface of the requested name.
func TestDefaultRouteBesideAnAttachmentWithoutInterface(t *testing.T) {
	w := newWorld(t)
	w.answer.Annotations[conf.AnnotationNetworks] = `[{"name":"one","default-route":[]}]`
	d := w.delegator()
	own := d.Own(nil)
	own["fake-one"] = &routed{w: w, Plugin: own["fake-one"]}
	if _, err := d.Add(t.Context(), w.request("")); err != nil {
		t.Fatal(err)
	}
}

// routed is a plugin that makes an interface with a default route.
type routed struct {
	cni.Plugin
	w *world
}

func (p *routed) Add(_ context.Context, req *cni.Request) (*types100.Result, error) {
	p.w.netns.Do(p.w.t, func() {
		p.w.dummy(req.IfName, "10.2.0.5/16")
		p.w.route(req.IfName, "10.2.0.1")
	})
	return cni.PrevResult([]byte(`{"cniVersion":"1.1.0","prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"net1","sandbox":"` + req.Netns + `"}],
		"ips":[{"interface":0,"address":"10.2.0.5/16","gateway":"10.2.0.1"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.2.0.1"}]}}`))
}

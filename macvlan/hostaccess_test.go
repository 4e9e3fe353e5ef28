package macvlan_test

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
)

const dual = `"master": "NIC", "hostAccess": true, `

func accessWorld(t *testing.T, pod ...string) *world {
	w := newWorld(t, "")
	w.node.Address(t, w.nic.Name, "192.0.2.254/24", "2001:db8::254/64")
	w.req.Config = w.config(dual + fixed(pod...))
	return w
}

// shims returns the node's own macvlan interfaces.
func (w *world) shims() (names []string) {
	w.Helper()
	for _, name := range w.node.Links(w) {
		if w.node.Link(w, name).Type() == "macvlan" {
			names = append(names, name)
		}
	}
	return names
}

func TestNoHostAccess(t *testing.T) {
	w := accessWorld(t)
	w.req.Config = w.config(`"master": "NIC", ` + fixed("192.0.2.2/24", "2001:db8::2/64"))
	w.add()
	nettest.NoReach(t, w.pod, w.node, "192.0.2.254")
	nettest.NoReach(t, w.pod, w.node, "2001:db8::254")
}

func TestHostAccess(t *testing.T) {
	w := accessWorld(t, "192.0.2.2/24", "2001:db8::2/64")
	first := w.add()
	firstPod, firstReq := w.pod, w.later(first)
	w.newPod(dual + fixed("192.0.2.3/24"))
	second := w.add()
	if got := w.shims(); len(got) != 1 {
		t.Fatalf("the node has macvlan interfaces %v, want one for both pods", got)
	}
	must(t, w.plugin.Check(t.Context(), firstReq))

	nettest.Reach(t, w.node, firstPod, "192.0.2.2")
	nettest.Reach(t, w.node, firstPod, "2001:db8::2")
	nettest.Reach(t, firstPod, w.node, "192.0.2.254")
	nettest.Reach(t, firstPod, w.node, "2001:db8::254")
	nettest.Reach(t, w.pod, w.node, "192.0.2.254")
	nettest.Reach(t, w.pod, firstPod, "192.0.2.2")
	nettest.Reach(t, w.nic.LAN, firstPod, "192.0.2.2")
	nettest.Reach(t, w.nic.LAN, firstPod, "2001:db8::2")

	// Other hosts still know the node by the MAC of its NIC alone.
	w.reachByNIC("192.0.2.254")
	w.reachByNIC("2001:db8::254")

	must(t, w.plugin.Del(t.Context(), firstReq))
	nettest.Reach(t, w.node, w.pod, "192.0.2.3")
	must(t, w.plugin.Del(t.Context(), w.later(second)))
	if got := w.shims(); len(got) != 0 {
		t.Errorf("the last pod is gone, but %v is not", got)
	}
	w.reachByNIC("192.0.2.254")
	w.reachByNIC("2001:db8::254")
}

func TestHostAccessWithSourceRouting(t *testing.T) {
	w := accessWorld(t)
	w.req.Config = w.config(dual + `"sourceRouting": true, ` + fixed("192.0.2.2/24 192.0.2.1", "2001:db8::2/64 2001:db8::1"))
	res := w.add()
	nettest.Reach(t, w.node, w.pod, "192.0.2.2")
	nettest.Reach(t, w.pod, w.node, "2001:db8::254")
	must(t, w.check(res))
	must(t, w.plugin.Del(t.Context(), w.later(res)))
}

// reachByNIC lets the LAN find the node anew, and looks at what it has found after all answers have come.
func (w *world) reachByNIC(ip string) {
	w.Helper()
	h, port := w.nic.LAN.Handle(), w.nic.LAN.Link(w, w.nic.Port).Attrs().Index
	family := netlink.FAMILY_V6
	if net.ParseIP(ip).To4() != nil {
		family = netlink.FAMILY_V4
	}
	neighbours := func() []netlink.Neigh {
		list, err := h.NeighList(port, family)
		must(w.T, err)
		return slices.DeleteFunc(list, func(n netlink.Neigh) bool { return !n.IP.Equal(net.ParseIP(ip)) })
	}
	for _, n := range neighbours() {
		must(w.T, h.NeighDel(&n))
	}
	nettest.Reach(w, w.nic.LAN, w.node, ip)
	time.Sleep(100 * time.Millisecond)
	want := w.node.Link(w, w.nic.Name).Attrs().HardwareAddr.String()
	if got := neighbours(); len(got) != 1 || got[0].HardwareAddr.String() != want {
		w.Errorf("the LAN knows %s as %v, want %s", ip, got, want)
	}
}

func TestHostAccessCheck(t *testing.T) {
	w := accessWorld(t, "192.0.2.2/24")
	res := w.add()
	must(t, w.check(res))
	must(t, w.node.Handle().LinkDel(w.node.Link(t, w.shims()[0])))
	w.isError(w.check(res), 0, "hostAccess: the node has no route to net1")
	must(t, w.plugin.Del(t.Context(), w.later(res)))
}

// DEL finds what to remove without prevResult, namespace and parent.
func TestHostAccessDelNeedsNothing(t *testing.T) {
	w := accessWorld(t, "192.0.2.2/24", "2001:db8::2/64")
	w.add()
	w.pod.Remove(t)
	w.req.Netns = ""
	must(t, w.plugin.Del(t.Context(), w.req))
	must(t, w.plugin.Del(t.Context(), w.req))
	if got := w.shims(); len(got) != 0 {
		t.Errorf("DEL left %v", got)
	}
}

func TestHostAccessGC(t *testing.T) {
	w := accessWorld(t, "192.0.2.2/24")
	kept := w.add()
	keptPod, keptReq := w.pod, *w.req
	w.newPod(dual + fixed("192.0.2.3/24"))
	w.add()
	w.pod.Remove(t)

	// Another network on the same parent is none of its business.
	w.newPod(dual + fixed("192.0.2.4/24"))
	w.req.Config = bytes.Replace(w.req.Config, []byte(`"lan"`), []byte(`"other"`), 1)
	w.add()
	other, otherReq := w.pod, *w.req

	gc := func(valid string) {
		t.Helper()
		must(t, w.plugin.GC(t.Context(), &cni.Request{
			Config: w.config(dual + `"cni.dev/valid-attachments": [` + valid + `]`),
		}))
	}
	gc(fmt.Sprintf(`{"containerID": %q, "ifname": "net1"}`, keptReq.ContainerID))
	nettest.Reach(t, w.node, keptPod, "192.0.2.2")
	nettest.Reach(t, w.node, other, "192.0.2.4")
	if routes := w.routesTo("192.0.2.3"); len(routes) != 0 {
		t.Errorf("GC left %v", routes)
	}
	gc("")
	if got := w.shims(); len(got) != 1 {
		t.Errorf("the node has %v, want that of the other network", got)
	}
	if kept.Interfaces[0].Sandbox != keptReq.Netns {
		t.Errorf("sandbox %q, want %q", kept.Interfaces[0].Sandbox, keptReq.Netns)
	}
	must(t, w.plugin.Del(t.Context(), &keptReq))
	must(t, w.plugin.Del(t.Context(), &otherReq))
}

func (w *world) routesTo(ip string) []netlink.Route {
	w.Helper()
	_, dst, _ := net.ParseCIDR(ip + "/32")
	routes, err := w.node.Handle().RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: dst}, netlink.RT_FILTER_DST)
	must(w.T, err)
	return routes
}

// The interface is made with the first pod and removed with the last, also when both happen at once.
func TestHostAccessInParallel(t *testing.T) {
	w := accessWorld(t)
	var reqs []*cni.Request
	for i := range 8 {
		w.newPod(dual + fixed(fmt.Sprintf("192.0.2.%d/24", 10+i)))
		reqs = append(reqs, w.req)
	}
	var group errgroup.Group
	for _, req := range reqs {
		group.Go(func() error {
			for range 5 {
				if _, err := w.plugin.Add(t.Context(), req); err != nil {
					return err
				}
				if err := w.plugin.Del(t.Context(), req); err != nil {
					return err
				}
			}
			return nil
		})
	}
	must(t, group.Wait())
	if got := w.shims(); len(got) != 0 {
		t.Errorf("the last pod is gone, but %v is not", got)
	}
}

func TestHostAccessNames(t *testing.T) {
	w := accessWorld(t, "192.0.2.2/24")
	w.req.Config = bytes.Replace(w.req.Config, []byte(`"lan"`), []byte(`"`+strings.Repeat("long", 100)+`"`), 1)
	w.add()
	must(t, w.plugin.Del(t.Context(), w.req))
	if got := w.shims(); len(got) != 0 {
		t.Errorf("DEL left %v", got)
	}
}

// TestHostAccessNameTaken: what has the name of the node's interface is neither used nor deleted.
// TestHostAccessUnfinished: whatever a process that was killed while it made the node's interface has left of it, the next pod
// gets all that it needs.
func TestHostAccessUnfinished(t *testing.T) {
	w := accessWorld(t, "192.0.2.2/24", "2001:db8::2/64")
	must(t, w.plugin.Del(t.Context(), w.later(w.add())))
	shim := func() *netlink.Macvlan {
		w.add()
		link := w.node.Link(t, w.shims()[0]).(*netlink.Macvlan)
		must(t, w.plugin.Del(t.Context(), w.req))
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex = link.Name, link.ParentIndex
		return &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}
	}()
	for _, up := range []bool{false, true} {
		w.newPod(dual + fixed("192.0.2.2/24", "2001:db8::2/64"))
		h := w.node.Handle()
		must(t, h.LinkAdd(shim))
		if up {
			must(t, h.LinkSetUp(shim))
		}
		res := w.add()
		nettest.Reach(t, w.pod, w.node, "192.0.2.254")
		nettest.Reach(t, w.pod, w.node, "2001:db8::254")
		must(t, w.plugin.Check(t.Context(), w.later(res)))
		must(t, w.plugin.Del(t.Context(), w.req))
		if left := w.shims(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

func TestHostAccessNameTaken(t *testing.T) {
	w := accessWorld(t, "192.0.2.2/24")
	res := w.add()
	name := w.shims()[0]
	must(t, w.plugin.Del(t.Context(), w.later(res)))
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: nettest.Name("peer")}
	veth.Name = name
	must(t, w.node.Handle().LinkAdd(veth))
	defer func() { must(t, w.node.Handle().LinkDel(veth)) }()
	if _, err := w.plugin.Add(t.Context(), w.req); err == nil || !strings.Contains(err.Error(), name+", and that is somebody else's (veth") {
		t.Errorf("ADD: %v", err)
	}
	must(t, w.plugin.Del(t.Context(), w.later(res)))
	if !slices.Contains(w.node.Links(t), name) {
		t.Error("it is gone")
	}
}

package netdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
)

// TestBatchGoesOn: one request that fails is the error, and those around it are done.
func TestBatchGoesOn(t *testing.T) {
	p := newPod(t)
	net1 := p.link(t, "net1")
	var looked netlink.Link
	b := p.Batch()
	b.addAddress(net1, &netlink.Addr{IPNet: cidrOf(t, "192.0.2.2/24")})
	b.addRoute(netlinkRoutes(net1, nil, []*types.Route{route(t, "198.51.100.0/24", "203.0.113.1")})[0]) // that cannot be reached
	b.addRoute(netlinkRoutes(net1, nil, []*types.Route{route(t, "203.0.113.0/24", "192.0.2.1")})[0])
	b.LinkAt(net1.Attrs().Index, &looked)
	err := b.Send()
	if !errors.Is(err, unix.ENETUNREACH) || !strings.Contains(err.Error(), "add route 198.51.100.0/24 via 203.0.113.1") {
		t.Errorf("found %v, want the error of the first route", err)
	}
	p.wantRoutes(t, "203.0.113.0/24 via 192.0.2.1 table 254")
	if looked != nil {
		t.Error("what comes after an error was judged")
	}
	if link := p.link(t, "net1"); link.Attrs().Name != "net1" { // nothing is left to be received
		t.Errorf("found %v", link.Attrs())
	}
}

// TestBatchOfVeryMany: a result can have more routes than answers fit into the socket.
func TestBatchOfVeryMany(t *testing.T) {
	p := newPod(t)
	routes := func(gw string) (routes []*types.Route) {
		for i := range 3000 {
			routes = append(routes, route(t, fmt.Sprintf("10.%d.%d.0/24", i/256, i%256), gw))
		}
		return routes
	}
	res := result(t, []string{"192.0.2.2/24"}, routes("203.0.113.1")...)
	err := p.Configure(t.Context(), p.link(t, "net1"), res, Options{})
	if !errors.Is(err, unix.ENETUNREACH) || !strings.Contains(err.Error(), "add route 10.0.0.0/24 via 203.0.113.1") {
		t.Errorf("found %v, want the error of the first route", err)
	}
	res.Routes = routes("192.0.2.1")
	must(t, p.Configure(t.Context(), p.link(t, "net1"), res, Options{}))
	if have := p.show(t); len(have) != 3000 {
		t.Errorf("found %d routes", len(have))
	}
}

// TestLostAnswer: nobody waits for what does not come.
func TestLostAnswer(t *testing.T) {
	p := newPod(t)
	must(t, unix.SetsockoptInt(p.socket.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0)) // the least there can be
	index := p.link(t, "net1").Attrs().Index
	b := p.Batch()
	var into netlink.Link
	for range maxRequests {
		b.LinkAt(index, &into)
	}
	if err := b.Send(); !errors.Is(err, errLost) && !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("found %v", err)
	}
	p.link(t, "net1")
}

// TestBatchOfAnImpossibleRequest sends nothing.
func TestBatchOfAnImpossibleRequest(t *testing.T) {
	p := newPod(t)
	res := result(t, []string{"192.0.2.2/24"}, route(t, "198.51.100.0/24", "2001:db8::1"))
	err := p.Configure(t.Context(), p.link(t, "net1"), res, Options{})
	if err == nil || !strings.Contains(err.Error(), "add route 198.51.100.0/24 via 2001:db8::1: the gateway is of the other IP family") {
		t.Errorf("found %v", err)
	}
	if have, err := p.Addresses(p.link(t, "net1")); err != nil || len(have) > 1 { // the link-local one
		t.Errorf("found addresses %v (%v)", have, err)
	}
}

// TestAnswersOfOthers: neither the answer to a request that was given up counts, nor what another process of the namespace says.
func TestAnswersOfOthers(t *testing.T) {
	p := newPod(t)
	p.link(t, "net1")
	given := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0) // the number is an old one
	given.Seq = p.socket.seq
	given.AddData(aboutLink(1))
	must(t, unix.Sendto(p.socket.fd, given.Serialize(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))

	own, err := unix.Getsockname(p.socket.fd)
	must(t, err)
	var other *socket
	must(t, p.Do(func() (err error) { other, err = openSocket(); return err }))
	defer other.close()
	forged := make([]byte, unix.SizeofNlMsghdr+4)
	binary.NativeEndian.PutUint32(forged, uint32(len(forged)))
	binary.NativeEndian.PutUint16(forged[4:], unix.NLMSG_ERROR)
	binary.NativeEndian.PutUint32(forged[8:], p.socket.seq+1)
	gone := -int32(unix.ENODEV)
	binary.NativeEndian.PutUint32(forged[unix.SizeofNlMsghdr:], uint32(gone))
	must(t, unix.Sendto(other.fd, forged, 0, own))

	if name := p.link(t, "net1").Attrs().Name; name != "net1" {
		t.Errorf("found %s", name)
	}
}

// TestLinkWithManyNames: an answer may be long, and an alternative name too.
func TestLinkWithManyNames(t *testing.T) {
	p := newPod(t)
	name := func(i int) string { return fmt.Sprintf("%s%03d", strings.Repeat("n", 124), i) }
	for i := range 150 {
		list := nl.NewRtAttr(unix.IFLA_PROP_LIST|unix.NLA_F_NESTED, nil)
		list.AddRtAttr(unix.IFLA_ALT_IFNAME, nl.ZeroTerminated(name(i)))
		_, err := p.one(unix.RTM_NEWLINKPROP, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_APPEND,
			aboutLink(p.link(t, "net1").Attrs().Index), list)
		must(t, err)
	}
	link := p.link(t, name(149))
	if a := link.Attrs(); a.Name != "net1" || len(a.AltNames) != 150 {
		t.Errorf("found %s with %d alternative names", a.Name, len(a.AltNames))
	}
	if _, err := p.Link(name(150)); !errors.Is(err, ErrNotFound) {
		t.Errorf("a name that nothing has: %v", err)
	}
	names, err := p.Names()
	if err != nil || len(names) != 2 {
		t.Errorf("found %q (%v)", names, err)
	}
}

// TestLinkIsWhatTheLibrarySays, of all that plugins look at.
func TestLinkIsWhatTheLibrarySays(t *testing.T) {
	nettest.NeedKernel(t, nettest.Macvlan)
	p := newPod(t)
	h := p.test.Handle()
	must(t, h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br", Alias: "an alias", Group: 7, TxQLen: -1}}))
	br := p.test.Link(t, "br")
	must(t, h.LinkSetMaster(p.test.Link(t, "net1"), br))
	must(t, p.NewLink(&NewLink{Kind: "macvlan", Name: "v", Parent: br.Attrs().Index, MTU: 1400, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7}, Up: true,
		Data: []*nl.RtAttr{nl.NewRtAttr(nl.IFLA_MACVLAN_MODE, nl.Uint32Attr(nl.MACVLAN_MODE_PRIVATE))}}))
	for _, name := range []string{"lo", "br", "net1", "v"} {
		said := func(l netlink.Link) string {
			a := l.Attrs()
			kind := ""
			switch k := l.(type) {
			case *netlink.Bridge:
				kind = fmt.Sprint(*k.HelloTime, k.VlanFiltering != nil)
			case *netlink.Macvlan:
				kind = fmt.Sprint(k.Mode)
			}
			return fmt.Sprint(a.Index, a.Name, a.Alias, a.HardwareAddr, a.MTU, a.Flags, a.RawFlags, a.OperState, a.ParentIndex, a.NetNsID,
				a.MasterIndex, a.Group, l.Type(), kind)
		}
		want := p.test.Link(t, name)
		have := p.link(t, name)
		at, err := p.LinkAt(want.Attrs().Index)
		must(t, err)
		if said(have) != said(want) || said(at) != said(want) {
			t.Errorf("found %s and %s, want %s", said(have), said(at), said(want))
		}
	}
	if v, ok := p.link(t, "v").(*netlink.Macvlan); !ok || v.Mode != netlink.MACVLAN_MODE_PRIVATE || v.MTU != 1400 ||
		v.HardwareAddr.String() != "02:00:00:00:00:07" {
		t.Errorf("made %+v", v)
	}
}

// TestNewLinkHere: what is made is told as it is, by the kernel's echo or by the next request; nothing is left to be received.
func TestNewLinkHere(t *testing.T) {
	p, peers := newPod(t), open(t, nettest.NewNS(t).Path())
	veth := &NewLink{
		Kind: "veth", Name: "near", Up: true, MTU: 1400, TxQueues: 1, RxQueues: 1, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7},
		Peer: &NewLink{Name: "far", In: peers, TxQueues: 1, RxQueues: 1},
	}
	made, err := p.NewLinkHere(veth)
	must(t, err)
	now := p.link(t, "near").Attrs()
	if a := made.Attrs(); a.Name != "near" || a.Index != now.Index || a.MTU != 1400 || a.HardwareAddr.String() != "02:00:00:00:00:07" ||
		a.RawFlags&unix.IFF_UP == 0 || a.ParentIndex != now.ParentIndex || a.NetNsID != now.NetNsID || made.Type() != "veth" {
		t.Errorf("made %s %+v, which is %+v", made.Type(), a, now)
	}
	if _, err := p.NewLinkHere(veth); !errors.Is(err, unix.EEXIST) {
		t.Errorf("the name is taken: %v", err)
	}
	if b, err := p.socket.receive(make([]byte, 4096)); err != errLost {
		t.Errorf("there is more to receive: %x (%v)", b, err)
	}
	if _, err := peers.Link("far"); err != nil {
		t.Error(err)
	}
	// What is not told, be it by an older kernel, is asked for.
	elsewhere := &NewLink{Kind: "veth", Name: "elsewhere", In: peers, TxQueues: 1, RxQueues: 1, Peer: &NewLink{Name: "end", TxQueues: 1, RxQueues: 1}}
	if _, err := p.NewLinkHere(elsewhere); !errors.Is(err, ErrNotFound) {
		t.Errorf("an interface that is made elsewhere: %v", err)
	}
}

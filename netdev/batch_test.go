package netdev

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

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
	if err := b.Send(); !errors.Is(err, ErrUnanswered) || !errors.Is(err, errLost) && !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("found %v", err)
	}
	p.link(t, "net1")
}

// TestListOfOneInterface: the kernel lists what is asked for, and not all that there is.
func TestListOfOneInterface(t *testing.T) {
	p := newPod(t)
	must(t, p.Configure(t.Context(), p.link(t, "net1"), result(t, []string{"192.0.2.2/24"}), Options{}))
	header := nl.NewIfAddrmsg(unix.AF_UNSPEC)
	header.Index = uint32(p.link(t, "lo").Attrs().Index)
	addrs, err := list(p.Namespace, unix.RTM_GETADDR, decodeAddress, header)
	must(t, err)
	for _, a := range addrs {
		if a.LinkIndex != int(header.Index) {
			t.Errorf("%s of interface %d is listed, want those of %d", a.IPNet, a.LinkIndex, header.Index)
		}
	}
}

// TestTornList: a list whose objects have changed meanwhile is an error, as the library has it, see [Dump].
func TestTornList(t *testing.T) {
	part := func(kind, flags uint16) []byte {
		m := make([]byte, unix.SizeofNlMsghdr+4)
		binary.NativeEndian.PutUint32(m, uint32(len(m)))
		binary.NativeEndian.PutUint16(m[4:], kind)
		binary.NativeEndian.PutUint16(m[6:], flags)
		return m
	}
	const multi, torn = unix.NLM_F_MULTI, unix.NLM_F_MULTI | unix.NLM_F_DUMP_INTR
	for _, tt := range []struct {
		object, done uint16
		want         error
	}{{multi, multi, nil}, {torn, multi, netlink.ErrDumpInterrupted}, {multi, torn, netlink.ErrDumpInterrupted}} {
		answers := make([]answer, 1)
		must(t, assign(append(part(unix.RTM_NEWADDR, tt.object), part(unix.NLMSG_DONE, tt.done)...), answers, 0))
		if a := answers[0]; !a.ended || len(a.messages) != 1 || !errors.Is(a.err, tt.want) {
			t.Errorf("%x, %x: found %+v, want %v", tt.object, tt.done, a, tt.want)
		}
	}
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
	_, err := p.NewLink(&NewLink{Kind: "macvlan", Name: "v", Parent: br.Attrs().Index, MTU: 1400, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7}, Up: true,
		Data: []*nl.RtAttr{nl.NewRtAttr(nl.IFLA_MACVLAN_MODE, nl.Uint32Attr(nl.MACVLAN_MODE_PRIVATE))}})
	must(t, err)
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

// TestNewLink: what is made is told as it is, here or elsewhere, and of a pair both ends; nothing is left to be received.
func TestNewLink(t *testing.T) {
	p, others := newPod(t), open(t, nettest.NewNS(t).Path())
	for i, in := range []*Namespace{nil, others, others} {
		name, at := fmt.Sprint("near", i), cmp.Or(in, p.Namespace)
		veth := &NewLink{
			Kind: "veth", Name: name, In: in, Up: true, MTU: 1400, TxQueues: 1, RxQueues: 1, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 7},
			Peer: &NewLink{Name: fmt.Sprint("far", i), TxQueues: 1, RxQueues: 1},
		}
		made, err := p.NewLink(veth)
		must(t, err)
		link, err := at.Link(name)
		must(t, err)
		a, now := made.Attrs(), link.Attrs()
		if a.Name != name || a.Index != now.Index || a.MTU != 1400 || a.HardwareAddr.String() != "02:00:00:00:00:07" ||
			a.RawFlags != now.RawFlags || a.RawFlags&unix.IFF_UP == 0 || a.OperState != now.OperState || made.Type() != "veth" {
			t.Errorf("made %s %+v, which is %+v", made.Type(), a, now)
		}
		if _, err := p.NewLink(veth); !errors.Is(err, ErrExists) {
			t.Errorf("the name is taken: %v", err)
		}
		if _, err := p.Link(fmt.Sprint("far", i)); err != nil {
			t.Error(err)
		}
		if b, err := at.socket.receive(make([]byte, 4096)); err != errLost {
			t.Errorf("there is more to receive: %x (%v)", b, err)
		}
	}
}

// TestLinkInOfAnOldKernel, which does not know numbers of namespaces, or not in such a question: nothing is told, and no wrong thing.
func TestLinkInOfAnOldKernel(t *testing.T) {
	p, other := newPod(t), open(t, nettest.NewNS(t).Path())
	var found netlink.Link
	ask := func(name string) netlink.Link {
		found = nil
		b := p.Batch()
		b.LinkIn(other, name, &found)
		must(t, b.Send())
		return found
	}
	if lo := ask("lo"); lo == nil || lo.Attrs().Name != "lo" {
		t.Errorf("found %v", lo)
	}
	if link := ask("net1"); link != nil {
		t.Errorf("found %v, which is another namespace's", link)
	}
	other.numbered.number += 1000
	if lo := ask("lo"); lo != nil {
		t.Errorf("a number that nobody has: %v", lo)
	}
	answer, err := p.one(unix.RTM_GETLINK, 0, aboutLink(1))
	must(t, err)
	if n, ok := numberIn(answer[0][unix.SizeofIfInfomsg:], unix.IFLA_TARGET_NETNSID); ok {
		t.Errorf("an answer to another question has the number %d", n)
	}
	// The number is the kernel's own.
	other.numbered = numbered{}
	number, err := p.numberOf(other)
	must(t, err)
	if n, err := p.test.Handle().GetNetNsIdByFd(other.FD()); err != nil || n != int(number) {
		t.Errorf("the number is %d (%v), found %d", n, err, number)
	}
}

// TestAskedTogether: those who ask at the same time each get the answer to their own question, be it an error or a list.
func TestAskedTogether(t *testing.T) {
	p := newPod(t)
	index := p.link(t, "net1").Attrs().Index
	questions := []func() error{
		func() error {
			link, err := p.LinkAt(index)
			if err == nil && link.Attrs().Name != "net1" {
				err = fmt.Errorf("found %s", link.Attrs().Name)
			}
			return err
		},
		func() error {
			if _, err := p.Link("nothing"); !errors.Is(err, ErrNotFound) {
				return fmt.Errorf("an interface that is not there: %v", err)
			}
			return nil
		},
		func() error {
			names, err := p.Names()
			if err == nil && len(names) != 2 {
				err = fmt.Errorf("found %q", names)
			}
			return err
		},
		func() error {
			found, err := p.Find("lo", "nothing", "net1")
			if err == nil && (found[0] == nil || found[0].Attrs().Name != "lo" || found[1] != nil || found[2].Attrs().Index != index) {
				err = fmt.Errorf("found %v", found)
			}
			return err
		},
		func() error {
			b := p.Batch()
			b.SetUpNamed("nothing")
			if err := b.Send(); !errors.Is(err, unix.ENODEV) {
				return fmt.Errorf("set up what is not there: %v", err)
			}
			return nil
		},
	}
	together(t, p.Namespace, 50, questions...)
}

// TestLongAnswersTogether: there is room for the answers to all that is asked in a datagram.
func TestLongAnswersTogether(t *testing.T) {
	p := newPod(t)
	net1 := p.link(t, "net1")
	for i := range 100 {
		must(t, p.test.Handle().LinkAddAltName(net1, fmt.Sprintf("%0*d", 127, i)))
	}
	together(t, p.Namespace, 2*maxRequests, func() error {
		link, err := p.Link("net1")
		if err == nil && len(link.Attrs().AltNames) != 100 {
			err = fmt.Errorf("it has %d alternative names", len(link.Attrs().AltNames))
		}
		return err
	})
}

// TestRequestThatPanics: it is in nobody's way.
func TestRequestThatPanics(t *testing.T) {
	p := newPod(t)
	func() {
		defer func() { _ = recover() }()
		_, err := p.one(unix.RTM_GETLINK, 0, nil)
		t.Errorf("a request that has no header: %v", err)
	}()
	asked := make(chan error, 1)
	go func() { _, err := p.Link("net1"); asked <- err }()
	select {
	case err := <-asked:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("the next one waits for ever")
	}
}

// TestSocketFails: all hear of it, those as well who ask by then, and nobody waits for ever.
func TestSocketFails(t *testing.T) {
	p := newPod(t)
	fd := p.socket.fd
	p.socket.fd = -1
	together(t, p.Namespace, 2*maxRequests, func() error {
		if _, err := p.Link("net1"); !errors.Is(err, unix.EBADF) {
			return fmt.Errorf("found %v, want that it cannot be sent", err)
		}
		return nil
	})
	p.socket.fd = fd
	p.link(t, "net1")
}

// together has questions asked at the same time, by several each, who do so again as soon as they have the answer.
func together(t *testing.T, ns *Namespace, each int, questions ...func() error) {
	t.Helper()
	var asking sync.WaitGroup
	ns.socket.mu.Lock()
	ns.socket.sending = true // so that all of them wait
	ns.socket.mu.Unlock()
	for range each {
		for i, ask := range questions {
			asking.Go(func() {
				for range 3 {
					if err := ask(); err != nil {
						t.Errorf("question %d: %v", i, err)
					}
				}
			})
		}
	}
	for waiting := 0; waiting < each*len(questions); time.Sleep(time.Millisecond) {
		ns.socket.mu.Lock()
		waiting = len(ns.socket.waiting)
		ns.socket.mu.Unlock()
	}
	ns.socket.free()
	asking.Wait()
}

// TestTakeAlong: what waits goes together as far as there is room for the answers, and lists go alone.
func TestTakeAlong(t *testing.T) {
	of := func(n, kind, flags int) *pending {
		p := &pending{}
		for range n {
			m := nl.NetlinkRequest{NlMsghdr: unix.NlMsghdr{Type: uint16(kind), Flags: uint16(flags)}}
			p.messages = append(p.messages, m.Serialize())
		}
		return p
	}
	look := func(n int) *pending { return of(n, unix.RTM_GETLINK, 0) }
	list := of(1, unix.RTM_GETLINK, unix.NLM_F_DUMP)
	change := of(1, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_EXCL) // flags that have the bits of a list's
	for _, c := range []struct {
		own     *pending
		waiting []*pending
		taken   int
	}{
		{look(1), nil, 0},
		{look(1), []*pending{look(2), change, look(3)}, 3},
		{change, []*pending{look(1)}, 1},
		{look(1), []*pending{look(1), list, look(1)}, 1},
		{list, []*pending{look(1)}, 0},
		{look(2), []*pending{look(maxRequests - 2), look(1)}, 1},
		{look(2), []*pending{look(maxRequests - 1), look(1)}, 0},
	} {
		s := &socket{sending: true, waiting: c.waiting}
		if taken := s.takeAlong(c.own); len(taken) != c.taken || len(s.waiting) != len(c.waiting)-c.taken {
			t.Errorf("%d of %d are taken along, want %d; %d are left", len(taken), len(c.waiting), c.taken, len(s.waiting))
		}
	}
}

package netdev

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
)

// pair is a pod with interfaces net2 and net3, whose peers are in another namespace, and one that stays.
func pair(t *testing.T) (p *pod, peers *nettest.NS) {
	t.Helper()
	p, peers = newPod(t), nettest.NewNS(t)
	there := open(t, peers.Path())
	for _, name := range []string{"net2", "net3", "other"} {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		must(t, p.Handle().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "far-" + name, PeerNamespace: netlink.NsFd(there.FD())}))
	}
	return p, peers
}

// wantGone looks when the interfaces are said to be gone, though the kernel may not be done.
func wantGone(t *testing.T, p *pod, peers *nettest.NS) {
	t.Helper()
	names, err := p.Names()
	must(t, err)
	slices.Sort(names)
	if want := []string{"lo", "net1", "other"}; !slices.Equal(names, want) {
		t.Errorf("left: %q, want %q", names, want)
	}
	if names := peers.Links(t); !slices.Equal(names, []string{"far-other"}) {
		t.Errorf("peers that are left: %q, want far-other", names)
	}
}

// begun is a deletion of net2 and net3 up to the request.
func begun(t *testing.T, p *pod) *deletion {
	t.Helper()
	d := &deletion{ns: p.Namespace}
	must(t, p.Do(d.open))
	must(t, d.mark([]netlink.Link{p.link(t, "net2"), p.link(t, "net3")}))
	return d
}

// What others do meanwhile makes no difference.
func TestDeletion(t *testing.T) {
	for name, meanwhile := range map[string]func(p *pod, d *deletion, over <-chan struct{}) error{
		"nothing": func(*pod, *deletion, <-chan struct{}) error { return nil },
		"somebody else was faster": func(p *pod, _ *deletion, _ <-chan struct{}) error {
			return errors.Join(p.DeleteLink("net2"), p.DeleteLink("net3"))
		},
		"notifications are lost": func(_ *pod, d *deletion, _ <-chan struct{}) error {
			return unix.SetsockoptInt(d.socket, unix.SOL_SOCKET, unix.SO_RCVBUF, 1)
		},
		// Any process of the pod can send the socket something.
		"somebody lies": func(p *pod, d *deletion, _ <-chan struct{}) error {
			return p.Do(func() error { return lie(p, d.socket) })
		},
		// The kernel tells what others do, so that it never is silent.
		"noise": func(p *pod, _ *deletion, over <-chan struct{}) error {
			link, err := p.Link("other")
			if err != nil {
				return err
			}
			for err == nil {
				select {
				case <-over:
					return nil
				default:
					err = errors.Join(p.Handle().LinkSetUp(link), p.Handle().LinkSetDown(link))
				}
			}
			return err
		},
		"the namespace is removed": func(p *pod, _ *deletion, _ <-chan struct{}) error {
			p.test.Remove(t)
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, peers := pair(t)
			res := result(t, []string{"192.0.2.7/24"})
			res.Interfaces[0].Name = "net2"
			must(t, p.Configure(t.Context(), p.link(t, "net2"), res, Options{SourceRouting: true}))
			d := begun(t, p)
			over := make(chan struct{})
			var others sync.WaitGroup
			act := func() {
				if err := meanwhile(p, d, over); err != nil {
					t.Error(err)
				}
			}
			if name == "noise" {
				others.Go(act)
			} else {
				act()
			}
			err := d.run()
			wantGone(t, p, peers)
			close(over)
			others.Wait()
			must(t, errors.Join(err, d.finish()))
			if rules, err := p.sourceRulesOf(); err != nil || len(rules) != 0 {
				t.Errorf("rules that are left: %v, %v", rules, err)
			}
		})
	}
}

// lie tells the socket of a deletion that all interfaces are gone.
func lie(p *pod, socket int) error {
	to, err := unix.Getsockname(socket)
	if err != nil {
		return err
	}
	liar, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(liar)
	for index := range byte(100) {
		b := make([]byte, unix.SizeofNlMsghdr+unix.SizeofIfInfomsg)
		b[0], b[4], b[unix.SizeofNlMsghdr+4] = byte(len(b)), unix.RTM_DELLINK, index
		if err := unix.Sendto(liar, b, 0, to); err != nil {
			return fmt.Errorf("send a lie: %w", err)
		}
	}
	return nil
}

// Interfaces that are gone before they are marked are not waited for.
func TestDeletionOfWhatIsGone(t *testing.T) {
	p, peers := pair(t)
	links := []netlink.Link{p.link(t, "net2"), p.link(t, "net3")}
	must(t, errors.Join(p.DeleteLink("net2"), p.DeleteLink("net3")))
	d := &deletion{ns: p.Namespace}
	must(t, p.Do(d.open))
	must(t, errors.Join(d.mark(links), d.run()))
	if d.sent != nil {
		t.Error("the kernel was asked to delete nothing")
	}
	must(t, d.finish())
	wantGone(t, p, peers)
}

// An interface that is taken out of the group meanwhile is not taken for gone.
func TestDeletionOfLinksThatStay(t *testing.T) {
	p, _ := pair(t)
	d := begun(t, p)
	must(t, p.Handle().LinkSetGroup(p.link(t, "net3"), 0))
	if err := d.run(); err == nil || !strings.Contains(err.Error(), "are there still") {
		t.Errorf("found %v, want that they are there", err)
	}
	must(t, d.finish())
	if names := p.test.Links(t); slices.Contains(names, "net2") || !slices.Contains(names, "net3") {
		t.Errorf("found %q, want net3 and not net2", names)
	}
}

// More than the socket has room for, as answers or as news.
func TestDeleteManyLinks(t *testing.T) {
	p := newPod(t)
	const n = 200
	for i := range n {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = fmt.Sprint("many", i)
		must(t, p.Handle().LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprint("far", i)}))
	}
	finish, err := p.DeleteLinks(func(l netlink.Link) bool { return strings.HasPrefix(l.Attrs().Name, "many") })
	must(t, errors.Join(err, finish()))
	if names := p.test.Links(t); !slices.Equal(names, []string{"net1"}) {
		t.Errorf("left: %q", names)
	}
}

// asked is a deletion whose request the kernel is at work on until the test closes the channel.
func asked(t *testing.T, p *pod) *deletion {
	t.Helper()
	d := &deletion{ns: p.Namespace, sent: make(chan struct{})}
	must(t, p.Do(d.open))
	return d
}

func isOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

// What the kernel does when the interfaces are gone is waited for behind the answer.
func TestFinishDoesNotWait(t *testing.T) {
	p := newPod(t)
	behindIsEmpty(t) // of what other tests have left
	d := asked(t, p)
	must(t, d.finish()) // or the test never ends
	if !isOpen(d.socket) {
		t.Error("the socket of a request that is under way is closed")
	}
	if n := len(behind); n != 1 {
		t.Errorf("%d threads wait behind, want 1", n)
	}
	close(d.sent)
	behindIsEmpty(t)
	if isOpen(d.socket) {
		t.Error("the socket is left")
	}
}

func behindIsEmpty(t *testing.T) {
	t.Helper()
	for range cap(behind) { // all places can be had, and so nobody has one
		behind <- struct{}{}
	}
	for range cap(behind) {
		<-behind
	}
}

// As many as that do not become more.
func TestFinishWaitsWhenManyDo(t *testing.T) {
	p := newPod(t)
	behindIsEmpty(t)
	var list []*deletion
	for range cap(behind) {
		d := asked(t, p)
		must(t, d.finish())
		list = append(list, d)
	}
	one := asked(t, p)
	finished := make(chan error)
	go func() { finished <- one.finish() }()
	select {
	case err := <-finished:
		t.Fatalf("it does not wait, though %d do: %v", len(behind), err)
	case <-time.After(4 * lookAgain): // a wait that were missing would be seen by then
	}
	close(one.sent)
	must(t, <-finished)
	if isOpen(one.socket) {
		t.Error("the socket is left")
	}
	for _, d := range list {
		close(d.sent)
	}
	behindIsEmpty(t)
}

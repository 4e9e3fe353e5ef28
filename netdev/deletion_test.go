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

func isNet23(l netlink.Link) bool { return l.Attrs().Name == "net2" || l.Attrs().Name == "net3" }

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

// A proxy is a process of its own. Here it is a goroutine with a descriptor of its own.
type proxies struct {
	testing.TB
	sync.WaitGroup
}

// by returns a proxy that does something with its descriptor, and then says whether it refuses.
func (w *proxies) by(do func(socket int, group uint32) (refuse bool)) Proxy {
	return func(socket int, group uint32) (int, error) {
		own, err := unix.FcntlInt(uintptr(socket), unix.F_DUPFD_CLOEXEC, 0)
		var pipe [2]int
		if err := errors.Join(err, unix.Pipe2(pipe[:], unix.O_CLOEXEC)); err != nil {
			w.Fatal(err)
		}
		w.Go(func() {
			defer unix.Close(own)
			if do(own, group) {
				_ = unix.Close(pipe[1])
			} else {
				w.Cleanup(func() { _ = unix.Close(pipe[1]) })
			}
		})
		return pipe[0], nil
	}
}

func TestDeleteLinksByProxy(t *testing.T) {
	for name, proxy := range map[string]func(*proxies, *pod) Proxy{
		"nobody": func(*proxies, *pod) Proxy { return nil },
		"it is done": func(w *proxies, _ *pod) Proxy {
			return w.by(func(socket int, group uint32) bool {
				if err := DeleteGroup(socket, group); err != nil {
					w.Error(err)
				}
				return false
			})
		},
		"there is none":   func(*proxies, *pod) Proxy { return func(int, uint32) (int, error) { return -1, unix.ENOENT } },
		"it refuses":      func(w *proxies, _ *pod) Proxy { return w.by(func(int, uint32) bool { return true }) },
		"it does nothing": func(w *proxies, _ *pod) Proxy { return w.by(func(int, uint32) bool { return false }) },
		"it is told wrong": func(w *proxies, _ *pod) Proxy {
			return w.by(func(socket int, _ uint32) bool { return deleteWrong(socket) })
		},
		"it does it, and refuses": func(w *proxies, _ *pod) Proxy {
			return w.by(func(socket int, group uint32) bool { return DeleteGroup(socket, group) == nil })
		},
		"it is late": func(w *proxies, _ *pod) Proxy {
			return w.by(func(socket int, group uint32) bool {
				time.Sleep(2 * lookAgain)
				return DeleteGroup(socket, group) != nil
			})
		},
		// The kernel tells what others do, so that it never is silent.
		"it does nothing, amid noise": func(w *proxies, p *pod) Proxy {
			return w.by(func(int, uint32) bool {
				for begin := time.Now(); time.Since(begin) < 4*lookAgain; {
					link, err := p.Link("other")
					if err == nil {
						err = errors.Join(p.Handle().LinkSetUp(link), p.Handle().LinkSetDown(link))
					}
					if err != nil {
						w.Error(err)
					}
				}
				return false
			})
		},
		// Notifications are lost.
		"it does it after an overrun": func(w *proxies, p *pod) Proxy {
			return w.by(func(socket int, group uint32) bool {
				before, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUF)
				err = errors.Join(err, unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_RCVBUF, 1), DeleteGroup(socket, group))
				if err != nil {
					w.Error(before, err)
				}
				return false
			})
		},
		// Any process of the pod can send it something.
		"somebody lies": func(w *proxies, p *pod) Proxy {
			return w.by(func(socket int, _ uint32) bool {
				if err := p.Do(func() error { return lie(p, socket) }); err != nil {
					w.Error(err)
				}
				return false
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, peers := pair(t)
			res := result(t, []string{"192.0.2.7/24"})
			res.Interfaces[0].Name = "net2"
			must(t, p.Configure(t.Context(), p.link(t, "net2"), res, Options{SourceRouting: true}))
			w := &proxies{TB: t}
			finish, err := p.DeleteLinks(isNet23, proxy(w, p))
			must(t, err)
			wantGone(t, p, peers)
			must(t, finish())
			if rules, err := p.sourceRulesOf(); err != nil || len(rules) != 0 {
				t.Errorf("rules that are left: %v, %v", rules, err)
			}
			w.Wait()
		})
	}
}

// deleteWrong is what a proxy of another version might do.
func deleteWrong(socket int) bool {
	return sendToKernel(socket, deleteRequest(7, 0)) != nil
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

// An interface that is taken out of the group meanwhile is not taken for gone.
func TestDeleteLinksThatStay(t *testing.T) {
	p, _ := pair(t)
	w := &proxies{TB: t}
	finish, err := p.DeleteLinks(isNet23, w.by(func(int, uint32) bool {
		if err := p.Handle().LinkSetGroup(p.link(t, "net3"), 0); err != nil {
			t.Error(err)
		}
		return true
	}))
	if err == nil || !strings.Contains(err.Error(), "are there still") {
		t.Errorf("found %v, want that they are there", err)
	}
	must(t, finish())
	w.Wait()
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
	w := &proxies{TB: t}
	finish, err := p.DeleteLinks(func(l netlink.Link) bool { return strings.HasPrefix(l.Attrs().Name, "many") },
		w.by(func(socket int, group uint32) bool { return DeleteGroup(socket, group) != nil }))
	must(t, errors.Join(err, finish()))
	w.Wait()
	if names := p.test.Links(t); !slices.Equal(names, []string{"net1"}) {
		t.Errorf("left: %q", names)
	}
}

// The namespace is removed while its interfaces are being deleted: it lives as long as somebody has it open.
func TestDeleteLinksOfNamespaceThatGoes(t *testing.T) {
	p, peers := pair(t)
	w := &proxies{TB: t}
	finish, err := p.DeleteLinks(isNet23, w.by(func(socket int, group uint32) bool {
		p.test.Remove(t)
		return DeleteGroup(socket, group) != nil
	}))
	must(t, errors.Join(err, finish()))
	w.Wait()
	wantGone(t, p, peers)
}

func TestDeleteGroupRefuses(t *testing.T) {
	p, _ := pair(t)
	var route int
	must(t, p.Do(func() (err error) {
		route, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
		return err
	}))
	defer unix.Close(route)
	generic, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	must(t, err)
	defer unix.Close(generic)
	inet, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(inet)
	var pipe [2]int
	must(t, unix.Pipe2(pipe[:], unix.O_CLOEXEC))
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	for _, tt := range []struct {
		socket int
		group  uint32
		want   string
	}{
		{route, 0, "group: found 0, want 1651663209"}, // the group of all interfaces
		{route, goingGroup + 1, "group: found 1651663210"},
		{generic, goingGroup, "found a socket of domain 16 and protocol 16, want 16 and 0"},
		{inet, goingGroup, "found a socket of domain 2"},
		{pipe[1], goingGroup, "socket operation on non-socket"},
		{-1, goingGroup, "bad file descriptor"},
	} {
		if err := DeleteGroup(tt.socket, tt.group); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("descriptor %d, group %d: found %v, want %q", tt.socket, tt.group, err, tt.want)
		}
	}
	if names := p.test.Links(t); len(names) != 4 {
		t.Errorf("left: %q", names)
	}
}

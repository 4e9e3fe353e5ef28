package nettest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// An NS is a network namespace with a path, as a container runtime hands it to a plugin.
type NS struct {
	path   string
	fd     netns.NsHandle
	handle *netlink.Handle

	removed bool
}

// NewNS makes a network namespace whose lo is up. It is removed when the test ends.
func NewNS(t testing.TB) *NS {
	t.Helper()
	NeedRoot(t)
	ns := &NS{path: filepath.Join(t.TempDir(), "netns"), fd: netns.None()}
	if err := ns.create(); err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { ns.Remove(t) })
	if err := ns.open(); err != nil {
		t.Fatal(err)
	}
	return ns
}

// Node returns the namespace of the process, which [Main] has made.
func Node(t testing.TB) *NS {
	t.Helper()
	NeedRoot(t)
	ns := &NS{path: "/proc/self/ns/net", fd: netns.None()}
	if err := ns.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.close)
	return ns
}

// The main thread can never end, so a namespace that was made on it would live as long as the process, with the ends of
// veth pairs in others. While the package is initialized the main goroutine is on that thread; here it takes it for
// itself.
func init() { runtime.LockOSThread() }

// create unshares on a thread of its own, which ends with the goroutine, and pins the namespace by a bind mount.
func (ns *NS) create() error {
	if err := os.WriteFile(ns.path, nil, 0o600); err != nil {
		return err
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is not to be used again
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("unshare: %w", err)
			}
			if err := loUp(); err != nil {
				return fmt.Errorf("set lo up: %w", err)
			}
			return unix.Mount("/proc/thread-self/ns/net", ns.path, "", unix.MS_BIND, "")
		}()
	}()
	return <-done
}

func (ns *NS) open() (err error) {
	if ns.fd, err = netns.GetFromPath(ns.path); err != nil {
		return fmt.Errorf("open %s: %w", ns.path, err)
	}
	if ns.handle, err = netlink.NewHandleAt(ns.fd); err != nil {
		return fmt.Errorf("open netlink in %s: %w", ns.path, err)
	}
	return nil
}

func (ns *NS) close() {
	if ns.handle != nil {
		ns.handle.Close()
	}
	if ns.fd.IsOpen() {
		_ = ns.fd.Close()
	}
}

// Remove removes the namespace before the test ends, as when a container has died: the path, and everything inside
// unless somebody else still holds the namespace open. The handle is of no use afterwards. Doing it twice is no error.
func (ns *NS) Remove(t testing.TB) {
	t.Helper()
	if ns.removed {
		return
	}
	ns.removed = true
	ns.close()
	if err := unix.Unmount(ns.path, unix.MNT_DETACH); err != nil {
		t.Errorf("unmount %s: %v", ns.path, err)
	}
	if err := os.Remove(ns.path); err != nil {
		t.Errorf("remove %s: %v", ns.path, err)
	}
}

// Path returns what CNI_NETNS would be.
func (ns *NS) Path() string { return ns.path }

// Handle returns a netlink handle inside the namespace.
func (ns *NS) Handle() *netlink.Handle { return ns.handle }

// Do runs f on a thread inside the namespace, on the goroutine of the caller, so that f may call t.Fatal. Goroutines
// that f starts are not inside; sockets that f opens and processes that it starts are.
func (ns *NS) Do(t testing.TB, f func()) {
	t.Helper()
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer before.Close()
	if err := netns.Set(ns.fd); err != nil {
		t.Fatalf("enter %s: %v", ns.path, err)
	}
	defer func() {
		if err := netns.Set(before); err != nil {
			// The thread stays locked, and so ends with the goroutine instead of being used by another one.
			t.Errorf("return from %s: %v", ns.path, err)
			return
		}
		runtime.UnlockOSThread()
	}()
	f()
}

// Link returns a link of the namespace. It ends the test if there is none.
func (ns *NS) Link(t testing.TB, name string) netlink.Link {
	t.Helper()
	link, err := ns.handle.LinkByName(name)
	if err != nil {
		t.Fatalf("look up link %s in %s: %v", name, ns.path, err)
	}
	return link
}

// Links returns the names of all links of the namespace except lo.
func (ns *NS) Links(t testing.TB) []string {
	t.Helper()
	links, err := ns.handle.LinkList()
	if err != nil {
		t.Fatalf("list links in %s: %v", ns.path, err)
	}
	names := []string{}
	for _, l := range links {
		if l.Attrs().Name != "lo" {
			names = append(names, l.Attrs().Name)
		}
	}
	return names
}

// Address adds addresses in CIDR notation to a link of the namespace. IPv6 addresses can be used at once.
func (ns *NS) Address(t testing.TB, link string, cidrs ...string) {
	t.Helper()
	l := ns.Link(t, link)
	for _, cidr := range cidrs {
		addr, err := netlink.ParseAddr(cidr)
		if err != nil {
			t.Fatal(err)
		}
		if addr.IP.To4() == nil {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := ns.handle.AddrAdd(l, addr); err != nil {
			t.Fatalf("add %s to %s: %v", cidr, link, err)
		}
	}
}

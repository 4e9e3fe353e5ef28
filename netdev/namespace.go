// Package netdev is netlink inside a pod's network namespace: it configures an interface after a CNI result, checks
// that it still is what the result says, and removes it.
//
// A [Namespace] holds one netlink socket that was opened inside, so nearly everything happens without a thread having
// to enter the namespace. Only sysctls need that ([Namespace.Do]). Nothing here sleeps: what the kernel takes time for
// (carrier, duplicate address detection) is waited for by netlink notification, until the context ends.
package netdev

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrGone is wrapped by the error of Open if the path does not exist, or exists but is no network namespace any more.
// DEL tolerates it.
var ErrGone = errors.New("network namespace is gone")

// ErrNotFound is wrapped by errors about an interface that does not exist.
var ErrNotFound = errors.New("no such interface")

// A Namespace is an open network namespace. It is safe for concurrent use.
type Namespace struct {
	path   string
	fd     netns.NsHandle
	handle *netlink.Handle
}

// Open opens the network namespace that a path leads to, as in CNI_NETNS. The error wraps ErrGone if there is none;
// the empty path is such a case, because a runtime leaves out CNI_NETNS when the namespace is gone.
func Open(path string) (*Namespace, error) {
	if path == "" {
		return nil, fmt.Errorf("open the network namespace: no path is given: %w", ErrGone)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("open %s: %w", path, ErrGone)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := isNetns(fd); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	ns := &Namespace{path: path, fd: netns.NsHandle(fd)}
	// Not netlink.NewHandleAt, which goes on with a thread that has not found the way back.
	err = ns.Do(func() (err error) {
		ns.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		if ns.handle != nil {
			ns.handle.Close()
		}
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open a netlink socket in %s: %w", path, err)
	}
	return ns, nil
}

// Host opens the namespace of this process: the node's. It asks for that of the thread, since the main thread, which
// /proc/self is about, may be one that the Go runtime has put aside.
func Host() (*Namespace, error) { return Open("/proc/thread-self/ns/net") }

// isNetns tells a namespace from what is left of the path when it has been unmounted, an ordinary file.
func isNetns(fd int) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil {
		return err
	}
	if st.Type != unix.NSFS_MAGIC {
		return fmt.Errorf("not a namespace: %w", ErrGone)
	}
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil {
		return err
	}
	if kind != unix.CLONE_NEWNET {
		return errors.New("a namespace, but not a network namespace")
	}
	return nil
}

// Close releases the descriptor and the socket. The namespace itself is not touched.
func (ns *Namespace) Close() error {
	ns.handle.Close()
	return ns.fd.Close()
}

// Path returns the path that the namespace was opened by: the "sandbox" of its interfaces.
func (ns *Namespace) Path() string { return ns.path }

// Handle returns the netlink handle inside the namespace. Its dumps can be interrupted; see [Dump].
func (ns *Namespace) Handle() *netlink.Handle { return ns.handle }

// FD returns the descriptor of the namespace, for netlink.NsFd. It is valid until Close.
func (ns *Namespace) FD() int { return int(ns.fd) }

// Do runs fn on a thread that is inside the namespace. It is for what netlink cannot do: sysctls and sockets.
func (ns *Namespace) Do(fn func() error) error {
	done := make(chan error, 1)
	// A goroutine of its own: if the way back fails, its thread ends with it and the caller is where it was.
	go func() { done <- ns.enter(fn) }()
	return <-done
}

func (ns *Namespace) enter(fn func() error) error {
	runtime.LockOSThread()
	outside, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open the thread's network namespace: %w", err)
	}
	defer outside.Close()
	if err := netns.Set(ns.fd); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter %s: %w", ns.path, err)
	}
	err = fn()
	if back := netns.Set(outside); back != nil {
		return errors.Join(err, fmt.Errorf("leave %s: %w", ns.path, back))
	}
	runtime.UnlockOSThread()
	return err
}

// Link returns an interface of the namespace by name. The error wraps ErrNotFound if there is none.
func (ns *Namespace) Link(name string) (netlink.Link, error) {
	link, err := ns.handle.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, fmt.Errorf("look up interface %s in %s: %w", name, ns.path, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("look up interface %s in %s: %w", name, ns.path, err)
	}
	return link, nil
}

// Interface returns what a result says of an interface of the namespace.
func (ns *Namespace) Interface(name string) (*types100.Interface, error) {
	link, err := ns.Link(name)
	if err != nil {
		return nil, err
	}
	attrs := link.Attrs()
	return &types100.Interface{Name: name, Mac: attrs.HardwareAddr.String(), Mtu: attrs.MTU, Sandbox: ns.path}, nil
}

// Names returns the names of all interfaces.
func (ns *Namespace) Names() ([]string, error) {
	links, err := Dump(ns.handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links of %s: %w", ns.path, err)
	}
	names := make([]string, len(links))
	for i, link := range links {
		names[i] = link.Attrs().Name
	}
	return names, nil
}

// Free returns an error if the name is taken in the namespace.
//
// "If an interface of the requested name already exists in the container, the CNI plugin MUST return with an error."
func (ns *Namespace) Free(name string) error {
	switch _, err := ns.Link(name); {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("interface %s exists already in %s", name, ns.path)
}

// DeleteLink deletes an interface and the rules of its source routing. It returns nil if there is none.
func (ns *Namespace) DeleteLink(name string) error {
	link, err := ns.Link(name)
	if err == nil {
		err = ns.handle.LinkDel(link)
		if errors.Is(err, unix.ENODEV) {
			err = nil // somebody else was faster
		}
		if err != nil {
			err = fmt.Errorf("delete interface %s in %s: %w", name, ns.path, err)
		}
	} else if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return errors.Join(err, ns.deleteOrphanedRules())
}

// Dump calls a netlink list function again if the kernel says that its answer may be incomplete, because links,
// addresses or routes were changing meanwhile: it then ends with EINTR.
func Dump[T any](list func() ([]T, error)) (found []T, err error) {
	for range 16 {
		if found, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return found, err
}

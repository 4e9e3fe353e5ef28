// Package netdev is netlink inside a pod's network namespace: it configures an interface after a CNI result, checks
// that it still is what the result says, and removes it.
//
// A [Namespace] holds netlink sockets that were opened inside, so nearly everything happens without a thread having
// to enter the namespace. What an ADD does goes by a [Batch]: requests in one datagram, with those of others who ask at
// the same time, and no more is asked for and decoded than is looked at. For the rest there is the library's
// [Namespace.Handle]. Only sysctls need a thread inside ([Namespace.Do]). What the kernel takes time for (carrier,
// duplicate address detection) is waited for by netlink notification, until the context ends; nothing sleeps for that.
package netdev

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"

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
	socket *socket
	id     identity
	own    bool // it is the process's, in which all threads are but those of a Do
	users  int  // that have opened it and not closed it, guarded by opened

	numbering sync.Mutex
	numbered  numbered
}

// An identity is that of a namespace, whatever paths lead to it.
type identity struct {
	dev, inode uint64
}

// opened are the namespaces that are open in this process. All plugins of an ADD work in the same two, and a descriptor
// and a socket for each of them, which take a thread to go there and back, would be most of what they do.
var opened struct {
	sync.Mutex
	byPath map[string]*Namespace
}

// Open opens the network namespace that a path leads to, as in CNI_NETNS. The error wraps ErrGone if there is none;
// the empty path is such a case, because a runtime leaves out CNI_NETNS when the namespace is gone. Whoever opens one that
// is open already shares it. Each closes it once.
func Open(path string) (*Namespace, error) {
	if path == "" {
		return nil, fmt.Errorf("open the network namespace: no path is given: %w", ErrGone)
	}
	// Not netlink.NewHandleAt, which goes on with a thread that has not found the way back.
	return share(path, func(ns *Namespace) error { return ns.Do(ns.connect) })
}

// Host opens the namespace of this process: the node's. It asks for that of the thread, since the main thread, which
// /proc/self is about, may be one that the Go runtime has put aside. Nobody may call it within [Namespace.Do].
func Host() (*Namespace, error) {
	return share(threadNamespace, func(ns *Namespace) error {
		ns.own = true
		return ns.connect()
	})
}

// threadNamespace leads to that of the thread which looks. Threads that are elsewhere than the process are in a
// [Namespace.Do], and belong to that alone.
const threadNamespace = "/proc/thread-self/ns/net"

// share returns the namespace that a path leads to: an open one, or else one that connect gives a socket.
func share(path string, connect func(*Namespace) error) (*Namespace, error) {
	opened.Lock()
	defer opened.Unlock()
	if ns, ok := opened.byPath[path]; ok && (ns.own || ns.isAt(path)) {
		ns.users++
		return ns, nil
	}
	ns, err := newNamespace(path, connect)
	if err != nil {
		return nil, err
	}
	if opened.byPath == nil {
		opened.byPath = make(map[string]*Namespace)
	}
	opened.byPath[path] = ns // in the place of one that has gone from there
	return ns, nil
}

func newNamespace(path string, connect func(*Namespace) error) (*Namespace, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, fmt.Errorf("open %s: %w", path, ErrGone)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	ns := &Namespace{path: path, fd: netns.NsHandle(fd), users: 1}
	if err := errors.Join(isNetns(fd), ns.identify()); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := connect(ns); err != nil {
		return nil, errors.Join(fmt.Errorf("open a netlink socket in %s: %w", path, err), ns.release())
	}
	return ns, nil
}

func (ns *Namespace) identify() error {
	var st unix.Stat_t
	err := unix.Fstat(int(ns.fd), &st)
	ns.id = identityOf(&st)
	return err
}

func identityOf(st *unix.Stat_t) identity { return identity{uint64(st.Dev), st.Ino} }

// isAt says whether a path leads to the namespace.
func (ns *Namespace) isAt(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && identityOf(&st) == ns.id
}

// connect opens netlink sockets in the namespace of the thread.
func (ns *Namespace) connect() (err error) {
	if ns.socket, err = openSocket(); err != nil {
		return err
	}
	ns.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	return err
}

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

// Close releases the descriptor and the socket, if nobody else has the namespace open. The namespace itself is not touched.
func (ns *Namespace) Close() error {
	opened.Lock()
	defer opened.Unlock()
	if ns.users == 0 {
		return fs.ErrClosed // the number of its descriptor may be another file's by now
	}
	if ns.users--; ns.users > 0 {
		return nil
	}
	if opened.byPath[ns.path] == ns {
		delete(opened.byPath, ns.path)
	}
	return ns.release()
}

func (ns *Namespace) release() error {
	if ns.handle != nil {
		ns.handle.Close()
	}
	if ns.socket != nil {
		ns.socket.close()
	}
	return ns.fd.Close()
}

// Cookie tells the namespace from every other that has been there since the node has booted. Its inode does not: the kernel gives
// that of one which is gone to the next. It is 0 on a kernel before 5.14.
func (ns *Namespace) Cookie() uint64 {
	cookie, err := unix.GetsockoptUint64(ns.socket.fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err != nil {
		return 0
	}
	return cookie
}

// Path returns the path that the namespace was opened by: the "sandbox" of its interfaces.
func (ns *Namespace) Path() string { return ns.path }

// Handle returns the netlink handle inside the namespace. Its dumps can be interrupted; see [Dump].
func (ns *Namespace) Handle() *netlink.Handle { return ns.handle }

// FD returns the descriptor of the namespace, for netlink.NsFd. It is valid until Close.
func (ns *Namespace) FD() int { return int(ns.fd) }

// Do runs fn on a thread that is inside the namespace. It is for what netlink cannot do: sysctls and sockets.
func (ns *Namespace) Do(fn func() error) error {
	if ns.own {
		return fn()
	}
	done := make(chan error, 1)
	// A goroutine of its own: if the way back fails, its thread ends with it and the caller is where it was.
	go func() { done <- ns.enter(fn) }()
	return <-done
}

func (ns *Namespace) enter(fn func() error) error {
	runtime.LockOSThread()
	outside, err := netns.GetFromPath(threadNamespace) // netns.Get goes by numbers, which the /proc of another PID namespace does not have
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

package lease

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/netdev"
)

// An Interface is that of an attachment, with what tells it from a later one that has the same path and name.
//
// Nothing keeps it open: a socket or a descriptor would keep the namespace of a dead pod alive, and with it the pod's
// hold on the node's network.
type Interface struct {
	Netns  string `json:"netns"` // path
	Device uint64 `json:"dev"`   // of the namespace, together with Inode
	Inode  uint64 `json:"inode"`
	Name   string `json:"name"`
	Index  int    `json:"index"`
	MAC    string `json:"mac"`
	MTU    int    `json:"mtu"`  // before any lease changed it
	Kind   string `json:"kind"` // "macvlan", "ipvlan", "veth", ...
}

// Find looks up the interface of a name in a namespace. The error wraps [netdev.ErrGone] or [netdev.ErrNotFound] if
// there is none.
func Find(netns, name string) (Interface, error) {
	ns, err := netdev.Open(netns)
	if err != nil {
		return Interface{}, err
	}
	defer ns.Close()
	link, err := ns.Link(name)
	if err != nil {
		return Interface{}, err
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(ns.FD(), &st); err != nil {
		return Interface{}, fmt.Errorf("identify %s: %w", netns, err)
	}
	a := link.Attrs()
	return Interface{
		Netns: netns, Device: st.Dev, Inode: st.Ino,
		Name: name, Index: a.Index, MAC: a.HardwareAddr.String(), MTU: a.MTU, Kind: link.Type(),
	}, nil
}

// Same tells whether two are one and the same interface. Its MTU may have changed.
func (i Interface) Same(other Interface) bool {
	i.MTU = other.MTU
	return i == other
}

// Open opens the namespace and looks up the interface. The error wraps [netdev.ErrGone] or [netdev.ErrNotFound] if it
// does not exist, or if another namespace or interface has taken its place.
func (i Interface) Open() (*netdev.Namespace, netlink.Link, error) {
	now, err := Find(i.Netns, i.Name)
	if err != nil {
		return nil, nil, err
	}
	if !now.Same(i) {
		return nil, nil, fmt.Errorf("interface %s in %s is another one now: %w", i.Name, i.Netns, netdev.ErrGone)
	}
	ns, err := netdev.Open(i.Netns)
	if err != nil {
		return nil, nil, err
	}
	link, err := ns.Link(i.Name)
	if err != nil {
		_ = ns.Close()
		return nil, nil, err
	}
	return ns, link, nil
}

// SetUp sets the interface up, if the plugin that made it has not.
func (i Interface) SetUp() error {
	ns, link, err := i.Open()
	if err != nil {
		return err
	}
	defer ns.Close()
	if link.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	if err := ns.Handle().LinkSetUp(link); err != nil {
		return fmt.Errorf("set interface %s up: %w", i.Name, err)
	}
	return nil
}

// OpenReady is Open of an interface that packets can be sent on. It waits until it has a carrier, or the context ends.
func (i Interface) OpenReady(ctx context.Context) (*netdev.Namespace, netlink.Link, error) {
	ns, link, err := i.Open()
	if err != nil {
		return nil, nil, err
	}
	if err := ns.WaitCarrier(ctx, i.Name); err != nil {
		_ = ns.Close()
		return nil, nil, err
	}
	return ns, link, nil
}

// Gone tells whether the namespace does not exist any more, without opening it.
func (i Interface) Gone() bool {
	info, err := os.Stat(i.Netns)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && (st.Dev != i.Device || st.Ino != i.Inode)
}

// IsGone tells whether an error says that the interface does not exist any more.
func IsGone(err error) bool {
	return errors.Is(err, netdev.ErrGone) || errors.Is(err, netdev.ErrNotFound)
}

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
	Kind   string `json:"kind"` // "macvlan", "ipvlan", "veth", ...
	MAC    string `json:"mac"`  // at first; a later plugin of the chain may change it
	MTU    int    `json:"mtu"`  // before any lease changed it
}

// Find looks up the interface of a name in a namespace. The error wraps [netdev.ErrGone] or [netdev.ErrNotFound] if
// there is none.
func Find(netns, name string) (Interface, error) {
	i, ns, _, err := find(netns, name)
	if err != nil {
		return Interface{}, err
	}
	return i, ns.Close()
}

func find(netns, name string) (i Interface, ns *netdev.Namespace, link netlink.Link, err error) {
	if ns, err = netdev.Open(netns); err != nil {
		return i, nil, nil, err
	}
	var st syscall.Stat_t
	if link, err = ns.Link(name); err == nil {
		err = syscall.Fstat(ns.FD(), &st)
	}
	if err != nil {
		return i, nil, nil, errors.Join(err, ns.Close())
	}
	a := link.Attrs()
	return Interface{
		Netns: netns, Device: st.Dev, Inode: st.Ino,
		Name: name, Index: a.Index, Kind: link.Type(), MAC: a.HardwareAddr.String(), MTU: a.MTU,
	}, ns, link, nil
}

// Same tells whether two are one and the same interface. Its MAC and MTU may have changed.
func (i Interface) Same(other Interface) bool {
	i.MAC, i.MTU = other.MAC, other.MTU
	return i == other
}

// Open opens the namespace and looks up the interface. The error wraps [netdev.ErrGone] or [netdev.ErrNotFound] if it
// does not exist, or if another namespace or interface has taken its place.
func (i Interface) Open() (*netdev.Namespace, netlink.Link, error) {
	now, ns, link, err := find(i.Netns, i.Name)
	if err != nil {
		return nil, nil, err
	}
	if !now.Same(i) {
		_ = ns.Close()
		return nil, nil, fmt.Errorf("interface %s in %s is another one now: %w", i.Name, i.Netns, netdev.ErrGone)
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

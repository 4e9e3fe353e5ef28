package netdev

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// goingGroup is the group of the interfaces that are about to be deleted: a number that nobody takes by chance.
const goingGroup = 0x62726169

// DeleteLinks deletes the interfaces for which gone returns true. It returns when they are gone, though the kernel may not be
// done: finish waits for that, and removes the rules of their source routing. It has to be called.
//
// It is one request to the kernel, by group. At the end of each that deletes something the kernel waits for a grace period
// of RCU, tens of milliseconds, in which all interfaces of the request go together. They are not in the namespace any more
// by then.
func (ns *Namespace) DeleteLinks(gone func(netlink.Link) bool) (finish func() error, err error) {
	finish = func() error { return nil }
	links, err := Dump(ns.handle.LinkList)
	if err != nil {
		return finish, fmt.Errorf("list links of %s: %w", ns.path, err)
	}
	links = slices.DeleteFunc(links, func(l netlink.Link) bool { return !gone(l) })
	if len(links) == 0 {
		return finish, nil
	}
	for _, link := range links {
		if err := ns.handle.LinkSetGroup(link, goingGroup); err != nil && !errors.Is(err, unix.ENODEV) {
			return finish, fmt.Errorf("put interface %s of %s in a group: %w", link.Attrs().Name, ns.path, err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- ns.deleteGroup() }()
	for {
		select {
		case err := <-done:
			return finish, err
		case <-time.After(lookAgain):
		}
		if left, err := Dump(ns.handle.LinkList); err == nil && !slices.ContainsFunc(left, isGoing) {
			return func() error { return <-done }, nil
		}
	}
}

// lookAgain is when it is looked whether interfaces are gone.
const lookAgain = 300 * time.Microsecond

func isGoing(l netlink.Link) bool { return l.Attrs().Group == goingGroup }

func (ns *Namespace) deleteGroup() error {
	r := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(goingGroup)))
	if err := ns.request(r); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interfaces of %s: %w", ns.path, err)
	}
	return ns.deleteOrphanedRules()
}

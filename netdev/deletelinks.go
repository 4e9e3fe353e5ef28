package netdev

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// goingGroup is the group of the interfaces that are about to be deleted: a number that nobody takes by chance.
const goingGroup = 0x62726169

// DeleteLinks deletes the interfaces for which gone returns true, and the rules of their source routing.
//
// It is one request to the kernel, by group. At the end of each that deletes something the kernel waits for a grace period
// of RCU, tens of milliseconds, in which all interfaces of the request go together.
func (ns *Namespace) DeleteLinks(gone func(netlink.Link) bool) error {
	links, err := Dump(ns.handle.LinkList)
	if err != nil {
		return fmt.Errorf("list links of %s: %w", ns.path, err)
	}
	found := false
	for _, link := range links {
		if !gone(link) {
			continue
		}
		if err := ns.handle.LinkSetGroup(link, goingGroup); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("put interface %s of %s in a group: %w", link.Attrs().Name, ns.path, err)
		}
		found = true
	}
	if !found {
		return nil
	}
	r := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(goingGroup)))
	err = ns.request(r)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete interfaces of %s: %w", ns.path, err)
	}
	return ns.deleteOrphanedRules()
}

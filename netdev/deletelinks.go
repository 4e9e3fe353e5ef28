package netdev

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// goingGroup is the group of the interfaces that are about to be deleted: a number that nobody takes by chance.
const goingGroup = 0x62726169

// DeleteLinks deletes the interfaces for which gone returns true, and returns when they are gone. Finish, which has to be called,
// removes the rules of their source routing.
//
// It is one request to the kernel, by group. At the end of each that deletes something the kernel waits for a grace period
// of RCU, tens of milliseconds, in which all interfaces of the request go together. They are not in the namespace any more
// by then, and the kernel has said so: for the rest only a thread of this process waits. A process that ends meanwhile does not
// come to its end before.
func (ns *Namespace) DeleteLinks(gone func(netlink.Link) bool) (finish func() error, err error) {
	finish = func() error { return nil }
	links, err := ns.Links()
	if err != nil {
		return finish, err
	}
	links = slices.DeleteFunc(links, func(l netlink.Link) bool { return !gone(l) })
	if len(links) == 0 {
		return finish, nil
	}
	d := &deletion{ns: ns}
	if err := ns.Do(d.open); err != nil {
		return finish, fmt.Errorf("open a netlink socket in %s: %w", ns.path, err)
	}
	if err := d.mark(links); err != nil {
		return d.finish, err
	}
	return d.finish, d.run()
}

// deleteRequest deletes all interfaces of a group. The answer to it has the number.
func deleteRequest(group, number uint32) []byte {
	r := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	r.Seq = number
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	return r.Serialize()
}

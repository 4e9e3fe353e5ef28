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

// A Proxy has another process call [DeleteGroup] with a duplicate of the socket, and does not wait for it. The descriptor
// that it returns becomes readable if that process refuses, or is no more; the caller closes it.
type Proxy func(socket int, group uint32) (refusal int, err error)

// DeleteLinks deletes the interfaces for which gone returns true. It returns when they are gone, though the kernel may not be
// done: finish waits for that, and removes the rules of their source routing. It has to be called.
//
// It is one request to the kernel, by group. At the end of each that deletes something the kernel waits for a grace period
// of RCU, tens of milliseconds, in which all interfaces of the request go together. They are not in the namespace any more
// by then, and the kernel has said so; but a process cannot end while it waits in a request. So proxy sends it, unless that is
// nil. What it does not do in time, this process does: it makes no difference which of two requests comes first.
func (ns *Namespace) DeleteLinks(gone func(netlink.Link) bool, proxy Proxy) (finish func() error, err error) {
	finish = func() error { return nil }
	links, err := ns.Links()
	if err != nil {
		return finish, err
	}
	links = slices.DeleteFunc(links, func(l netlink.Link) bool { return !gone(l) })
	if len(links) == 0 {
		return finish, nil
	}
	d := &deletion{ns: ns, refusal: -1}
	if err := ns.Do(d.open); err != nil {
		return finish, fmt.Errorf("open a netlink socket in %s: %w", ns.path, err)
	}
	if err := d.mark(links); err != nil {
		return d.finish, err
	}
	return d.finish, d.run(proxy)
}

// DeleteGroup deletes the interfaces that [Namespace.DeleteLinks] has put in a group, in the namespace of a netlink socket,
// and returns when the kernel is done. What has become of it the kernel says on the socket. Anything but such a socket and
// that group is an error.
func DeleteGroup(socket int, group uint32) error {
	if group != goingGroup {
		return fmt.Errorf("group: found %d, want %d", group, goingGroup)
	}
	domain, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return fmt.Errorf("the descriptor: %w, want a netlink socket", err)
	}
	protocol, err := unix.GetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil || domain != unix.AF_NETLINK || protocol != unix.NETLINK_ROUTE {
		return fmt.Errorf("the descriptor: found a socket of domain %d and protocol %d, want %d and %d", domain, protocol, unix.AF_NETLINK, unix.NETLINK_ROUTE)
	}
	return sendToKernel(socket, deleteRequest(group, 0))
}

func sendToKernel(socket int, requests []byte) error {
	return unix.Sendto(socket, requests, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// deleteRequest deletes all interfaces of a group. The answer to it has the number.
func deleteRequest(group, number uint32) []byte {
	r := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	r.Seq = number
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	return r.Serialize()
}

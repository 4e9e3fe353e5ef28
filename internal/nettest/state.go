package nettest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// State prints what the kernel has of an interface, one line for each thing, so that what two plugins made of the same
// input can be compared: the link without its MAC, addresses and routes without those of the IPv6 link-local network.
func (ns *NS) State(t testing.TB, name string) string {
	t.Helper()
	link := ns.Link(t, name)
	lines := []string{fmt.Sprintf("link type %s mtu %d %v %s", link.Type(), link.Attrs().MTU, link.Attrs().Flags, modeOf(link))}
	addrs, err := ns.handle.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatalf("list the addresses of %s: %v", name, err)
	}
	for _, a := range addrs {
		if !a.IP.IsLinkLocalUnicast() {
			lines = append(lines, fmt.Sprintf("address %s broadcast %v flags %#x", a.IPNet, a.Broadcast, a.Flags))
		}
	}
	filter := &netlink.Route{LinkIndex: link.Attrs().Index, Table: unix.RT_TABLE_UNSPEC}
	routes, err := ns.handle.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	if err != nil {
		t.Fatalf("list the routes of %s: %v", name, err)
	}
	for _, r := range routes {
		if r.Table != unix.RT_TABLE_LOCAL && (r.Dst == nil || !r.Dst.IP.IsLinkLocalUnicast()) {
			lines = append(lines, fmt.Sprintf("route %v via %v src %v metric %d table %d scope %d by the kernel %v",
				r.Dst, r.Gw, r.Src, r.Priority, r.Table, r.Scope, r.Protocol == unix.RTPROT_KERNEL))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

func modeOf(link netlink.Link) string {
	switch l := link.(type) {
	case *netlink.Macvlan:
		return fmt.Sprintf("mode %v queue %d", l.Mode, l.BCQueueLen)
	case *netlink.IPVlan:
		return fmt.Sprintf("mode %v flag %v", l.Mode, l.Flag)
	}
	return ""
}

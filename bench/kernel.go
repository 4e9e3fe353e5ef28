package main

import (
	"os"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/nettest"
	"time"
)

// nsFD opens a namespace for the length of the run.
func (b *bench) nsFD(path string) int {
	if f, ok := b.open[path]; ok {
		return int(f.Fd())
	}
	f, err := os.Open(path)
	b.t.must(err)
	b.open[path] = f
	b.t.Cleanup(func() { f.Close() })
	return int(f.Fd())
}

// linksGone waits a moment for the links of a namespace to go, since a plugin may answer DEL when the kernel has only begun
// to, and returns those that are left.
func (b *bench) linksGone(path string) (left []string) {
	for range 50 {
		for _, ns := range b.ns {
			if ns.Path() == path {
				if left = ns.Links(b.t); len(left) == 0 {
					return nil
				}
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return left
}

// clean deletes what a call that failed has left in a namespace.
func (b *bench) clean(ns *nettest.NS) {
	for _, name := range ns.Links(b.t) {
		if link, err := ns.Handle().LinkByName(name); err == nil {
			_ = ns.Handle().LinkDel(link)
		}
	}
}

func (b *bench) deleteLink(name string) {
	if link, err := netlink.LinkByName(name); err == nil {
		b.t.must(netlink.LinkDel(link))
	}
}

// deleteGroup deletes all links of the node with a group number, by one request.
func (b *bench) deleteGroup(group uint32) {
	r := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	r.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	r.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	if _, err := r.Execute(unix.NETLINK_ROUTE, 0); err != nil && err != syscall.ENODEV {
		b.t.must(err)
	}
}

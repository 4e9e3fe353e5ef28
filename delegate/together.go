package delegate

import (
	"errors"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/netdev"
)

// deleteTogether deletes the interfaces of attachments, which all are deletedFirst, by one request, and returns how to wait
// until the kernel is done with them; the plugins undo the rest in the meantime. For those it is as if the container had
// lost them: what an error leaves here, they delete one by one.
func (c *call) deleteTogether(r *journal.Record, attachments []journal.Attachment) (finish func()) {
	if r.Netns == "" {
		return func() {}
	}
	failed := func(err error) { c.log.Info("the interfaces are deleted one by one", "err", err) }
	ns, err := netdev.Open(r.Netns)
	if err != nil {
		failed(err)
		return func() {}
	}
	wait, err := ns.DeleteLinks(func(link netlink.Link) bool {
		return slices.ContainsFunc(attachments, func(a journal.Attachment) bool { return isLinkOf(&a, link) })
	})
	if err != nil {
		failed(err)
	}
	return sync.OnceFunc(func() {
		if err := errors.Join(wait(), ns.Close()); err != nil {
			c.log.Warn("delete interfaces", "err", err)
		}
	})
}

// deletedFirst says that the interface of an attachment may be deleted before its plugins are asked: all are own, and
// there is no lease that could only be released while the interface exists.
func (c *call) deletedFirst(a *journal.Attachment) bool {
	if a.Result == nil || kindOf(a) == "" || !c.chainOf(a).InProcess() {
		return false
	}
	for _, p := range a.Network.Plugins {
		if p.IPAM == "dhcp" {
			return false
		}
	}
	return true
}

// kindOf is what the kernel calls the interface of an attachment.
func kindOf(a *journal.Attachment) string {
	return map[string]string{"bridge": "veth", "macvlan": "macvlan", "ipvlan": "ipvlan"}[a.Network.Plugins[0].Type]
}

// isLinkOf tells an interface that an attachment has made from one that got its name.
func isLinkOf(a *journal.Attachment, link netlink.Link) bool {
	attrs := link.Attrs()
	if attrs.Name != a.IfName || link.Type() != kindOf(a) {
		return false
	}
	for _, i := range a.Result.Interfaces {
		if i.Name == a.IfName && i.Sandbox != "" && i.Mac == attrs.HardwareAddr.String() {
			return true
		}
	}
	return false
}

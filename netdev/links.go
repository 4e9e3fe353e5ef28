package netdev

import (
	"errors"
	"fmt"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Link returns an interface of the namespace by name: its names and alias, addresses, state, flags, what it is connected to and
// what is particular to its kind. The error wraps ErrNotFound if there is none.
func (ns *Namespace) Link(name string) (link netlink.Link, err error) {
	b := ns.Batch()
	b.Link(name, &link)
	return link, b.Send()
}

// Link has an interface looked up as [Namespace.Link] does it.
func (b *Batch) Link(name string, into *netlink.Link) {
	kind := unix.IFLA_IFNAME
	if len(name) >= unix.IFNAMSIZ {
		kind = unix.IFLA_ALT_IFNAME
	}
	b.look(name, into, nl.NewIfInfomsg(unix.AF_UNSPEC), nl.NewRtAttr(kind, nl.ZeroTerminated(name)))
}

// Find returns the interfaces of the namespace that have one of the names, in their order; nil stands for one that there is not.
func (ns *Namespace) Find(names ...string) ([]netlink.Link, error) {
	found := make([]netlink.Link, len(names))
	b := ns.Batch()
	for i, name := range names {
		b.Link(name, &found[i])
		b.tolerate(ErrNotFound)
	}
	return found, b.Send()
}

// LinkAt returns an interface of the namespace by index. The error wraps ErrNotFound if there is none.
func (ns *Namespace) LinkAt(index int) (link netlink.Link, err error) {
	b := ns.Batch()
	b.LinkAt(index, &link)
	return link, b.Send()
}

// LinkAt has an interface looked up as [Namespace.LinkAt] does it.
func (b *Batch) LinkAt(index int, into *netlink.Link) {
	b.look(fmt.Sprint(index), into, aboutLink(index))
}

// aboutLink is the header of a request about an interface.
func aboutLink(index int) *nl.IfInfomsg {
	m := nl.NewIfInfomsg(unix.AF_UNSPEC)
	m.Index = int32(index)
	return m
}

func (b *Batch) look(which string, into *netlink.Link, what ...nl.NetlinkRequestData) {
	b.add(unix.RTM_GETLINK, 0, func(messages [][]byte, err error) error {
		switch {
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EINVAL): // the latter is of a kernel without alternative names
			err = ErrNotFound
		case err == nil && len(messages) != 1:
			err = unix.EBADMSG
		}
		if err == nil {
			*into, err = decodeLink(messages[0])
		}
		if err != nil {
			return fmt.Errorf("look up interface %s in %s: %w", which, b.ns.path, err)
		}
		return nil
	}, append(what, withoutStatistics())...)
}

// Links returns all interfaces of the namespace.
func (ns *Namespace) Links() ([]netlink.Link, error) {
	links, err := list(ns, unix.RTM_GETLINK, decodeLink, nl.NewIfInfomsg(unix.AF_UNSPEC), withoutStatistics())
	if err != nil {
		return nil, fmt.Errorf("list the interfaces of %s: %w", ns.path, err)
	}
	return links, nil
}

// Interface returns what a result says of an interface of the namespace.
func (ns *Namespace) Interface(link netlink.Link) *types100.Interface {
	attrs := link.Attrs()
	return &types100.Interface{Name: attrs.Name, Mac: attrs.HardwareAddr.String(), Mtu: attrs.MTU, Sandbox: ns.path}
}

// Names returns the names of all interfaces.
func (ns *Namespace) Names() ([]string, error) {
	links, err := ns.Links()
	names := make([]string, len(links))
	for i, link := range links {
		names[i] = link.Attrs().Name
	}
	return names, err
}

// Free returns an error if the name is taken in the namespace.
//
// "If an interface of the requested name already exists in the container, the CNI plugin MUST return with an error."
func (ns *Namespace) Free(name string) error {
	switch _, err := ns.Link(name); {
	case errors.Is(err, ErrNotFound):
		return nil
	case err != nil:
		return err
	}
	return fmt.Errorf("interface %s exists already in %s", name, ns.path)
}

// SetUp sets an interface up, unless it was when it was looked up.
func (ns *Namespace) SetUp(link netlink.Link) error {
	b := ns.Batch()
	b.setUp(link)
	return b.Send()
}

func (b *Batch) setUp(link netlink.Link) {
	attrs := link.Attrs()
	if attrs.RawFlags&unix.IFF_UP != 0 {
		return
	}
	up := aboutLink(attrs.Index)
	up.Flags, up.Change = unix.IFF_UP, unix.IFF_UP
	b.add(unix.RTM_SETLINK, unix.NLM_F_ACK, func(_ [][]byte, err error) error {
		if err != nil {
			return fmt.Errorf("set %s up: %w", attrs.Name, err)
		}
		attrs.RawFlags |= unix.IFF_UP
		return nil
	}, up)
}

// SetLink has several attributes (IFLA_*) changed of an interface that has not been looked up. What the kernel says goes through explain.
func (b *Batch) SetLink(name string, explain func(error) error, attributes ...*nl.RtAttr) {
	data := []nl.NetlinkRequestData{nl.NewIfInfomsg(unix.AF_UNSPEC), named(name)}
	for _, a := range attributes {
		data = append(data, a)
	}
	b.add(unix.RTM_SETLINK, unix.NLM_F_ACK, func(_ [][]byte, err error) error { return explain(err) }, data...)
}

// SetUpNamed has an interface set up that has not been looked up.
func (b *Batch) SetUpNamed(name string) {
	up := nl.NewIfInfomsg(unix.AF_UNSPEC)
	up.Flags, up.Change = unix.IFF_UP, unix.IFF_UP
	b.add(unix.RTM_SETLINK, unix.NLM_F_ACK, func(_ [][]byte, err error) error {
		if err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
		return nil
	}, up, named(name))
}

func named(name string) *nl.RtAttr { return nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)) }

// DeleteLink deletes an interface and the rules of its source routing. It returns nil if there is none.
func (ns *Namespace) DeleteLink(name string) error {
	return ns.DeleteLinkIf(name, func(netlink.Link) bool { return true })
}

// DeleteLinkIf is DeleteLink of an interface for which ours returns true. Another one of the name is left alone.
func (ns *Namespace) DeleteLinkIf(name string, ours func(netlink.Link) bool) error {
	link, err := ns.Link(name)
	switch {
	case errors.Is(err, ErrNotFound):
		err = nil
	case err == nil && !ours(link):
		return nil
	case err == nil:
		err = ns.handle.LinkDel(link)
		if errors.Is(err, unix.ENODEV) {
			err = nil // somebody else was faster
		}
		if err != nil {
			err = fmt.Errorf("delete interface %s in %s: %w", name, ns.path, err)
		}
	}
	return errors.Join(err, ns.deleteOrphanedRules())
}

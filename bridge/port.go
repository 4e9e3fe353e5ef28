package bridge

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/nft"
)

// The port of a pod is the node's end of a veth pair. Its name is derived from that of the attachment, so DEL finds it
// without a namespace, a result or a list of all links. Its alias, "braid:network:container:interface", says whose it
// is: to a person, to GC, and to DEL, should two names ever be the same.
const aliasPrefix = "braid:"

// names is how many names a port can have. With 44 bits of hash the first one is free, unless a person took it.
const names = 3

// hostName returns the n-th name for a port.
func hostName(owner string, n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s#%d", owner, n))
	return "veth" + hex.EncodeToString(sum[:])[:11] // 15 characters, the most there can be
}

// createPort makes the pair and connects it to the bridge. The first name for the port is free or not.
func (a *attachment) createPort(name string, free bool) (err error) {
	for n := range names {
		if n > 0 {
			name, free = hostName(a.owner.String(), n), false
		}
		if !free {
			if free, err = a.vacate(name); err != nil {
				return err
			} else if !free {
				continue
			}
		}
		err := a.makePair(name)
		if err == nil {
			return nil
		}
		err = fmt.Errorf("create %s in %s: %w", a.req.IfName, a.pod.Path(), err)
		if !errors.Is(err, netdev.ErrExists) {
			a.undo.Add("create "+name, func() error { return a.node.DeleteLinkIf(name, isUnmarked) })
			return err
		}
		if taken := a.pod.Free(a.req.IfName); taken != nil { // and not the name for the port
			return errors.Join(err, taken)
		}
	}
	return fmt.Errorf("create a port for %s: all of its %d names are taken", a.owner, names)
}

// vacate tells whether a name for the port is free, having deleted what a killed ADD for the same name in another namespace has left.
func (a *attachment) vacate(name string) (free bool, err error) {
	if _, err := deletePort(a.node, a.owner); err != nil {
		return false, err
	}
	_, err = a.node.Link(name)
	if errors.Is(err, netdev.ErrNotFound) {
		return true, nil
	}
	return false, err
}

// makePair makes the pair, with the pod's end in the pod from the start, under its final name, and makes the other one, of a
// name that is free, a port of the bridge: all of it, and what comes of it, by one datagram. The port is not set up yet if there is more
// to do before the first packet.
func (a *attachment) makePair(name string) error {
	// With one queue, or else the kernel makes one per CPU and then waits until it can take them away again.
	b := a.node.Batch()
	b.NewLink(&netdev.NewLink{
		Kind: "veth", Name: a.req.IfName, In: a.pod, Up: !a.NoContainerInterface, MTU: a.MTU, MAC: a.mac, TxQueues: 1, RxQueues: 1,
		Peer: &netdev.NewLink{Name: name, MTU: a.MTU, TxQueues: 1, RxQueues: 1},
	})
	a.denyAddress(b, name)
	a.enlist(b, name)
	if !a.isParticular() {
		b.SetUpNamed(name)
	}
	var br netlink.Link
	b.LinkIn(a.pod, a.req.IfName, &a.inPod)
	b.Link(name, &a.port)
	b.LinkAt(a.bridge.Index, &br) // whose MTU and MAC address the first port may have changed, if somebody else has made it
	err := b.Send()
	if err == nil && a.inPod == nil {
		a.inPod, err = a.pod.Link(a.req.IfName)
	}
	if now, ok := br.(*netlink.Bridge); ok {
		a.bridge = now
	}
	return err
}

// denyAddress keeps the kernel from giving the port an address, which it does not need. With thousands of them whoever lists the
// node's addresses would have to go through all.
func (a *attachment) denyAddress(b *netdev.Batch, port string) {
	none := nl.NewRtAttr(unix.IFLA_AF_SPEC, nil)
	none.AddRtAttr(unix.AF_INET6, nil).AddRtAttr(unix.IFLA_INET6_ADDR_GEN_MODE, nl.Uint8Attr(nl.IN6_ADDR_GEN_MODE_NONE))
	b.SetLink(port, func(err error) error {
		if err == nil || errors.Is(err, unix.EAFNOSUPPORT) { // a kernel without IPv6
			return nil
		}
		return fmt.Errorf("set the IPv6 address generation mode of %s: %w", port, err)
	}, none)
}

// enlist marks the port that is made, and makes it one of the bridge.
func (a *attachment) enlist(b *netdev.Batch, port string) {
	b.SetLink(port, func(err error) error { return connected(a.bridge, port, err) },
		nl.NewRtAttr(unix.IFLA_IFALIAS, []byte(aliasPrefix+a.owner.String())),
		nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(uint32(a.bridge.Index))))
}

// isUnmarked tells that a link with a name that was free is a port of which the kernel has refused to be marked. It may be up all the
// same, as what DEL takes for somebody else's. Whether it was that request which has failed cannot be told: another may have before, or
// no answer have come.
func isUnmarked(link netlink.Link) bool { return link.Type() == "veth" && link.Attrs().Alias == "" }

// isParticular tells whether there is more to do with a port before the first packet than to connect it.
func (a *attachment) isParticular() bool {
	return a.Hairpin || a.PortIsolation || a.usesVLANs() || a.MACSpoofCheck
}

// connectPort makes a link a port of the bridge.
func (a *attachment) connectPort(br *netlink.Bridge, port netlink.Link) error {
	return connected(br, port.Attrs().Name, a.node.Handle().LinkSetMaster(port, br))
}

// connected explains why a port could not be connected, if there is an error.
func connected(br *netlink.Bridge, port string, err error) error {
	if errors.Is(err, unix.EXFULL) {
		err = fmt.Errorf("the bridge has 1023 ports, which is the most: %w", err)
	}
	if err != nil {
		return fmt.Errorf("connect %s to bridge %s: %w", port, br.Name, err)
	}
	return nil
}

// setPort gives a port its properties. It has carried no packet yet.
func (a *attachment) setPort(br *netlink.Bridge, port netlink.Link) error {
	h, name := a.node.Handle(), port.Attrs().Name
	if a.Hairpin {
		if err := h.LinkSetHairpin(port, true); err != nil {
			return fmt.Errorf("set hairpin mode of port %s: %w", name, err)
		}
	}
	if a.PortIsolation {
		if err := h.LinkSetIsolated(port, true); err != nil {
			return fmt.Errorf("isolate port %s: %w", name, err)
		}
	}
	if a.usesVLANs() {
		return a.setVLANs(a.node, br, port)
	}
	return nil
}

// findPort returns the port of an owner.
func findPort(node *netdev.Namespace, o nft.Owner) (netlink.Link, error) {
	var candidates []string
	for n := range names {
		candidates = append(candidates, hostName(o.String(), n))
	}
	found, err := node.Find(candidates...)
	if err != nil {
		return nil, err
	}
	for _, link := range found {
		if link != nil && (link.Attrs().Alias == aliasPrefix+o.String() || isUnfinished(link)) {
			return link, nil
		}
	}
	return nil, fmt.Errorf("look up the port of %s: %w", o, netdev.ErrNotFound)
}

// isUnfinished tells that a link with the name of a port was left by an ADD that was killed before it could set the alias,
// as one of an earlier version could be, which did not make the port and mark it by one datagram: its other end is in
// another namespace, and it has no carrier yet. One that is in use is somebody else's.
func isUnfinished(link netlink.Link) bool {
	a := link.Attrs()
	return link.Type() == "veth" && a.Alias == "" && a.MasterIndex == 0 && a.NetNsID >= 0 && a.RawFlags&unix.IFF_RUNNING == 0
}

// deletePort deletes the port of an owner, and with it the pod's interface.
func deletePort(node *netdev.Namespace, o nft.Owner) (found bool, err error) {
	port, err := findPort(node, o)
	if errors.Is(err, netdev.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, deleteLink(node, port)
}

func deleteLink(node *netdev.Namespace, link netlink.Link) error {
	if err := node.Handle().LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// deleteStalePorts deletes the ports whose owner is stale.
func deleteStalePorts(node *netdev.Namespace, stale func(owner string) bool) error {
	links, err := node.Links()
	if err != nil {
		return err
	}
	var errs []error
	for _, link := range links {
		owner, ours := strings.CutPrefix(link.Attrs().Alias, aliasPrefix)
		if ours && link.Type() == "veth" && stale(owner) {
			errs = append(errs, deleteLink(node, link))
		}
	}
	return errors.Join(errs...)
}

// adoptedPrefix begins the alias of a port that the plugin has not made, but connected.
const adoptedPrefix = "braid-adopted:"

// findAdopted returns the interface of the node that an earlier plugin of the chain has made, such as a tap, and that is
// the port of the bridge then; nil if there is none. A connected one counts if it is a port of this bridge already.
//
// "they SHOULD work in a chained mode and configure existing interfaces"
func (e *essentials) findAdopted(node *netdev.Namespace, prev *types100.Result) (port netlink.Link, err error) {
	found, err := e.adoptable(node, prev)
	switch {
	case err != nil || len(found) == 0:
		return nil, err
	case len(found) > 1:
		return nil, fmt.Errorf("prevResult has two interfaces of the node that could be connected to the bridge: %s and %s",
			found[0].Attrs().Name, found[1].Attrs().Name)
	}
	return found[0], nil
}

func (e *essentials) adoptable(node *netdev.Namespace, prev *types100.Result) (found []netlink.Link, err error) {
	if prev == nil {
		return nil, nil
	}
	var candidates []string
	for _, iface := range prev.Interfaces {
		if iface.Sandbox == "" && iface.Name != e.Bridge {
			candidates = append(candidates, iface.Name)
		}
	}
	if len(candidates) == 0 {
		return nil, nil
	}
	links, err := node.Find(candidates...)
	if err != nil {
		return nil, err
	}
	for _, link := range links {
		if link == nil || link.Type() == "bridge" || strings.HasPrefix(link.Attrs().Alias, aliasPrefix) ||
			link.Attrs().MasterIndex != 0 && !e.isPort(node, link) {
			continue
		}
		found = append(found, link)
	}
	return found, nil
}

// disconnect takes a port from its bridge, and the mark from it.
func disconnect(node *netdev.Namespace, port netlink.Link, marked bool) error {
	err := node.Handle().LinkSetNoMaster(port)
	if err == nil && marked {
		err = node.Handle().LinkSetAlias(port, "")
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("disconnect %s: %w", port.Attrs().Name, err)
	}
	return nil
}

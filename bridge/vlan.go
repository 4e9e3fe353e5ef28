package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/netdev/stacked"
)

// vids is a range of VLAN IDs, both ends included.
type vids struct{ first, last uint16 }

// usesVLANs tells whether ports are members of VLANs of their own choice.
func (c *config) usesVLANs() bool { return c.VLAN != 0 || len(c.VLANTrunk) > 0 }

// nativeVLAN is that of the pod's untagged packets. A trunk without a VLAN has VLAN 1, as with the reference plugin.
func (c *config) nativeVLAN() uint16 {
	if c.VLAN == 0 {
		return 1
	}
	return uint16(c.VLAN)
}

// taggedVLANs are those of the trunk, in order and joined where they meet, so that each takes one request to the
// kernel. The native VLAN is not among them: adding it once more would make it a tagged one.
func (c *config) taggedVLANs() (ranges []vids) {
	for _, t := range c.VLANTrunk {
		if t.MinID != nil {
			ranges = append(ranges, without(vids{uint16(*t.MinID), uint16(*t.MaxID)}, c.nativeVLAN())...)
		}
		if t.ID != nil {
			ranges = append(ranges, without(vids{uint16(*t.ID), uint16(*t.ID)}, c.nativeVLAN())...)
		}
	}
	slices.SortFunc(ranges, func(a, b vids) int { return cmp.Compare(a.first, b.first) })
	joined := ranges[:0]
	for _, r := range ranges {
		if n := len(joined); n > 0 && r.first <= joined[n-1].last+1 {
			joined[n-1].last = max(joined[n-1].last, r.last)
		} else {
			joined = append(joined, r)
		}
	}
	return joined
}

// without returns what is left of a range without one ID.
func without(r vids, id uint16) []vids {
	switch {
	case id < r.first || id > r.last:
		return []vids{r}
	case r.first == r.last:
		return nil
	case id == r.first:
		return []vids{{id + 1, r.last}}
	case id == r.last:
		return []vids{{r.first, id - 1}}
	}
	return []vids{{r.first, id - 1}, {id + 1, r.last}}
}

// setVLANs makes a new port of a bridge a member of its VLANs, and of no other. A new port has the default VLAN of the
// bridge.
func (c *config) setVLANs(node *netdev.Namespace, br *netlink.Bridge, port netlink.Link) error {
	h := node.Handle()
	fail := func(what string, err error) error {
		return fmt.Errorf("%s port %s: %w", what, port.Attrs().Name, err)
	}
	if id := defaultVLAN(br); id != 0 && id != c.nativeVLAN() && !c.PreserveDefaultVLAN {
		if err := h.BridgeVlanDel(port, id, false, false, false, true); err != nil && !errors.Is(err, unix.ENOENT) {
			return fail(fmt.Sprintf("remove the default VLAN %d of", id), err)
		}
	}
	if err := h.BridgeVlanAdd(port, c.nativeVLAN(), true, true, false, true); err != nil {
		return fail(fmt.Sprintf("set the VLAN %d of", c.nativeVLAN()), err)
	}
	for _, r := range c.taggedVLANs() {
		last := r.last
		if last == r.first {
			last = 0 // the kernel takes no range of one
		}
		if err := h.BridgeVlanAddRange(port, r.first, last, false, false, false, true); err != nil {
			return fail(fmt.Sprintf("add the VLANs %d to %d of", r.first, r.last), err)
		}
	}
	return nil
}

func defaultVLAN(br *netlink.Bridge) uint16 {
	if br.VlanDefaultPVID == nil {
		return 1
	}
	return *br.VlanDefaultPVID
}

// checkVLANs returns an error if a port is not a member of the VLANs that setVLANs gives it, or of others.
func (c *config) checkVLANs(node *netdev.Namespace, br *netlink.Bridge, port netlink.Link) error {
	all, err := portVLANs(node)
	if err != nil {
		return err
	}
	const native = nl.BRIDGE_VLAN_INFO_PVID | nl.BRIDGE_VLAN_INFO_UNTAGGED
	want := map[uint16]uint16{}
	for _, r := range c.taggedVLANs() {
		for id := r.first; id <= r.last; id++ {
			want[id] = 0
		}
	}
	if _, tagged := want[defaultVLAN(br)]; !tagged && c.PreserveDefaultVLAN && defaultVLAN(br) != 0 {
		want[defaultVLAN(br)] = nl.BRIDGE_VLAN_INFO_UNTAGGED
	}
	want[c.nativeVLAN()] = native
	var errs []error
	for _, have := range all[int32(port.Attrs().Index)] {
		flags, wanted := want[have.Vid]
		delete(want, have.Vid)
		if !wanted || have.Flags&native != flags {
			errs = append(errs, fmt.Errorf("port %s has VLAN %d (PVID %t, untagged %t), which it should not have or not so",
				port.Attrs().Name, have.Vid, have.PortVID(), have.EngressUntag()))
		}
	}
	for id := range want {
		errs = append(errs, fmt.Errorf("port %s lacks VLAN %d", port.Attrs().Name, id))
	}
	return errors.Join(errs...)
}

func portVLANs(node *netdev.Namespace) (byIndex map[int32][]*nl.BridgeVlanInfo, err error) {
	_, err = netdev.Dump(func() ([]struct{}, error) {
		byIndex, err = node.Handle().BridgeVlanList()
		return nil, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the VLANs of bridge ports: %w", err)
	}
	return byIndex, nil
}

// The gateway of a VLAN cannot be the bridge itself, which is in another one, but an interface of that VLAN on top of it.
// (The reference plugin makes a veth pair with one end in the bridge. What pods send to that is bridged before it is
// routed, and where br_netfilter is in use that is the only time that a connection can be masqueraded.)

// servesVLAN tells whether there may have to be one.
func (e *essentials) servesVLAN() bool { return e.IsGateway && e.VLAN != 0 }

func (e *essentials) vlanGateway() string { return fmt.Sprintf("%s.%d", e.Bridge, e.VLAN) }

// gateway returns the name of the interface that has the gateway addresses.
func (e *essentials) gateway(br *netlink.Bridge) string {
	if !e.servesVLAN() || uint16(e.VLAN) == defaultVLAN(br) {
		return br.Name
	}
	return e.vlanGateway()
}

// vlanGatewayAlias marks those that the plugin made. It deletes no other.
const vlanGatewayAlias = "braid:vlan-gateway"

// ensureVLANGateway returns the gateway of the VLAN, and makes it if it is not there.
func (c *config) ensureVLANGateway(node *netdev.Namespace, br *netlink.Bridge) (netlink.Link, error) {
	link, err := node.Link(c.vlanGateway())
	if err == nil && !c.isVLANGateway(br, link) {
		return nil, stacked.Invalid("vlan", "the gateway of VLAN %d would be called %s, and that is another interface, of type %s",
			c.VLAN, link.Attrs().Name, link.Type())
	}
	if err == nil && link.Type() == "vlan" && !isUp(link) { // an ADD was killed while it made it
		return c.finishVLANGateway(node, br, link)
	}
	if !errors.Is(err, netdev.ErrNotFound) {
		return link, err
	}
	vlan := &netlink.Vlan{LinkAttrs: netlink.NewLinkAttrs(), VlanId: c.VLAN}
	vlan.Name, vlan.ParentIndex, vlan.MTU = c.vlanGateway(), br.Index, br.MTU
	h := node.Handle()
	if err := h.LinkAdd(vlan); err != nil {
		err = fmt.Errorf("create the gateway %s of the VLAN: %w", vlan.Name, err)
		if errors.Is(err, unix.EEXIST) {
			return nil, err
		}
		// It may be there all the same, if the answer was lost.
		return nil, errors.Join(err, node.DeleteLinkIf(vlan.Name, func(l netlink.Link) bool {
			return l.Type() == "vlan" && c.isVLANGateway(br, l) && l.Attrs().Alias == ""
		}))
	}
	if err := h.LinkSetAlias(vlan, vlanGatewayAlias); err != nil {
		return nil, errors.Join(fmt.Errorf("mark the gateway %s of the VLAN: %w", vlan.Name, err), deleteLink(node, vlan))
	}
	if link, err = c.finishVLANGateway(node, br, vlan); err != nil {
		return nil, errors.Join(err, deleteLink(node, vlan))
	}
	return link, nil
}

// finishVLANGateway sets the gateway up, last of all, and returns what it has become.
func (c *config) finishVLANGateway(node *netdev.Namespace, br *netlink.Bridge, vlan netlink.Link) (netlink.Link, error) {
	h, name := node.Handle(), vlan.Attrs().Name
	err := errors.Join(h.BridgeVlanAdd(br, uint16(c.VLAN), false, false, true, false), ignoreRouterAdvertisements(node, name))
	if err == nil {
		err = h.LinkSetUp(vlan)
	}
	if err != nil {
		return nil, fmt.Errorf("set up the gateway %s of the VLAN: %w", name, err)
	}
	return node.Link(name)
}

// isVLANGateway tells whether a link can lead to the VLAN of the bridge: an interface on top of it, or one end of a pair,
// which is how the reference plugin does it, and whose other end is the affair of who has made it.
func (e *essentials) isVLANGateway(br *netlink.Bridge, link netlink.Link) bool {
	if vlan, ok := link.(*netlink.Vlan); ok {
		return vlan.VlanId == e.VLAN && vlan.ParentIndex == br.Index
	}
	return link.Type() == "veth"
}

// tidyVLANGateway deletes the gateway of a VLAN that no port is left in.
func (e *essentials) tidyVLANGateway(ctx context.Context, node *netdev.Namespace) error {
	if !e.servesVLAN() {
		return nil
	}
	unlock, err := node.LockExclusive(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	link, err := node.Link(e.vlanGateway())
	if errors.Is(err, netdev.ErrNotFound) || err == nil && link.Attrs().Alias != vlanGatewayAlias {
		return nil
	}
	if err != nil {
		return err
	}
	used, err := e.vlanIsUsed(node)
	if err != nil || used {
		return err
	}
	if br, err := e.findBridge(node); err == nil {
		_ = node.Handle().BridgeVlanDel(br, uint16(e.VLAN), false, false, true, false) // harmless if it stays
	}
	return deleteLink(node, link)
}

// vlanIsUsed tells whether a port of the bridge has the VLAN as its native one.
func (e *essentials) vlanIsUsed(node *netdev.Namespace) (bool, error) {
	members, err := portVLANs(node)
	if err != nil {
		return false, err
	}
	for index, vlans := range members {
		if !slices.ContainsFunc(vlans, func(v *nl.BridgeVlanInfo) bool { return v.PortVID() && int(v.Vid) == e.VLAN }) {
			continue
		}
		if port, err := node.LinkAt(int(index)); err == nil && e.isPort(node, port) {
			return true, nil
		}
	}
	return false, nil
}

// isPort tells whether a link is a port of the bridge.
func (e *essentials) isPort(node *netdev.Namespace, link netlink.Link) bool {
	br, err := node.Link(e.Bridge)
	return err == nil && link.Attrs().MasterIndex == br.Attrs().Index
}

func isUp(link netlink.Link) bool { return link.Attrs().Flags&net.FlagUp != 0 }

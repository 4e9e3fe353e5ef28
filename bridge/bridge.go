package bridge

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/netdev/stacked"
)

// A bridge is shared by all its ports, so two ADDs at once must not get into each other's way:
//
//   - Who looks the bridge up and connects a port to it holds the lock of the node together with others.
//   - Who creates a bridge, or deletes one, holds that lock alone. So a bridge that was looked up is there until the
//     port is connected, and a bridge with a port is never deleted.
//   - A bridge has the alias newBridge until an ADD has succeeded on it. The last of those ADDs to fail deletes it,
//     whichever of them created it. After that the bridge stays, as with the reference plugin: its address may be in use.
const newBridge = "braid:no ADD has succeeded yet"

// findBridge returns the bridge.
func (e *essentials) findBridge(node *netdev.Namespace) (*netlink.Bridge, error) {
	link, err := node.Link(e.Bridge)
	if err != nil {
		return nil, err
	}
	return e.asBridge(link)
}

func (e *essentials) asBridge(link netlink.Link) (*netlink.Bridge, error) {
	br, ok := link.(*netlink.Bridge)
	if !ok {
		return nil, stacked.Invalid("bridge", "found %q, which is an interface of type %s, want a bridge or a name that is free", e.Bridge, link.Type())
	}
	return br, nil
}

// enterBridge returns the bridge, fit for the configuration, and created if need be. Nobody deletes it before leave is
// called. The other one is what has a name on the node; nil if nothing has.
func (c *config) enterBridge(ctx context.Context, node *netdev.Namespace, name string) (br *netlink.Bridge, other netlink.Link, leave func(), err error) {
	leave, err = node.LockShared(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	found, err := node.Find(c.Bridge, name)
	if err == nil && found[0] != nil {
		br, err = c.asBridge(found[0])
	} else if err == nil {
		leave()
		if leave, err = node.LockExclusive(ctx); err != nil {
			return nil, nil, nil, err
		}
		br, err = c.findBridge(node)
		if errors.Is(err, netdev.ErrNotFound) {
			br, err = c.createBridge(node)
		}
	}
	if err == nil {
		err = c.fitBridge(node, br)
	}
	if err != nil {
		leave()
		return nil, nil, nil, err
	}
	return br, found[1], leave, nil
}

func (c *config) createBridge(node *netdev.Namespace) (_ *netlink.Bridge, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = c.Bridge, c.MTU
	// A bridge without an address of its own has that of one of its ports, and changes it as ports come and go.
	if attrs.HardwareAddr, err = ownMAC(node, c.Bridge); err != nil {
		return nil, err
	}
	br := &netlink.Bridge{LinkAttrs: attrs}
	h := node.Handle()
	if err := h.LinkAdd(br); errors.Is(err, unix.EEXIST) {
		return c.findBridge(node) // somebody who knows of no lock has been faster
	} else if err != nil { // it may be there all the same, if the answer was lost
		made := func(l netlink.Link) bool { return bytes.Equal(l.Attrs().HardwareAddr, attrs.HardwareAddr) }
		return nil, errors.Join(fmt.Errorf("create bridge %s: %w", c.Bridge, err), node.DeleteLinkIf(c.Bridge, made))
	}
	err = errors.Join(h.LinkSetAlias(br, newBridge), ignoreRouterAdvertisements(node, c.Bridge))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up bridge %s: %w", c.Bridge, err), deleteLink(node, br))
	}
	return c.findBridge(node)
}

// ignoreRouterAdvertisements keeps pods from telling the node what its routes are.
func ignoreRouterAdvertisements(node *netdev.Namespace, name string) error {
	err := node.SetSysctls(netdev.Sysctl{Key: "ipv6/conf/" + name + "/accept_ra", Value: "0"})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without IPv6
	}
	return err
}

// ownMAC returns a locally administered unicast address for a bridge: as good as a random one, but that it is the same
// whenever the bridge has to be made again while the node runs, since pods have it in their tables of neighbours.
func ownMAC(node *netdev.Namespace, name string) (net.HardwareAddr, error) {
	var st unix.Stat_t
	if err := unix.Fstat(node.FD(), &st); err != nil {
		return nil, fmt.Errorf("stat the node's namespace: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		boot = make([]byte, 16)
		_, _ = rand.Read(boot) // never fails
	}
	sum := sha256.Sum256(fmt.Appendf(boot, "%d/%s", st.Ino, name))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac, nil
}

// fitBridge changes what a bridge lacks. It takes nothing away: others use it too.
func (c *config) fitBridge(node *netdev.Namespace, br *netlink.Bridge) error {
	h := node.Handle()
	if c.usesVLANs() && !filtersVLANs(br) {
		only := netlink.NewLinkAttrs() // the request would repeat all other attributes, some of which the kernel refuses
		only.Name, only.Index = br.Name, br.Index
		err := h.BridgeSetVlanFiltering(&netlink.Bridge{LinkAttrs: only}, true)
		if now, lookErr := c.findBridge(node); err == nil && lookErr == nil && !filtersVLANs(now) {
			err = unix.EOPNOTSUPP // the kernel ignores what it does not know
		}
		if err != nil {
			return types.NewError(types.ErrPluginNotAvailable, fmt.Sprintf(
				"turn VLAN filtering of bridge %s on: %v (the kernel needs CONFIG_BRIDGE_VLAN_FILTERING)", br.Name, err), "")
		}
	}
	if c.Promisc && br.RawFlags&unix.IFF_PROMISC == 0 {
		if err := h.SetPromiscOn(br); err != nil {
			return fmt.Errorf("make bridge %s promiscuous: %w", br.Name, err)
		}
	}
	if !isUp(br) {
		if own, err := ownMAC(node, br.Name); err != nil {
			return err
		} else if bytes.Equal(own, br.HardwareAddr) { // an ADD that was killed may not have come to this
			if err := ignoreRouterAdvertisements(node, br.Name); err != nil {
				return fmt.Errorf("set up bridge %s: %w", br.Name, err)
			}
		}
		if err := h.LinkSetUp(br); err != nil {
			return fmt.Errorf("set bridge %s up: %w", br.Name, err)
		}
	}
	return nil
}

func filtersVLANs(br *netlink.Bridge) bool { return br.VlanFiltering != nil && *br.VlanFiltering }

// discardBridge deletes a bridge that no ADD has succeeded on, if no other one is about to.
func (e *essentials) discardBridge(ctx context.Context, node *netdev.Namespace) error {
	unlock, err := node.LockExclusive(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	br, err := node.Link(e.Bridge)
	if errors.Is(err, netdev.ErrNotFound) || err == nil && br.Attrs().Alias != newBridge {
		return nil
	}
	if err != nil {
		return err
	}
	if used, err := hasPorts(node, br); err != nil || used {
		return err
	}
	return deleteLink(node, br)
}

// hasPorts tells whether anything is connected to a bridge.
func hasPorts(node *netdev.Namespace, br netlink.Link) (bool, error) {
	links, err := node.Links()
	return slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().MasterIndex == br.Attrs().Index }), err
}

// keepBridge tells that an ADD has succeeded.
func keepBridge(node *netdev.Namespace, br *netlink.Bridge) error {
	if br.Alias != newBridge {
		return nil
	}
	err := node.Handle().LinkSetAlias(br, "")
	if err == nil {
		return nil
	}
	if now, lookErr := node.LinkAt(br.Index); lookErr == nil && now.Attrs().Alias == "" { // only the answer was lost
		return nil
	}
	return fmt.Errorf("keep bridge %s: %w", br.Name, err)
}

// checkBridge returns an error if fitBridge would have something to do.
func (c *config) checkBridge(br *netlink.Bridge) error {
	var errs []error
	if !isUp(br) {
		errs = append(errs, fmt.Errorf("bridge %s is down", br.Name))
	}
	if c.Promisc && br.RawFlags&unix.IFF_PROMISC == 0 {
		errs = append(errs, fmt.Errorf("bridge %s is not promiscuous", br.Name))
	}
	if c.usesVLANs() && !filtersVLANs(br) {
		errs = append(errs, fmt.Errorf("VLAN filtering of bridge %s is off", br.Name))
	}
	return errors.Join(errs...)
}

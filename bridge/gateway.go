package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/undo"
	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/netdev/stacked"
)

// chooseGateways completes addresses that have no gateway, if the bridge is to be the gateway, and adds the default
// routes that there are to be and that the IPAM plugin has not given.
func (c *config) chooseGateways(res *types100.Result) error {
	if !c.IsGateway {
		return nil
	}
	for i, ip := range res.IPs {
		if ip.Gateway == nil {
			ip.Gateway = firstHost(&ip.Address)
		}
		if ip.Gateway == nil || ip.Gateway.Equal(ip.Address.IP) {
			return stacked.Invalid("isGateway", "the address %s of ips[%d] leaves the bridge none in its subnet: have the IPAM plugin return a gateway",
				&ip.Address, i)
		}
		if c.IsDefaultGateway && !hasDefaultRoute(res.Routes, isIPv4(ip.Address.IP)) {
			res.Routes = append(res.Routes, &types.Route{Dst: *everywhere(isIPv4(ip.Address.IP)), GW: ip.Gateway})
		}
	}
	return nil
}

// firstHost returns the first address of a subnet after that of the subnet itself, or nil if that is not in it.
func firstHost(subnet *net.IPNet) net.IP {
	ip := subnet.IP.Mask(subnet.Mask)
	for i := len(ip) - 1; i >= 0; i-- {
		if ip[i]++; ip[i] != 0 {
			break
		}
	}
	if !subnet.Contains(ip) {
		return nil
	}
	return ip
}

func isIPv4(ip net.IP) bool { return ip.To4() != nil }

func everywhere(v4 bool) *net.IPNet {
	if v4 {
		return &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}
	}
	return &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
}

func hasDefaultRoute(routes []*types.Route, v4 bool) bool {
	for _, r := range routes {
		ones, _ := r.Dst.Mask.Size()
		mainTable := r.Table == nil || *r.Table == unix.RT_TABLE_MAIN
		if ones == 0 && r.Dst.IP.IsUnspecified() && isIPv4(r.Dst.IP) == v4 && mainTable {
			return true
		}
	}
	return false
}

// gateways returns the addresses that the node is to have: the gateways, with the masks of the pod's addresses.
func gateways(ips []*types100.IPConfig) (addrs []*net.IPNet) {
	for _, ip := range ips {
		if ip.Gateway != nil {
			addrs = append(addrs, &net.IPNet{IP: ip.Gateway, Mask: ip.Address.Mask})
		}
	}
	return addrs
}

// serveGateways gives the node the gateway addresses and has it forward packets. It is the last step of an ADD that can
// fail, and whoever needs the addresses too is kept out until it is done or undone: so no address is ever taken away
// that another ADD counts on.
func (a *attachment) serveGateways(ctx context.Context) (err error) {
	wanted := gateways(a.result.IPs)
	if !a.IsGateway || len(wanted) == 0 {
		return nil
	}
	unlock, err := a.node.LockExclusive(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	var u undo.Stack
	defer u.OnError(&err)

	var link netlink.Link = a.bridge
	if a.gateway(a.bridge) != a.bridge.Name {
		if link, err = a.ensureVLANGateway(a.node, a.bridge); err != nil {
			return err
		}
		a.result.Interfaces = append(a.result.Interfaces, &types100.Interface{
			Name: link.Attrs().Name, Mac: link.Attrs().HardwareAddr.String(), Mtu: link.Attrs().MTU,
		})
	}
	if err := a.ensureAddresses(link, wanted, &u); err != nil {
		return err
	}
	return forward(a.node, wanted) // which is not undone: others may count on it
}

// pin gives a link the MAC address that it has. A bridge that somebody else has made may change it otherwise when ports
// come and go, and pods would not reach the gateway until they had noticed.
func pin(h *netlink.Handle, link netlink.Link) error {
	if err := h.LinkSetHardwareAddr(link, link.Attrs().HardwareAddr); err != nil {
		return fmt.Errorf("set the MAC address of %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// forward has the node forward packets of the families of some addresses.
func forward(node *netdev.Namespace, addrs []*net.IPNet) error {
	var settings []netdev.Sysctl
	for _, addr := range addrs {
		s := netdev.Sysctl{Key: "ipv6/conf/all/forwarding", Value: "1"}
		if isIPv4(addr.IP) {
			s.Key = "ipv4/ip_forward"
		}
		settings = append(settings, s)
	}
	return node.SetSysctls(settings...)
}

// ensureAddresses gives a link the addresses that it lacks, if it has none that are in the way.
func (a *attachment) ensureAddresses(link netlink.Link, wanted []*net.IPNet, u *undo.Stack) error {
	have, err := a.node.Addresses(link)
	if err != nil {
		return err
	}
	// The last one first: the kernel takes away the others of its subnet with the first.
	for _, other := range slices.Backward(conflicts(have, wanted)) {
		if err := a.removeAddress(link, other, u); err != nil {
			return err
		}
	}
	for _, want := range wanted {
		if contains(have, want) {
			continue
		}
		if err := a.addAddress(link, want, u); err != nil {
			return err
		}
	}
	return nil
}

// removeAddress removes an address that is in the way, if that is wanted.
func (a *attachment) removeAddress(link netlink.Link, addr netlink.Addr, u *undo.Stack) error {
	name := link.Attrs().Name
	if !a.ForceAddress {
		return fmt.Errorf("%s has the address %s, of another network; set forceAddress to have it replaced", name, addr.IPNet)
	}
	h := a.node.Handle()
	err := h.AddrDel(link, &addr) // undone if it fails too: it may have been done, and the answer have been lost
	u.Add("remove address "+addr.IPNet.String(), func() error { return netdev.Ignore(h.AddrAdd(link, &addr), unix.EEXIST) })
	if err != nil {
		return fmt.Errorf("remove address %s from %s: %w", addr.IPNet, name, err)
	}
	return nil
}

func (a *attachment) addAddress(link netlink.Link, want *net.IPNet, u *undo.Stack) error {
	h, name := a.node.Handle(), link.Attrs().Name
	addr := &netlink.Addr{IPNet: want}
	if !isIPv4(want.IP) {
		if err := a.node.SetSysctls(netdev.Sysctl{Key: "ipv6/conf/" + name + "/disable_ipv6", Value: "0"}); err != nil {
			return err
		}
		if a.Detection == netdev.Skipped {
			addr.Flags = unix.IFA_F_NODAD
		}
	}
	err := h.AddrAdd(link, addr)
	if errors.Is(err, unix.EEXIST) {
		have, listErr := a.node.Addresses(link)
		if listErr == nil && contains(have, want) { // two of the pod's addresses have the same gateway
			return nil
		}
		return fmt.Errorf("add address %s to %s: %w", want, name, errors.Join(err, listErr))
	}
	u.Add("add address "+want.String(), func() error { return netdev.Ignore(h.AddrDel(link, addr), unix.EADDRNOTAVAIL) })
	if err != nil {
		return fmt.Errorf("add address %s to %s: %w", want, name, err)
	}
	return pin(h, link)
}

func contains(have []netlink.Addr, want *net.IPNet) bool {
	return slices.ContainsFunc(have, func(a netlink.Addr) bool { return sameAddress(a.IPNet, want) })
}

func sameAddress(a, b *net.IPNet) bool { return a.IP.Equal(b.IP) && bytes.Equal(a.Mask, b.Mask) }

// conflicts returns the addresses that cannot be there together with the wanted ones: those of an overlapping subnet,
// and, since a bridge that serves two networks by mistake is hard to find, all of IPv4 if one of IPv4 is wanted.
func conflicts(have []netlink.Addr, wanted []*net.IPNet) (found []netlink.Addr) {
	for _, a := range have {
		inTheWay := slices.ContainsFunc(wanted, func(want *net.IPNet) bool {
			return a.Contains(want.IP) || want.Contains(a.IP) || isIPv4(a.IP) && isIPv4(want.IP)
		})
		isWanted := slices.ContainsFunc(wanted, func(want *net.IPNet) bool { return sameAddress(a.IPNet, want) })
		if inTheWay && !isWanted {
			found = append(found, a)
		}
	}
	return found
}

// checkGateways returns an error if the node lacks a gateway address.
func (c *config) checkGateways(node *netdev.Namespace, br *netlink.Bridge, ips []*types100.IPConfig) error {
	wanted := gateways(ips)
	if !c.IsGateway || len(wanted) == 0 {
		return nil
	}
	name := c.gateway(br)
	link, err := node.Link(name)
	if err != nil {
		return err
	}
	have, err := node.Addresses(link)
	if err != nil {
		return err
	}
	var errs []error
	if !isUp(link) {
		errs = append(errs, fmt.Errorf("%s is down", name))
	}
	for _, want := range wanted {
		if !contains(have, want) {
			errs = append(errs, fmt.Errorf("%s lacks the gateway address %s", name, want))
		}
	}
	return errors.Join(errs...)
}

package client4

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

const (
	// defaultTime is that of a lease whose server does not say how long it lasts, as it must.
	defaultTime = time.Hour
	// minTime is the shortest lease that is of any use.
	minTime = 2 * time.Second
	// minMTU is what every host must be able to take (RFC 791). Less would be an attack.
	minMTU = 576
)

// optionMSRoutes is what Microsoft's servers send instead of option 121, in the same format.
const optionMSRoutes = dhcpv4.GenericOptionCode(249)

// decode reads an OFFER or ACK. An error says what makes it useless; an option that is wrong in itself is left out.
func (c *Client) decode(m *dhcpv4.DHCPv4) (*lease.Lease, error) {
	addr, err := address(m)
	if err != nil {
		return nil, err
	}
	server := m.ServerIdentifier()
	if server == nil || server.IsUnspecified() {
		return nil, fmt.Errorf("the offer of %s has no server identifier (option 54)", addr)
	}
	duration := m.IPAddressLeaseTime(defaultTime)
	if duration < minTime {
		return nil, fmt.Errorf("the DHCP server %s offers %s for %s only", server, addr, duration)
	}
	l := &lease.Lease{Address: addr, Server: server, MTU: mtu(m), DNS: dns(m)}
	for _, ip := range m.NTPServers() {
		if a := toAddr(ip); isHost(a) {
			l.NTP = append(l.NTP, a)
		}
	}
	for _, ip := range m.Router() {
		if a := toAddr(ip); isHost(a) && !l.Gateway.IsValid() {
			l.Gateway = a
		}
	}
	l.Routes = routes(m, l)
	for _, r := range l.Routes {
		r.Priority = c.Spec.Priority
	}
	l.SetTimes(time.Now(), m.IPAddressRenewalTime(0), m.IPAddressRebindingTime(0), duration)
	return l, nil
}

// complete adds to an ACK that extends a lease what some servers say only once.
func complete(ack *dhcpv4.DHCPv4, held *lease.Lease) {
	if ack.YourIPAddr.IsUnspecified() {
		ack.YourIPAddr = held.Address.Addr().AsSlice()
	}
	if ack.ServerIdentifier() == nil {
		ack.UpdateOption(dhcpv4.OptServerIdentifier(held.Server))
	}
	if ack.SubnetMask() == nil {
		ack.UpdateOption(dhcpv4.OptSubnetMask(lease.IPNet(held.Address).Mask))
	}
}

func address(m *dhcpv4.DHCPv4) (netip.Prefix, error) {
	addr := toAddr(m.YourIPAddr)
	if !isHost(addr) {
		return netip.Prefix{}, fmt.Errorf("a DHCP server offers %s, which cannot be the address of a host", addr)
	}
	mask := m.SubnetMask()
	bits, size := mask.Size()
	if size != 32 || bits == 0 {
		return netip.Prefix{}, fmt.Errorf("a DHCP server offers %s with the subnet mask %q (option 1)", addr, mask)
	}
	return netip.PrefixFrom(addr, bits), nil
}

func mtu(m *dhcpv4.DHCPv4) int {
	n, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, m.Options)
	if err != nil || n < minMTU {
		return 0
	}
	return int(n)
}

func dns(m *dhcpv4.DHCPv4) (d types.DNS) {
	for _, ip := range m.DNS() {
		if a := toAddr(ip); a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() {
			d.Nameservers = lease.Union(d.Nameservers, []string{a.String()})
		}
	}
	if domain := lease.Domains(m.DomainName()); len(domain) > 0 {
		d.Domain = domain[0]
	}
	if search := m.DomainSearch(); search != nil {
		d.Search = lease.Domains(search.Labels...)
	}
	return d
}

// routes returns the classless routes, or else the static ones and that of the router.
//
// "If the DHCP server returns both a Classless Static Routes option and a Router option, the DHCP client MUST ignore
// the Router option. Similarly, if the DHCP server returns both a Classless Static Routes option and a Static Routes
// option, the DHCP client MUST ignore the Static Routes option." (RFC 3442)
func routes(m *dhcpv4.DHCPv4, l *lease.Lease) (routes []*types.Route) {
	for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionClasslessStaticRoute, optionMSRoutes} {
		var list dhcpv4.Routes
		if list.FromBytes(m.Options.Get(code)) != nil {
			continue
		}
		for _, r := range list {
			routes = append(routes, route(r.Dest, toAddr(r.Router))...)
		}
		if len(routes) > 0 {
			return routes
		}
	}
	routes = staticRoutes(m.Options.Get(dhcpv4.OptionStaticRoutingTable))
	if !l.Gateway.IsValid() {
		return routes
	}
	if !l.Address.Contains(l.Gateway) {
		// No route leads to it yet.
		routes = append(routes, route(&net.IPNet{IP: l.Gateway.AsSlice(), Mask: net.CIDRMask(32, 32)}, netip.IPv4Unspecified())...)
	}
	return append(routes, route(&net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, l.Gateway)...)
}

// staticRoutes reads pairs of a destination, whose mask is that of its class, and a router (RFC 2132, section 5.8).
func staticRoutes(option []byte) (routes []*types.Route) {
	for ; len(option) >= 8; option = option[8:] {
		dst := net.IP(option[:4:4])
		if dst.IsUnspecified() {
			continue // "The default route (0.0.0.0) is an illegal destination for a static route."
		}
		routes = append(routes, route(&net.IPNet{IP: dst, Mask: dst.DefaultMask()}, toAddr(option[4:8]))...)
	}
	return routes
}

// route returns one that a kernel takes, or none. The unspecified router says that the destination is on the link.
func route(dst *net.IPNet, router netip.Addr) []*types.Route {
	first := toAddr(dst.IP.Mask(dst.Mask))
	if bits, size := dst.Mask.Size(); size != 32 || !first.IsValid() || first.IsLoopback() || first.IsMulticast() ||
		first.IsUnspecified() && bits != 0 {
		return nil
	}
	r := &types.Route{Dst: net.IPNet{IP: first.AsSlice(), Mask: dst.Mask}, GW: router.AsSlice()}
	switch {
	case router.IsUnspecified():
		scope := unix.RT_SCOPE_LINK
		r.Scope = &scope
	case !isHost(router):
		return nil
	}
	return []*types.Route{r}
}

func toAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// isHost tells whether an address can be that of one host of a network.
func isHost(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a.As4()[0] < 240 && a.As4()[0] != 0
}

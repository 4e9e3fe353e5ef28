package client6

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// message makes one. The address may be invalid, the server nil.
func (c *Client) message(kind dhcpv6.MessageType, addr netip.Addr, server []byte) *dhcpv6.Message {
	m := &dhcpv6.Message{MessageType: kind}
	_, _ = rand.Read(m.TransactionID[:]) // never fails
	m.AddOption(dhcpv6.OptClientID(c.duid()))
	if server != nil {
		m.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionServerID, OptionData: server})
	}
	ia := &dhcpv6.OptIANA{IaId: c.iaid()}
	if addr.IsValid() {
		ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: addr.AsSlice()})
	}
	m.AddOption(ia)
	m.AddOption(dhcpv6.OptRequestedOption(
		dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList, dhcpv6.OptionNTPServer))
	m.AddOption(dhcpv6.OptElapsedTime(0))
	return m
}

// duid is as stable, and as different from that of any other attachment, as the client identifier of DHCPv4.
func (c *Client) duid() *dhcpv6.DUIDUUID {
	sum := sha256.Sum256([]byte(c.Spec.Identifier()))
	d := &dhcpv6.DUIDUUID{}
	copy(d.UUID[:], sum[:])
	// RFC 9562: a UUID of version 8, "for experimental or vendor-specific use cases", and of the common variant.
	d.UUID[6] = d.UUID[6]&0x0f | 0x80
	d.UUID[8] = d.UUID[8]&0x3f | 0x80
	return d
}

// iaid tells the addresses of a client apart. There is one.
func (c *Client) iaid() [4]byte { return [4]byte{0, 0, 0, 1} }

// noBindingError says that a server does not know of a lease. Another message can make it know.
type noBindingError struct{ server []byte }

func (e *noBindingError) Error() string {
	return fmt.Sprintf("the DHCPv6 server %x has no such lease", e.server)
}

// maxDUID includes the type.
const maxDUID = 130

// minTime is the shortest lease that is of any use.
const minTime = 2 * time.Second

// decode reads an Advertise or Reply. An error says what makes it useless.
func decode(m *dhcpv6.Message, iaid [4]byte) (*lease.Lease, error) {
	id := m.Options.ServerID()
	if id == nil {
		return nil, errors.New("a DHCPv6 server sends no server identifier")
	}
	server := id.ToBytes()
	if len(server) > maxDUID {
		return nil, fmt.Errorf("a DHCPv6 server has an identifier of %d bytes", len(server))
	}
	ia, err := identity(m, iaid, server)
	if err != nil {
		return nil, err
	}
	addresses := ia.Options.Addresses()
	if len(addresses) == 0 {
		return nil, fmt.Errorf("the DHCPv6 server %x offers no address", server)
	}
	a := addresses[0] // one was asked for
	if err := verdict(a.Options.Status(), server); err != nil {
		return nil, err
	}
	addr, _ := netip.AddrFromSlice(a.IPv6Addr)
	switch {
	case !addr.Is6() || !addr.IsGlobalUnicast() || addr.Is4In6():
		return nil, fmt.Errorf("the DHCPv6 server %x offers %s, which cannot be the address of a host", server, addr)
	case a.ValidLifetime == 0:
		return nil, fmt.Errorf("%w: the DHCPv6 server %x says that %s is not valid", lease.ErrRefused, server, addr)
	case a.ValidLifetime < minTime || a.PreferredLifetime > a.ValidLifetime:
		return nil, fmt.Errorf("the DHCPv6 server %x offers %s for %s, preferred for %s",
			server, addr, a.ValidLifetime, a.PreferredLifetime)
	}
	return newLease(m, ia, a, addr, server), nil
}

// identity finds the association of the client, and no error in it.
func identity(m *dhcpv6.Message, iaid [4]byte, server []byte) (*dhcpv6.OptIANA, error) {
	if err := verdict(m.Options.Status(), server); err != nil {
		return nil, err
	}
	for _, ia := range m.Options.IANA() {
		if ia.IaId == iaid {
			return ia, verdict(ia.Options.Status(), server)
		}
	}
	return nil, fmt.Errorf("the DHCPv6 server %x does not answer for the interface", server)
}

func verdict(s *dhcpv6.OptStatusCode, server []byte) error {
	if s == nil {
		return nil
	}
	switch s.StatusCode {
	case iana.StatusSuccess:
		return nil
	case iana.StatusNoBinding:
		return &noBindingError{server}
	case iana.StatusNotOnLink:
		return fmt.Errorf("%w: server %x, %s: %q", lease.ErrRefused, server, s.StatusCode, s.StatusMessage)
	}
	return fmt.Errorf("the DHCPv6 server %x answers %s: %q", server, s.StatusCode, s.StatusMessage)
}

// newLease makes a lease of a single address: which others are on the link is for routers to say, not for servers.
func newLease(m *dhcpv6.Message, ia *dhcpv6.OptIANA, a *dhcpv6.OptIAAddress, addr netip.Addr, server []byte) *lease.Lease {
	l := &lease.Lease{Address: netip.PrefixFrom(addr, 128), Server: server}
	for _, ip := range m.Options.DNS() {
		if dns, ok := netip.AddrFromSlice(ip); ok && !dns.IsUnspecified() && !dns.IsMulticast() {
			l.DNS.Nameservers = lease.Union(l.DNS.Nameservers, []string{dns.String()})
		}
	}
	if search := m.Options.DomainSearchList(); search != nil {
		l.DNS.Search = lease.Domains(search.Labels...)
	}
	for _, ip := range m.Options.NTPServers() {
		if ntp, ok := netip.AddrFromSlice(ip); ok && ntp.IsGlobalUnicast() {
			l.NTP = append(l.NTP, ntp)
		}
	}
	// A server that leaves the times to the client sends 0. What servers are recommended to send is taken then.
	t1, t2 := ia.T1, ia.T2
	if t1 == 0 {
		t1 = a.PreferredLifetime / 2
	}
	if t2 == 0 {
		t2 = a.PreferredLifetime - a.PreferredLifetime/5
	}
	l.SetTimes(time.Now(), t1, t2, a.ValidLifetime)
	return l
}

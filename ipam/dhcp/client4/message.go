package client4

import (
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// Messages have the fields that RFC 2131 demands in tables 4 and 5.

func (c *Client) discover(s *session, wish netip.Addr) *dhcpv4.DHCPv4 {
	m := c.message(s, dhcpv4.MessageTypeDiscover)
	if wish.IsValid() {
		m.UpdateOption(dhcpv4.OptRequestedIPAddress(wish.AsSlice()))
	}
	return m
}

func (c *Client) selecting(s *session, offer *dhcpv4.DHCPv4) *dhcpv4.DHCPv4 {
	m := c.message(s, dhcpv4.MessageTypeRequest)
	m.UpdateOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr))
	m.UpdateOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier()))
	return m
}

func (c *Client) rebooting(s *session, held *lease.Lease) *dhcpv4.DHCPv4 {
	m := c.message(s, dhcpv4.MessageTypeRequest)
	m.UpdateOption(dhcpv4.OptRequestedIPAddress(held.Address.Addr().AsSlice()))
	return m
}

func (c *Client) extending(s *session, held *lease.Lease) *dhcpv4.DHCPv4 {
	m := c.message(s, dhcpv4.MessageTypeRequest)
	m.ClientIPAddr = held.Address.Addr().AsSlice()
	m.SetUnicast()
	return m
}

func (c *Client) release(s *session, held *lease.Lease) *dhcpv4.DHCPv4 {
	m := c.returning(s, dhcpv4.MessageTypeRelease, held)
	m.ClientIPAddr = held.Address.Addr().AsSlice()
	m.SetUnicast()
	return m
}

func (c *Client) decline(s *session, given *lease.Lease) *dhcpv4.DHCPv4 {
	m := c.returning(s, dhcpv4.MessageTypeDecline, given)
	m.UpdateOption(dhcpv4.OptRequestedIPAddress(given.Address.Addr().AsSlice()))
	return m
}

// returning is what release and decline have in common: no answer is expected.
func (c *Client) returning(s *session, kind dhcpv4.MessageType, l *lease.Lease) *dhcpv4.DHCPv4 {
	m := c.message(s, kind)
	m.Options.Del(dhcpv4.OptionParameterRequestList)
	m.Options.Del(dhcpv4.OptionMaximumDHCPMessageSize)
	m.UpdateOption(dhcpv4.OptServerIdentifier(l.Server))
	return m
}

// message has what all messages have. What the configuration provides goes into each, the release too: a server could
// not tell the client by its identifier otherwise.
func (c *Client) message(s *session, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootRequest, HWType: iana.HWTypeEthernet, ClientHWAddr: s.mac, TransactionID: newXID(),
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero,
		Options: dhcpv4.Options{},
	}
	// Interfaces that share a MAC cannot be told apart by it, so an answer that is sent to it gets to one of them only.
	if c.Interface.Kind == "ipvlan" {
		m.SetBroadcast()
	}
	m.UpdateOption(dhcpv4.OptClientIdentifier(append([]byte{0}, c.Spec.Identifier()...)))
	m.UpdateOption(dhcpv4.OptMaxMessageSize(maxMessage))
	if len(c.Spec.Request) > 0 {
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionParameterRequestList, c.Spec.Request))
	}
	for _, o := range c.Spec.Provide {
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(o.Code), o.Value))
	}
	m.UpdateOption(dhcpv4.OptMessageType(kind))
	return m
}

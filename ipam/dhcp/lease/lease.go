// Package lease has the words that the DHCP plugin, the keeper of its leases and their clients share: what an
// attachment wants ([Spec]), on which interface ([Interface]), what a server gave it ([Lease]), the documents that
// plugin and keeper exchange ([Request], [Response]) and the records that survive the keeper ([Store]).
package lease

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// ErrRefused is wrapped by the error of a client if a server says that an address is not, or no longer, the client's.
var ErrRefused = errors.New("the DHCP server refuses the address")

// A Key identifies an attachment.
type Key struct {
	ContainerID string `json:"containerID"`
	Network     string `json:"network"`
	IfName      string `json:"ifName"`
}

func (k Key) String() string { return k.ContainerID + "/" + k.Network + "/" + k.IfName }

// maxIdentifier leaves room for the type octet: an option has at most 255.
const maxIdentifier = 254

// Identifier tells the attachment from all others to a server, whatever its MAC. It is the one that the reference
// plugin sends, so that a server goes on giving the address that it gave to that.
func (k Key) Identifier() string {
	s := k.String()
	return s[:min(len(s), maxIdentifier)]
}

// A Spec is what an attachment wants of a DHCP server.
type Spec struct {
	Key
	Netns    string   `json:"netns"`
	IPv4     bool     `json:"ipv4,omitempty"`     // a lease by DHCPv4
	IPv6     bool     `json:"ipv6,omitempty"`     // a lease by DHCPv6
	Provide  []Option `json:"provide,omitempty"`  // sent with every message
	Request  []uint8  `json:"request,omitempty"`  // the options that the server is asked for
	Priority int      `json:"priority,omitempty"` // metric of the routes
	Probe    bool     `json:"probe,omitempty"`    // the IPv4 address is used only if no other host answers for it
	KeepMTU  bool     `json:"keepMTU,omitempty"`  // the configuration says the MTU, so what the server says does not count
}

// An Option is one of DHCPv4, at most 255 bytes.
type Option struct {
	Code  uint8  `json:"code"`
	Value []byte `json:"value"`
}

// Equal tells whether a lease that was got for one serves the other.
func (s *Spec) Equal(other *Spec) bool {
	return s.Key == other.Key && s.IPv4 == other.IPv4 && s.IPv6 == other.IPv6 && s.Priority == other.Priority &&
		s.Probe == other.Probe && s.KeepMTU == other.KeepMTU && slices.Equal(s.Request, other.Request) &&
		slices.EqualFunc(s.Provide, other.Provide, func(a, b Option) bool {
			return a.Code == b.Code && slices.Equal(a.Value, b.Value)
		})
}

// A Lease is what a server gave for an interface, of one family.
type Lease struct {
	Address netip.Prefix   `json:"address"`
	Gateway netip.Addr     `json:"gateway,omitzero"`
	Routes  []*types.Route `json:"routes,omitempty"`
	DNS     types.DNS      `json:"dns"`
	MTU     int            `json:"mtu,omitempty"` // 0 if the server did not say
	NTP     []netip.Addr   `json:"ntp,omitempty"`

	Server []byte `json:"server"` // identifier of the server: an IPv4 address, or a DUID

	// When to ask the server for more time, when to ask any server, and when the address must not be used any more.
	// A lease that never ends has none of them.
	Renew  time.Time `json:"renew,omitzero"`
	Rebind time.Time `json:"rebind,omitzero"`
	Expire time.Time `json:"expire,omitzero"`
}

// Valid tells whether the address may be used.
func (l *Lease) Valid(now time.Time) bool {
	return l != nil && (l.Expire.IsZero() || now.Before(l.Expire))
}

// SameConfig tells whether two leases configure an interface in the same way, whenever they end.
func (l *Lease) SameConfig(other *Lease) bool {
	a, b := *l, *other
	for _, c := range []*Lease{&a, &b} {
		c.Server, c.Renew, c.Rebind, c.Expire = nil, time.Time{}, time.Time{}, time.Time{}
	}
	// Not by reflection: one may come from a file, the other one from a packet.
	textA, errA := json.Marshal(a)
	textB, errB := json.Marshal(b)
	return errA == nil && errB == nil && bytes.Equal(textA, textB)
}

// NextHop returns the neighbour that a packet for an address goes to, by nothing but the lease.
func (l *Lease) NextHop(to netip.Addr) netip.Addr {
	if l.Address.Contains(to) {
		return to
	}
	hop, longest := l.Gateway, 0
	for _, r := range l.Routes {
		gw, _ := netip.AddrFromSlice(r.GW)
		if bits, _ := r.Dst.Mask.Size(); gw.IsValid() && r.Dst.Contains(to.AsSlice()) && bits >= longest {
			hop, longest = gw.Unmap(), bits
		}
	}
	if !hop.IsValid() || hop.IsUnspecified() {
		return to
	}
	return hop
}

// SetTimes sets when the lease ends, and when to ask for more. What the server says of the latter counts only if it
// makes sense; a zero duration is what it did not say. One that ends never has no times.
//
// "T1 defaults to (0.5 * duration_of_lease). T2 defaults to (0.875 * duration_of_lease)." (RFC 2131, section 4.4.5)
func (l *Lease) SetTimes(now time.Time, t1, t2, duration time.Duration) {
	if duration >= Infinite {
		l.Renew, l.Rebind, l.Expire = time.Time{}, time.Time{}, time.Time{}
		return
	}
	if t2 <= 0 || t2 >= duration {
		t2 = duration - duration/8 // seven eighths could overflow on the way
	}
	if t1 <= 0 || t1 >= t2 {
		t1 = min(duration/2, t2)
	}
	// A server that gives away a second at a time shall not have the keeper do nothing else.
	l.Renew, l.Rebind, l.Expire = now.Add(max(t1, time.Second)), now.Add(max(t2, time.Second)), now.Add(duration)
}

// Infinite is the time of a lease that never ends, in both versions of DHCP.
const Infinite = 0xffffffff * time.Second

// Held is what the keeper holds for an attachment. A lease that was asked for and is lost is nil.
type Held struct {
	IPv4 *Lease `json:"ipv4,omitempty"`
	IPv6 *Lease `json:"ipv6,omitempty"`
}

// Leases returns those that are there, IPv4 first.
func (h *Held) Leases() (all []*Lease) {
	for _, l := range []*Lease{h.IPv4, h.IPv6} {
		if l != nil {
			all = append(all, l)
		}
	}
	return all
}

// Result returns the CNI result of the leases. It has no interfaces, as that of any IPAM plugin.
func (h *Held) Result() *types100.Result {
	res := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	for _, l := range h.Leases() {
		ip := &types100.IPConfig{Address: *IPNet(l.Address)}
		if l.Gateway.IsValid() {
			ip.Gateway = l.Gateway.AsSlice()
		}
		res.IPs = append(res.IPs, ip)
		res.Routes = append(res.Routes, l.Routes...)
		res.DNS.Nameservers = Union(res.DNS.Nameservers, l.DNS.Nameservers)
		res.DNS.Search = Union(res.DNS.Search, l.DNS.Search)
		if res.DNS.Domain == "" {
			res.DNS.Domain = l.DNS.Domain
		}
	}
	return res
}

// Union appends to a list what it does not have yet.
func Union(list, more []string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

// IPNet converts an address with its prefix length.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

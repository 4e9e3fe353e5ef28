package hostlocal

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// A set is a list of ranges of one IP family that an address is taken from.
type set struct {
	key    string // where it is in the configuration
	ranges []addressRange
}

// An addressRange is what addresses of one subnet are given out.
type addressRange struct {
	span
	subnet  netip.Prefix
	gateway netip.Addr // never given out
}

// A span is the addresses from first to last.
type span struct{ first, last netip.Addr }

func (s span) contains(a netip.Addr) bool { return s.first.Compare(a) <= 0 && a.Compare(s.last) <= 0 }
func (s span) overlaps(o span) bool       { return s.contains(o.first) || o.contains(s.first) }
func (s span) String() string             { return s.first.String() + "-" + s.last.String() }

// find returns the range of a set that an address belongs to.
func (s set) find(a netip.Addr) (addressRange, bool) {
	for _, r := range s.ranges {
		if r.contains(a) {
			return r, true
		}
	}
	return addressRange{}, false
}

func (s set) is4() bool { return s.ranges[0].first.Is4() }

func (s set) String() string {
	var names []string
	for _, r := range s.ranges {
		names = append(names, r.span.String())
	}
	return strings.Join(names, ", ")
}

// after returns all addresses of the set in the order in which they are tried: round robin, beginning behind the one
// that was given out last, so that an address that was just freed is used again as late as can be.
func (s set) after(last netip.Addr) (spans []span) {
	n := slices.IndexFunc(s.ranges, func(r addressRange) bool { return r.contains(last) })
	if n < 0 { // no cursor, or that of other ranges
		n, last = 0, netip.Addr{}
	}
	for i := range s.ranges {
		spans = append(spans, s.ranges[(n+i)%len(s.ranges)].span)
	}
	if last.IsValid() {
		spans = append(spans, span{spans[0].first, last})
		spans[0].first = last.Next()
	}
	return spans
}

// jsonRange is a range as it is written.
type jsonRange struct {
	Subnet     string `json:"subnet"`
	RangeStart string `json:"rangeStart"`
	RangeEnd   string `json:"rangeEnd"`
	Gateway    string `json:"gateway"`
}

// parseSet checks a range set. keyOf names its ranges.
func parseSet(key string, ranges []jsonRange, keyOf func(i int) string) (set, error) {
	s := set{key: key}
	if len(ranges) == 0 {
		return s, invalid("%s is empty: want one range at least", key)
	}
	var errs []error
	for i, j := range ranges {
		r, err := parseRange(keyOf(i), j)
		if err == nil && len(s.ranges) > 0 && s.is4() != r.first.Is4() {
			err = invalid("%s.subnet is %s: want all ranges of a set to be of one IP family", keyOf(i), r.subnet)
		}
		errs = append(errs, err)
		if err == nil {
			s.ranges = append(s.ranges, r)
		}
	}
	return s, errors.Join(errs...)
}

// parseRange checks a range and fills in what is not given: all addresses but the first of the subnet, which is the
// gateway's, and the last of an IPv4 subnet, to which broadcasts go.
func parseRange(key string, j jsonRange) (r addressRange, err error) {
	if r.subnet, err = parseSubnet(j.Subnet); err != nil {
		return r, invalid("%s.subnet is %q: %v", key, j.Subnet, err)
	}
	r.first, r.last, r.gateway = r.subnet.Addr().Next(), lastOf(r.subnet), r.subnet.Addr().Next()
	if r.last.Is4() {
		r.last = r.last.Prev()
	}
	var errs []error
	for _, member := range []struct {
		name, value string
		into        *netip.Addr
	}{
		{"rangeStart", j.RangeStart, &r.first}, {"rangeEnd", j.RangeEnd, &r.last}, {"gateway", j.Gateway, &r.gateway},
	} {
		if member.value == "" {
			continue
		}
		a, err := netip.ParseAddr(member.value)
		if a = a.Unmap(); err != nil || !r.subnet.Contains(a) {
			errs = append(errs, invalid("%s.%s is %q: want an address of %s", key, member.name, member.value, r.subnet))
		}
		*member.into = a
	}
	if len(errs) == 0 && r.last.Less(r.first) {
		errs = append(errs, invalid("%s.rangeStart is %s, after rangeEnd, %s", key, r.first, r.last))
	}
	return r, errors.Join(errs...)
}

// parseSubnet reads a subnet. The error says what is wrong with it.
func parseSubnet(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6():
		return p, errors.New(`want a subnet like "10.1.0.0/16"`)
	case p != p.Masked():
		return p, fmt.Errorf("it is an address within the subnet %s: want the subnet", p.Masked())
	case p.Addr().BitLen()-p.Bits() < 2:
		return p, errors.New("it is too small to give out addresses of: want two addresses at least besides the first and the last")
	}
	return p, nil
}

// disjoint refuses ranges that have addresses in common, which would be given out by the one or the other.
func disjoint(sets []set) error {
	type keyed struct {
		key string
		addressRange
	}
	var all []keyed
	for _, s := range sets {
		for _, r := range s.ranges {
			for _, other := range all {
				if r.overlaps(other.span) {
					return invalid("%s and %s overlap: %s and %s", other.key, s.key, other.span, r.span)
				}
			}
			all = append(all, keyed{s.key, r})
		}
	}
	return nil
}

// lastOf returns the last address of a subnet.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 1 << (7 - bit%8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}

// ipNet returns an address with the prefix length of its subnet.
func (r addressRange) ipNet(a netip.Addr) net.IPNet {
	return net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(r.subnet.Bits(), a.BitLen())}
}

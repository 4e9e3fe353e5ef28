package conf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// readPrefixes reads a list of subnets.
func (o *object) readPrefixes(key string) (prefixes []netip.Prefix, found bool) {
	var list []string
	if !o.read(key, &list, `a list of subnets like ["10.9.0.0/16", "fd00:9::/32"]`) {
		return nil, false
	}
	for i, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil || p != p.Masked() {
			o.mismatch(fmt.Sprintf("%s%s[%d]", o.path, key, i), s, `a subnet like "10.9.0.0/16"`)
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, true
}

// checkSubnet looks at an address, with or without the length of its prefix, or at a range of addresses as whereabouts has
// them, "10.9.0.1-10.9.0.99/16". What is none of these is nothing to it.
func (r *Rule) checkSubnet(at, value string, bad *complaints) {
	first, last, isRange := strings.Cut(strings.TrimSpace(value), "-")
	parts := []string{first}
	if isRange {
		parts = append(parts, last)
	}
	for _, part := range parts {
		p, err := netip.ParsePrefix(part)
		if a, addrErr := netip.ParseAddr(part); addrErr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		if err == nil && !r.allowsSubnet(p) {
			bad.mismatch(at, value, wantSubnet(r.Subnets))
			return
		}
	}
}

// allowsSubnet tells if all of a subnet is in one of those of the rule.
func (r *Rule) allowsSubnet(p netip.Prefix) bool {
	addr := p.Addr()
	if bits := p.Bits() - 96; addr.Is4In6() && bits >= 0 {
		p = netip.PrefixFrom(addr.Unmap(), bits)
	}
	return slices.ContainsFunc(r.Subnets, func(in netip.Prefix) bool { return in.Bits() <= p.Bits() && in.Contains(p.Addr()) })
}

func wantSubnet(subnets []netip.Prefix) string {
	if len(subnets) == 0 {
		return "none: the rule allows no address"
	}
	names := make([]string, len(subnets))
	for i, p := range subnets {
		names[i] = p.String()
	}
	return "one in " + strings.Join(names, ", ")
}

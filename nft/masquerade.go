package nft

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

var (
	masqueradeTable = &nftables.Table{Family: nftables.TableFamilyINet, Name: tableName}
	masqueradeChain = &nftables.Chain{
		Table:    masqueradeTable,
		Name:     "masquerade",
		Type:     nftables.ChainTypeNAT,
		Hooknum:  nftables.ChainHookPostrouting,
		Priority: nftables.ChainPriorityNATSource,
	}
)

// AddMasquerade gives packets from the addresses the address of the interface that they leave the node by, unless they
// go to the subnet of their address (the mask says which that is), or to a multicast group.
//
// If another attachment of the network had an address, it has been given away since, and so has its element.
func (r Rules) AddMasquerade(ctx context.Context, o Owner, addrs []*net.IPNet) error {
	err := r.change(ctx, func(c *conn) error {
		for _, addr := range addrs {
			s := newSubnet(o.Network, addr)
			if err := s.ensureRule(c); err != nil {
				return err
			}
			if err := c.put(s.set(), s.of(addr.IP), o.String()); err != nil {
				return err
			}
			if err := c.Flush(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("masquerade %v: %w", addrs, err)
	}
	return nil
}

// CheckMasquerade returns an error if AddMasquerade with the same arguments is not in effect any more.
func (r Rules) CheckMasquerade(ctx context.Context, o Owner, addrs []*net.IPNet) error {
	return r.read(ctx, func(c *conn) error {
		var errs []error
		for _, addr := range addrs {
			errs = append(errs, newSubnet(o.Network, addr).check(c, o, addr.IP))
		}
		return errors.Join(errs...)
	})
}

// A subnet of a network has a rule and a set of its own.
type subnet struct {
	network string
	net     *net.IPNet
	ipv4    bool
}

func newSubnet(network string, addr *net.IPNet) subnet {
	ip, mask := addr.IP, addr.Mask
	v4 := ip.To4()
	if v4 != nil {
		ip, mask = v4, mask[len(mask)-net.IPv4len:]
	}
	return subnet{network, &net.IPNet{IP: ip.Mask(mask), Mask: mask}, v4 != nil}
}

// of returns an address of the subnet as packets have it.
func (s subnet) of(ip net.IP) []byte {
	if s.ipv4 {
		return ip.To4()
	}
	return ip.To16()
}

func setPrefix(network string) string { return "masquerade/" + shorten(network, 64) + "/" }

// name is that of the set and the comment of the rule. The nft tool takes no colon in the name of a set.
func (s subnet) name() string {
	return setPrefix(s.network) + strings.ReplaceAll(s.net.String(), ":", "_")
}

func (s subnet) set() *nftables.Set {
	set := &nftables.Set{Table: masqueradeTable, Name: s.name(), KeyType: nftables.TypeIPAddr}
	if !s.ipv4 {
		set.KeyType = nftables.TypeIP6Addr
	}
	return set
}

// ensureRule adds the rule, and what it needs, to the transaction if it is not there.
func (s subnet) ensureRule(c *conn) error {
	rule, err := ruleWith(c, masqueradeChain, s.name())
	if err != nil || rule != nil {
		return err
	}
	c.AddTable(masqueradeTable)
	c.AddChain(masqueradeChain)
	set := s.set()
	if err := c.addSet(set); err != nil {
		return err
	}
	c.AddRule(&nftables.Rule{
		Table:    masqueradeTable,
		Chain:    masqueradeChain,
		Exprs:    s.match(set),
		UserData: commentData(s.name()),
	})
	return nil
}

// match is: saddr @set, daddr != subnet, daddr != multicast, masquerade.
func (s subnet) match(set *nftables.Set) []expr.Any {
	proto, saddr, daddr := byte(unix.NFPROTO_IPV6), uint32(8), uint32(24)
	multicast, multicastMask := make([]byte, 16), make([]byte, 16)
	multicast[0], multicastMask[0] = 0xff, 0xff // ff00::/8
	if s.ipv4 {
		proto, saddr, daddr = unix.NFPROTO_IPV4, 12, 16
		multicast, multicastMask = []byte{224, 0, 0, 0}, []byte{0xf0, 0, 0, 0} // 224.0.0.0/4
	}
	length := uint32(len(s.net.IP))
	exprs := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: saddr, Len: length, DestRegister: 1},
		&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
	}
	for _, except := range []struct{ net, mask []byte }{{s.net.IP, s.net.Mask}, {multicast, multicastMask}} {
		exprs = append(exprs,
			&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: daddr, Len: length, DestRegister: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: length, Mask: except.mask, Xor: make([]byte, length)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: except.net},
		)
	}
	return append(exprs, &expr.Masq{})
}

func (s subnet) check(c *conn, o Owner, ip net.IP) error {
	rule, err := ruleWith(c, masqueradeChain, s.name())
	if err != nil {
		return err
	}
	if rule == nil {
		return fmt.Errorf("the rule that masquerades %s is missing", s.net)
	}
	switch e, err := c.elementOf(s.set(), s.of(ip)); {
	case err != nil:
		return err
	case e == nil:
		return fmt.Errorf("address %s is not masqueraded", ip)
	case e.comment != o.String():
		return fmt.Errorf("address %s is masqueraded for another attachment: %s", ip, e.comment)
	}
	return nil
}

// pruneMasquerade removes the stale elements of a network, the sets and rules that are then of no use, and the table.
func pruneMasquerade(c *conn, network string, stale func(comment string) bool) error {
	sets, there, err := c.setsOf(masqueradeTable)
	if err != nil {
		return err
	}
	emptied := there && len(sets) == 0 // by a process that was killed then
	for _, name := range sets {
		if !strings.HasPrefix(name, setPrefix(network)) {
			continue
		}
		empty, err := pruneSet(c, &nftables.Set{Table: masqueradeTable, Name: name}, stale)
		if err != nil {
			return err
		}
		emptied = emptied || empty
	}
	if !emptied {
		return nil
	}
	return deleteTableIfEmpty(c, masqueradeChain)
}

func pruneSet(c *conn, set *nftables.Set, stale func(comment string) bool) (empty bool, err error) {
	elements, err := c.elementsOf(set)
	if err != nil {
		return false, err
	}
	left := len(elements)
	for _, e := range elements {
		if stale(e.comment) {
			left--
			if err := c.remove(set, []byte(e.key)); err != nil {
				return false, err
			}
		}
	}
	if left > 0 {
		return false, c.Flush()
	}
	rule, err := ruleWith(c, masqueradeChain, set.Name)
	if err != nil {
		return false, err
	}
	if rule != nil {
		if err := c.DelRule(rule); err != nil {
			return false, err
		}
	}
	c.DelSet(set)
	return true, c.Flush()
}

package nft

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

var (
	spoofCheckTable = &nftables.Table{Family: nftables.TableFamilyBridge, Name: tableName}
	spoofCheckChain = &nftables.Chain{
		Table:    spoofCheckTable,
		Name:     "spoofcheck",
		Type:     nftables.ChainTypeFilter,
		Hooknum:  nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityRaw,
	}
)

// ports is the set of bridge ports that are checked. The comment of an element is the MAC address that the port has in
// the other set, to be found without a search.
func ports() *nftables.Set {
	return &nftables.Set{Table: spoofCheckTable, Name: "ports", KeyType: nftables.TypeIFName}
}

// allowed is the set of pairs of a port and the MAC address that frames may have which come in by it. The comment is
// the owner.
func allowed() *nftables.Set {
	return &nftables.Set{
		Table:         spoofCheckTable,
		Name:          "allowed",
		KeyType:       nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeEtherAddr),
		Concatenation: true,
	}
}

// portKey is the name as the kernel has it in a register.
func portKey(port string) []byte {
	key := make([]byte, unix.IFNAMSIZ)
	copy(key, port)
	return key
}

// pairKey has the address padded to a multiple of four bytes, as all parts of a key are.
func pairKey(port string, mac net.HardwareAddr) []byte {
	return append(append(portKey(port), mac...), 0, 0)
}

// AddSpoofCheck has the node drop what comes in by a bridge port with a source MAC address other than this one. What
// was allowed on the port before is not any more.
func (r Rules) AddSpoofCheck(ctx context.Context, o Owner, port string, mac net.HardwareAddr) error {
	err := r.change(ctx, func(c *conn) error {
		if err := ensureSpoofCheckRule(c); err != nil {
			return err
		}
		if err := forgetPort(c, port, mac); err != nil {
			return err
		}
		if err := errors.Join(c.put(ports(), portKey(port), mac.String()), c.put(allowed(), pairKey(port, mac), o.String())); err != nil {
			return err
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("allow only %s on port %s: %w", mac, port, err)
	}
	return nil
}

// forgetPort removes what an ADD that was killed, or an attachment that was not deleted, has left of a port.
func forgetPort(c *conn, port string, keep net.HardwareAddr) error {
	e, err := c.elementOf(ports(), portKey(port))
	if err != nil || e == nil || e.comment == keep.String() {
		return err
	}
	before, err := net.ParseMAC(e.comment)
	if err != nil {
		return nil // not ours
	}
	pair, err := c.elementOf(allowed(), pairKey(port, before))
	if err != nil || pair == nil {
		return err
	}
	return c.remove(allowed(), pairKey(port, before))
}

// CheckSpoofCheck returns an error if AddSpoofCheck with the same arguments is not in effect any more.
func (r Rules) CheckSpoofCheck(ctx context.Context, o Owner, port string, mac net.HardwareAddr) error {
	return r.read(ctx, func(c *conn) error {
		rule, err := ruleWith(c, spoofCheckChain, spoofCheckChain.Name)
		if err != nil {
			return err
		}
		if rule == nil {
			return errors.New("the rule of the MAC spoof check is missing")
		}
		checked, err := c.elementOf(ports(), portKey(port))
		if err != nil {
			return err
		}
		pair, err := c.elementOf(allowed(), pairKey(port, mac))
		if err != nil {
			return err
		}
		if checked == nil || pair == nil || pair.comment != o.String() {
			return fmt.Errorf("port %s is not held to the MAC address %s", port, mac)
		}
		return nil
	})
}

// ensureSpoofCheckRule adds the rule, and what it needs, to the transaction if it is not there.
func ensureSpoofCheckRule(c *conn) error {
	rule, err := ruleWith(c, spoofCheckChain, spoofCheckChain.Name)
	if err != nil || rule != nil {
		return err
	}
	ports, allowed := ports(), allowed()
	c.AddTable(spoofCheckTable)
	c.AddChain(spoofCheckChain)
	if err := errors.Join(c.addSet(ports), c.addSet(allowed)); err != nil {
		return err
	}
	c.AddRule(&nftables.Rule{
		Table: spoofCheckTable,
		Chain: spoofCheckChain,
		Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
			&expr.Lookup{SourceRegister: 1, SetName: ports.Name, SetID: ports.ID},
			// Register 2 follows 1, which the name fills.
			&expr.Payload{Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6, DestRegister: 2},
			&expr.Lookup{SourceRegister: 1, SetName: allowed.Name, SetID: allowed.ID, Invert: true},
			&expr.Verdict{Kind: expr.VerdictDrop},
		},
		UserData: commentData(spoofCheckChain.Name),
	})
	return nil
}

// pruneSpoofCheck removes stale elements, and the table if it is then of no use.
func pruneSpoofCheck(c *conn, stale func(comment string) bool) error {
	sets, there, err := c.setsOf(spoofCheckTable)
	if err != nil || !there {
		return err
	}
	if len(sets) == 0 { // a process was killed when it had come to this
		return deleteTableIfEmpty(c, spoofCheckChain)
	}
	pairs, err := c.elementsOf(allowed())
	if err != nil {
		return err
	}
	left := len(pairs)
	for _, pair := range pairs {
		if !stale(pair.comment) {
			continue
		}
		left--
		if err := removePair(c, []byte(pair.key)); err != nil {
			return err
		}
	}
	if left > 0 && left == len(pairs) {
		return nil
	}
	if err := c.Flush(); err != nil || left > 0 {
		return err
	}
	return deleteSpoofCheckRule(c)
}

// removePair removes a pair and its port, unless the port has got another address since.
func removePair(c *conn, key []byte) error {
	port, mac := key[:unix.IFNAMSIZ], net.HardwareAddr(key[unix.IFNAMSIZ:unix.IFNAMSIZ+6])
	e, err := c.elementOf(ports(), port)
	if err != nil {
		return err
	}
	if e != nil && e.comment == mac.String() {
		if err := c.remove(ports(), port); err != nil {
			return err
		}
	}
	return c.remove(allowed(), key)
}

func deleteSpoofCheckRule(c *conn) error {
	rule, err := ruleWith(c, spoofCheckChain, spoofCheckChain.Name)
	if err != nil {
		return err
	}
	if rule != nil {
		if err := c.DelRule(rule); err != nil {
			return err
		}
	}
	c.DelSet(ports())
	c.DelSet(allowed())
	if err := c.Flush(); err != nil {
		return err
	}
	return deleteTableIfEmpty(c, spoofCheckChain)
}

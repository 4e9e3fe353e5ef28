// Package nft keeps the packet filter rules of attachments: masquerade of what pods send to the outside, and a check
// that pods do not send with the MAC address of somebody else. It talks to nf_tables over netlink.
//
// All pods of a network share a rule, which looks their addresses up in a set, so that packets, ADD and DEL cost the
// same whatever the number of pods. An element of a set has its [Owner] as comment: that is all there is of state,
// it cannot get lost or become untrue, and an operator sees it with `nft list ruleset`:
//
//	table inet braid {
//		set masquerade/blue/10.1.0.0/24 {
//			type ipv4_addr
//			elements = { 10.1.0.5 comment "blue:0a1b2c:eth0" }
//		}
//		chain masquerade {
//			type nat hook postrouting priority srcnat; policy accept;
//			ip saddr @masquerade/blue/10.1.0.0/24 ip daddr != 10.1.0.0/24 ip daddr != 224.0.0.0/4 masquerade
//		}
//	}
//	table bridge braid {
//		set ports { type ifname; ... }
//		set allowed { type ifname . ether_addr; ... }
//		chain spoofcheck {
//			type filter hook prerouting priority -300; policy accept;
//			iifname @ports iifname . ether saddr != @allowed drop
//		}
//	}
//
// The tables exist as long as there is anything in them, and nothing else is ever touched.
package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/netdev"
)

const tableName = "braid"

// Rules are those of one network namespace, usually the node's. Its methods are safe for concurrent use, also by
// several processes.
type Rules struct{ ns *netdev.Namespace }

// In returns the rules of a namespace, which must stay open as long as they are used.
func In(ns *netdev.Namespace) Rules { return Rules{ns} }

// Available returns an error if this kernel or the permissions of this process have no nf_tables.
func (r Rules) Available(ctx context.Context) error {
	err := r.read(ctx, func(c *conn) error {
		_, err := c.ListTables()
		return err
	})
	if err != nil {
		return fmt.Errorf("use nf_tables: %w", err)
	}
	return nil
}

// Remove removes all that belongs to an owner. It is no error if there is nothing.
func (r Rules) Remove(ctx context.Context, o Owner) error {
	err := r.prune(ctx, o.Network, func(comment string) bool { return comment == o.String() })
	if err != nil {
		return fmt.Errorf("remove the rules of %s: %w", o, err)
	}
	return nil
}

// GC removes what belongs to attachments of a network other than the valid ones.
func (r Rules) GC(ctx context.Context, network string, valid []types.GCAttachment) error {
	if err := r.prune(ctx, network, Stale(network, valid)); err != nil {
		return fmt.Errorf("remove the rules of stale attachments of %s: %w", network, err)
	}
	return nil
}

// prune removes the elements of a network whose comment is stale.
func (r Rules) prune(ctx context.Context, network string, stale func(comment string) bool) error {
	if r.none() {
		return nil
	}
	return r.change(ctx, func(c *conn) error {
		return errors.Join(pruneMasquerade(c, network, stale), pruneSpoofCheck(c, stale))
	})
}

// orNone makes an empty list of the error that the table of a list does not exist.
func orNone[T any](found []T, err error) ([]T, error) {
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return found, err
}

// ruleWith returns the rule of a chain that has a comment, or nil.
func ruleWith(c *conn, chain *nftables.Chain, comment string) (*nftables.Rule, error) {
	rules, err := orNone(c.GetRules(chain.Table, chain))
	if err != nil {
		return nil, fmt.Errorf("list the rules of chain %s: %w", chain.Name, err)
	}
	for _, rule := range rules {
		if have, _ := userdata.GetString(rule.UserData, userdata.TypeComment); have == comment {
			return rule, nil
		}
	}
	return nil, nil
}

func commentData(comment string) []byte {
	return userdata.AppendString(nil, userdata.TypeComment, comment)
}

// put makes a comment that of an element. One that is there with the comment of a deleted owner is the exception, so
// no element is deleted on suspicion: that makes the next transaction wait until all CPUs have forgotten it.
func (c *conn) put(set *nftables.Set, key []byte, comment string) error {
	there, err := c.elementOf(set, key)
	if err != nil || there != nil && there.comment == comment {
		return err
	}
	if there != nil {
		if err := c.remove(set, key); err != nil {
			return err
		}
	}
	return c.SetAddElements(set, []nftables.SetElement{{Key: key, Comment: comment}})
}

// remove deletes an element that is there.
func (c *conn) remove(set *nftables.Set, key []byte) error {
	return c.SetDeleteElements(set, []nftables.SetElement{{Key: key}})
}

// deleteTableIfEmpty deletes a table that has nothing but an empty chain of ours.
func deleteTableIfEmpty(c *conn, chain *nftables.Chain) error {
	rules, err := orNone(c.GetRules(chain.Table, chain))
	if err != nil || len(rules) > 0 {
		return err
	}
	sets, _, err := c.setsOf(chain.Table)
	if err != nil || len(sets) > 0 {
		return err
	}
	chains, err := c.ListChainsOfTableFamily(chain.Table.Family)
	if err != nil {
		return err
	}
	chains = slices.DeleteFunc(chains, func(other *nftables.Chain) bool { return other.Table.Name != tableName })
	if len(chains) != 1 || chains[0].Name != chain.Name {
		return nil
	}
	c.DelTable(chain.Table)
	return c.Flush()
}

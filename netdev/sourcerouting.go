package netdev

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Source routing, for pods with several networks: packets from an address of the interface are routed by a table of
// its own. The table is numbered after the index of the interface and goes with it; the rules that lead there do not,
// and are removed when there is no interface of that index any more.
const (
	firstTable   = 1_000_000 // plus the interface index; far from what people and other plugins choose
	rulePriority = 30_000    // after the local table, before the main one
)

func sourceTable(link netlink.Link) int { return firstTable + link.Attrs().Index }

func (b *Batch) addSourceRoutes(link netlink.Link, ips []*types100.IPConfig, routes []*types.Route) {
	for _, route := range sourceRoutes(link, ips, routes) {
		b.addRoute(route)
	}
}

func (ns *Namespace) addSourceRules(link netlink.Link, ips []*types100.IPConfig) error {
	for _, rule := range sourceRules(link, ips) {
		if err := ns.handle.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add rule from %s: %w", rule.Src, err)
		}
	}
	return nil
}

// sourceRoutes returns what the interface's own table holds: its subnets, the routes of the result that name no table,
// and the gateways as default routes.
func sourceRoutes(link netlink.Link, ips []*types100.IPConfig, routes []*types.Route) (out []*netlink.Route) {
	for _, ip := range ips {
		subnet := &net.IPNet{IP: ip.Address.IP.Mask(ip.Address.Mask), Mask: ip.Address.Mask}
		out = append(out, &netlink.Route{LinkIndex: link.Attrs().Index, Dst: subnet, Scope: netlink.SCOPE_LINK})
	}
	hasDefault := map[int]bool{}
	for _, route := range netlinkRoutes(link, ips, routes) {
		if route.Table == 0 {
			out = append(out, route)
			hasDefault[family(route.Dst.IP)] = hasDefault[family(route.Dst.IP)] || isDefault(route.Dst)
		}
	}
	for _, fam := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if gw := gateway(ips, fam); gw != nil && !hasDefault[fam] {
			out = append(out, &netlink.Route{LinkIndex: link.Attrs().Index, Dst: everywhere(fam), Gw: gw})
		}
	}
	for _, route := range out {
		route.Table = sourceTable(link)
	}
	return out
}

func sourceRules(link netlink.Link, ips []*types100.IPConfig) (rules []*netlink.Rule) {
	for _, ip := range ips {
		rule := netlink.NewRule()
		rule.Family, rule.Src = family(ip.Address.IP), host(ip.Address.IP)
		rule.Priority, rule.Table = rulePriority, sourceTable(link)
		rules = append(rules, rule)
	}
	return rules
}

func host(ip net.IP) *net.IPNet {
	if v4 := ip.To4(); v4 != nil {
		ip = v4
	}
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))}
}

// checkSourceRouting takes the default routes of the result for no more than a hint: they are about the main table, where
// they may have been set by a wish of the pod since.
func (ns *Namespace) checkSourceRouting(link netlink.Link, ips []*types100.IPConfig, res *types100.Result) error {
	have, err := ns.routes(netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	rules, err := ns.sourceRulesOf()
	if err != nil {
		return err
	}
	others := slices.DeleteFunc(slices.Clone(res.Routes), func(r *types.Route) bool { return isDefault(&r.Dst) })
	var errs []error
	for _, want := range sourceRoutes(link, ips, others) {
		if !slices.ContainsFunc(have, func(h netlink.Route) bool {
			return h.Table == want.Table && through(h, want.LinkIndex) && sameDst(h.Dst, want.Dst) && (isDefault(want.Dst) || sameRoute(h, want))
		}) {
			errs = append(errs, fmt.Errorf("route %s is missing", routeString(want)))
		}
	}
	for _, want := range sourceRules(link, ips) {
		if !slices.ContainsFunc(rules[want.Table], func(have *netlink.Rule) bool { return have.Src.IP.Equal(want.Src.IP) }) {
			errs = append(errs, fmt.Errorf("the rule from %s to table %d is missing", want.Src, want.Table))
		}
	}
	return errors.Join(errs...)
}

// sourceRulesOf lists the rules of source routing, by the table they lead to.
func (ns *Namespace) sourceRulesOf() (map[int][]*netlink.Rule, error) {
	rules, err := list(ns, unix.RTM_GETRULE, decodeRule, &nl.RtMsg{}) // of all families
	if err != nil {
		return nil, fmt.Errorf("list the routing rules of %s: %w", ns.path, err)
	}
	byTable := map[int][]*netlink.Rule{}
	for _, r := range rules {
		if r.Priority == rulePriority && r.Table > firstTable && r.Src != nil {
			byTable[r.Table] = append(byTable[r.Table], r)
		}
	}
	return byTable, nil
}

// decodeRule reads of a rule what [sourceRules] puts into one.
func decodeRule(message []byte) (*netlink.Rule, error) {
	if len(message) < unix.SizeofRtMsg {
		return nil, unix.EBADMSG
	}
	header, rule := nl.DeserializeRtMsg(message), netlink.NewRule()
	rule.Family, rule.Priority = int(header.Family), 0
	err := attributes(message[unix.SizeofRtMsg:], func(kind uint16, attribute []byte) error {
		value := attribute[unix.SizeofRtAttr:]
		switch {
		case kind == nl.FRA_TABLE && len(value) >= 4:
			rule.Table = int(nl.NativeEndian().Uint32(value))
		case kind == nl.FRA_PRIORITY && len(value) >= 4:
			rule.Priority = int(nl.NativeEndian().Uint32(value))
		case kind == nl.FRA_SRC && (len(value) == net.IPv4len || len(value) == net.IPv6len):
			rule.Src = &net.IPNet{IP: value, Mask: net.CIDRMask(int(header.Src_len), 8*len(value))}
		}
		return nil
	})
	return rule, err
}

// deleteOrphanedRules deletes the rules whose interface does not exist any more.
func (ns *Namespace) deleteOrphanedRules() error {
	byTable, err := ns.sourceRulesOf()
	if err != nil {
		return err
	}
	var errs []error
	for table, rules := range byTable {
		_, err := ns.LinkAt(table - firstTable)
		if err == nil {
			continue
		}
		if !errors.Is(err, ErrNotFound) {
			errs = append(errs, fmt.Errorf("look up the interface of table %d: %w", table, err))
			continue
		}
		for _, rule := range rules {
			rule.Family = family(rule.Src.IP)
			if err := ns.handle.RuleDel(rule); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("delete rule from %s: %w", rule.Src, err))
			}
		}
	}
	return errors.Join(errs...)
}

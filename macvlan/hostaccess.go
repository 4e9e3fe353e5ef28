package macvlan

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/netdev"
)

// The kernel lets no packet pass between an interface and the macvlan interfaces on it: pods cannot reach their node by
// that network. They reach other macvlan interfaces, so the node gets one too, with routes to the pods through it.
//
// An access is that interface of a network. All state is in the kernel, so a killed process leaves nothing that DEL or
// GC does not find: the name of the interface says which network it is of, and the metric of a route (of which there
// is only one to a pod's address, so that it means nothing else) which attachment.
type access struct {
	network string
	prefix  string // of the names of its interfaces, one per parent
}

// maxAlias is the kernel's bound (IFALIASZ), less the zero at the end.
const maxAlias = 255

// routeProtocol tells the routes from those of others.
const routeProtocol = 98

func accessOf(network string) access {
	sum := sha256.Sum256([]byte(network))
	return access{network: network, prefix: "mv" + hex.EncodeToString(sum[:4]) + "-"}
}

func (a access) name(parentIndex int) string {
	return a.prefix + strconv.FormatInt(int64(parentIndex), 36)
}

// alias is for people, and for GC to be sure.
func (a access) alias() string {
	text := "host access of macvlan network " + a.network
	return text[:min(len(text), maxAlias)]
}

func metric(containerID, ifName string) int {
	sum := sha256.Sum256([]byte(containerID + "/" + ifName))
	return int(binary.BigEndian.Uint32(sum[:])>>1 | 1)
}

// locked opens the node's namespace, so that nobody adds a route while the interface is deleted with the last one.
func locked(ctx context.Context) (host *netdev.Namespace, release func(), err error) {
	if host, err = netdev.Host(); err != nil {
		return nil, nil, err
	}
	unlock, err := host.LockExclusive(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, host.Close())
	}
	return host, func() { unlock(); _ = host.Close() }, nil
}

// add lets the node and the pod reach each other, and returns the result with what that changes in the pod.
func (a access) add(ctx context.Context, at cni.Attachment, res *types100.Result, opts netdev.Options) (*types100.Result, error) {
	ips, err := netdev.AddressesOf(at.IfName, res)
	if err != nil || len(ips) == 0 {
		return res, err
	}
	pod, err := netdev.Open(at.Netns)
	if err != nil {
		return nil, err
	}
	defer pod.Close()
	link, err := pod.Link(at.IfName)
	if err != nil {
		return nil, err
	}
	host, release, err := locked(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	s, err := a.ensure(host, link.Attrs().ParentIndex)
	if err != nil {
		return nil, err
	}
	routes, err := s.connect(host, at, ips)
	if err != nil {
		return nil, err
	}
	more := &types100.Result{Interfaces: res.Interfaces, Routes: routes}
	if err := pod.Configure(ctx, link, more, opts); err != nil {
		return nil, err
	}
	res.Routes = append(res.Routes, routes...)
	return res, nil
}

// A shim is the node's macvlan interface. The addresses are those of the node on the parent.
type shim struct {
	link      netlink.Link
	addresses []net.IP
}

// ensure returns the node's macvlan interface on a parent, and makes it if it is not there.
func (a access) ensure(host *netdev.Namespace, parentIndex int) (*shim, error) {
	lower, err := host.LinkAt(parentIndex)
	if err != nil {
		return nil, fmt.Errorf("look up the parent: %w", err)
	}
	addrs, err := host.Addresses(lower)
	if err != nil {
		return nil, err
	}
	s := &shim{}
	for _, addr := range addrs {
		if addr.IP.IsGlobalUnicast() {
			s.addresses = append(s.addresses, addr.IP)
		}
	}
	if len(s.addresses) == 0 {
		return nil, fmt.Errorf("hostAccess: the node has no address on the parent %s by which pods could reach it", lower.Attrs().Name)
	}
	if s.link, err = host.Link(a.name(parentIndex)); err == nil {
		if !a.isShim(s.link) || s.link.Attrs().ParentIndex != parentIndex {
			return nil, fmt.Errorf("hostAccess: the node's interface for this would be called %s, and that is somebody else's (%s, alias %q)",
				s.link.Attrs().Name, s.link.Type(), s.link.Attrs().Alias)
		}
		if s.link.Attrs().Alias == "" {
			err = a.finish(host, s)
		}
		return s, err
	}
	if !errors.Is(err, netdev.ErrNotFound) {
		return nil, err
	}
	if err := a.create(host, lower, s); err != nil {
		if s.link != nil {
			err = errors.Join(err, host.DeleteLink(a.name(parentIndex)))
		}
		return nil, err
	}
	return s, nil
}

// isShim tells the node's interface of the network from those of others. One without alias was left by a process that was
// killed while it made it, and may lack anything.
func (a access) isShim(l netlink.Link) bool {
	alias := l.Attrs().Alias
	return l.Type() == kind && strings.HasPrefix(l.Attrs().Name, a.prefix) && (alias == "" || alias == a.alias())
}

func (a access) create(host *netdev.Namespace, lower netlink.Link, s *shim) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = a.name(lower.Attrs().Index), lower.Attrs().Index
	made := &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}
	if err := host.Handle().LinkAdd(made); err != nil {
		return fmt.Errorf("create %s for host access: %w", attrs.Name, err)
	}
	s.link = made
	link, err := host.Link(attrs.Name)
	if err != nil {
		return err
	}
	s.link = link
	return a.finish(host, s)
}

// finish gives the interface what it is to have, of which some may be there, and the alias last.
func (a access) finish(host *netdev.Namespace, s *shim) error {
	link, name := s.link, s.link.Attrs().Name
	err := host.SetSysctls(
		// Answer pods, who are reached through this interface, and not other hosts, whom the parent answers as well.
		netdev.Sysctl{Key: "ipv4/conf/" + name + "/arp_filter", Value: "1"},
		// The address below is to be there at once, without duplicate address detection.
		netdev.Sysctl{Key: "ipv6/conf/" + name + "/addr_gen_mode", Value: "1"},
	)
	if err != nil {
		return err
	}
	addrs := []*netlink.Addr{{IPNet: &net.IPNet{IP: s.linkLocal(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}}
	for _, ip := range s.addresses {
		if v4 := ip.To4(); v4 != nil {
			addrs = append(addrs, &netlink.Addr{IPNet: &net.IPNet{IP: v4, Mask: net.CIDRMask(32, 32)}})
		}
	}
	h := host.Handle()
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	for _, addr := range addrs {
		if err := h.AddrAdd(link, addr); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s to %s: %w", addr.IPNet, name, err)
		}
	}
	if err := h.LinkSetAlias(link, a.alias()); err != nil {
		return fmt.Errorf("mark %s: %w", name, err)
	}
	return nil
}

// linkLocal is made from the MAC (RFC 4291, appendix A).
func (s *shim) linkLocal() net.IP {
	m := s.link.Attrs().HardwareAddr
	return net.IP{0xfe, 0x80, 0, 0, 0, 0, 0, 0, m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]}
}

// connect adds the routes to the pod, and returns those of the pod to the node. IPv4 needs none: the node's addresses
// are on the shim as well, and it answers for them. Doing the same for IPv6 would make other hosts, whom it answers
// too, lose the node when the shim goes.
func (s *shim) connect(host *netdev.Namespace, at cni.Attachment, ips []*types100.IPConfig) (back []*types.Route, err error) {
	for _, ip := range ips {
		from := s.address(ip.Address.IP)
		if from == nil {
			continue
		}
		route := &netlink.Route{
			LinkIndex: s.link.Attrs().Index,
			Dst:       single(ip.Address.IP),
			Src:       from,
			Scope:     netlink.SCOPE_LINK,
			Protocol:  routeProtocol,
			Priority:  metric(at.ContainerID, at.IfName),
		}
		if err := host.Handle().RouteReplace(route); err != nil {
			return nil, fmt.Errorf("add the node's route to %s: %w", route.Dst, err)
		}
		if from.To4() == nil && !slices.ContainsFunc(back, func(r *types.Route) bool { return r.Dst.IP.Equal(from) }) {
			back = append(back, &types.Route{Dst: *single(from), GW: s.linkLocal()})
		}
	}
	return back, nil
}

// address returns the node's address of the family of another one.
func (s *shim) address(other net.IP) net.IP {
	for _, ip := range s.addresses {
		if (ip.To4() != nil) == (other.To4() != nil) {
			return ip
		}
	}
	return nil
}

func single(ip net.IP) *net.IPNet {
	if v4 := ip.To4(); v4 != nil {
		ip = v4
	}
	return &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))}
}

// remove deletes the routes of an attachment, and the node's interface with the last one.
func (a access) remove(ctx context.Context, at cni.Attachment) error {
	return a.removeRoutes(ctx, func(m int) bool { return m == metric(at.ContainerID, at.IfName) })
}

// collect removes what does not belong to a valid attachment.
func (a access) collect(ctx context.Context, valid []types.GCAttachment) error {
	keep := map[int]bool{}
	for _, v := range valid {
		keep[metric(v.ContainerID, v.IfName)] = true
	}
	return a.removeRoutes(ctx, func(m int) bool { return !keep[m] })
}

func (a access) removeRoutes(ctx context.Context, stale func(metric int) bool) error {
	host, release, err := locked(ctx)
	if err != nil {
		return err
	}
	defer release()
	shims, err := a.shims(host)
	if err != nil || len(shims) == 0 {
		return err
	}
	routes, err := ownRoutes(host)
	if err != nil {
		return err
	}
	var errs []error
	for _, link := range shims {
		used := false
		for _, r := range routes {
			if r.LinkIndex != link.Attrs().Index {
				continue
			}
			if !stale(r.Priority) {
				used = true
			} else if err := host.Handle().RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				errs = append(errs, fmt.Errorf("delete the node's route to %s: %w", r.Dst, err))
			}
		}
		if !used {
			errs = append(errs, host.DeleteLink(link.Attrs().Name))
		}
	}
	return errors.Join(errs...)
}

// shims returns the node's interfaces of the network.
func (a access) shims(host *netdev.Namespace) ([]netlink.Link, error) {
	links, err := host.Links()
	return slices.DeleteFunc(links, func(l netlink.Link) bool { return !a.isShim(l) }), err
}

func ownRoutes(host *netdev.Namespace) ([]netlink.Route, error) {
	filter := &netlink.Route{Protocol: routeProtocol}
	routes, err := netdev.Dump(func() ([]netlink.Route, error) {
		return host.Handle().RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return nil, fmt.Errorf("list the routes of the node: %w", err)
	}
	return routes, nil
}

// check fails if the node has no route to an address of the pod. That of the pod to the node is in the result.
func (a access) check(req *cni.Request) error {
	prev, err := req.PrevResult()
	if err != nil || prev == nil {
		return err
	}
	ips, err := netdev.AddressesOf(req.IfName, prev)
	if err != nil {
		return err
	}
	host, err := netdev.Host()
	if err != nil {
		return err
	}
	defer host.Close()
	routes, err := ownRoutes(host)
	if err != nil {
		return err
	}
	want := metric(req.ContainerID, req.IfName)
	found := 0
	for _, r := range routes {
		if r.Priority == want && slices.ContainsFunc(ips, func(ip *types100.IPConfig) bool { return r.Dst.IP.Equal(ip.Address.IP) }) {
			found++
		}
	}
	if found == 0 && len(ips) > 0 {
		return fmt.Errorf("hostAccess: the node has no route to %s", req.IfName)
	}
	return nil
}

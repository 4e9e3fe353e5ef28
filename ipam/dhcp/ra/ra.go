// Package ra has the kernel configure an interface by router advertisements (RFC 4861, RFC 4862), and waits for it.
//
// The kernel does it, not this package: it makes addresses, routes and the default route, and it goes on doing so for
// as long as the pod lives, when prefixes and routers change. What this package does is to switch that on and to tell
// what came of it, which a CNI result must say.
package ra

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/ndp"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/ipam/dhcp/lease"
	"github.com/braid-cni/braid/netdev"
)

// A Listener hears what routers say on an interface.
type Listener struct {
	ns   *netdev.Namespace
	link netlink.Link
	conn *ipv6.PacketConn
}

// An Advertisement is what a router says.
type Advertisement struct {
	Router   netip.Addr     // its link-local address, without a zone
	Default  bool           // it is a default router
	Prefixes []netip.Prefix // for autoconfiguration
	Servers  []string       // DNS
	Search   []string       // DNS
}

// Listen switches IPv6 on, and the handling of advertisements by the kernel. Autoconf says whether the interface is to
// have addresses that it makes itself. Close must be called; the namespace must stay open until then.
func Listen(ctx context.Context, ns *netdev.Namespace, ifName string, autoconf bool) (*Listener, error) {
	if err := enable(ns, ifName, autoconf); err != nil {
		return nil, err
	}
	link, err := ns.Link(ifName)
	if err != nil {
		return nil, err
	}
	conn, err := lease.ListenPacket(ctx, ns, ifName, "ip6:ipv6-icmp", "::")
	if err != nil {
		return nil, fmt.Errorf("listen to router advertisements on %s: %w", ifName, err)
	}
	l := &Listener{ns: ns, link: link, conn: ipv6.NewPacketConn(conn)}
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterAdvertisement)
	err = errors.Join(l.conn.SetICMPFilter(&filter), l.conn.SetMulticastHopLimit(ndp.HopLimit),
		l.conn.SetControlMessage(ipv6.FlagHopLimit, true))
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// Close ends what Listen began.
func (l *Listener) Close() error { return l.conn.Close() }

// enable also makes duplicate address detection fast, as for all addresses of pods: it would wait up to a second
// before it asks, and another one for an answer. Where it has just begun, for the link-local address of a new
// interface, it begins anew.
func enable(ns *netdev.Namespace, ifName string, autoconf bool) error {
	conf, neigh := "ipv6/conf/"+ifName+"/", "ipv6/neigh/"+ifName+"/"
	auto := "0"
	if autoconf {
		auto = "1"
	}
	settings := []netdev.Sysctl{
		{Key: "ipv6/conf/lo/disable_ipv6", Value: "0"},
		{Key: conf + "autoconf", Value: auto},
		{Key: conf + "accept_ra", Value: "2"}, // in a pod that forwards packets, too
		{Key: conf + "keep_addr_on_down", Value: "1"},
		{Key: conf + "router_solicitation_delay", Value: "0"},
		{Key: neigh + "retrans_time_ms", Value: "250"},
	}
	isNew, err := isNew(ns, ifName)
	if err != nil {
		return err
	}
	if isNew {
		settings = append(settings, netdev.Sysctl{Key: conf + "disable_ipv6", Value: "1"})
	}
	err = ns.SetSysctls(append(settings, netdev.Sysctl{Key: conf + "disable_ipv6", Value: "0"})...)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("this kernel has no IPv6: %w", err)
	}
	return err
}

// isNew tells whether an interface has no IPv6 address that can be used.
func isNew(ns *netdev.Namespace, ifName string) (bool, error) {
	link, err := ns.Link(ifName)
	if err != nil {
		return false, err
	}
	have, err := netdev.Dump(func() ([]netlink.Addr, error) { return ns.Handle().AddrList(link, netlink.FAMILY_V6) })
	return !slices.ContainsFunc(have, func(a netlink.Addr) bool { return a.Flags&unix.IFA_F_TENTATIVE == 0 }), err
}

// Wait asks for advertisements until there is one that is wanted, or the context ends.
func (l *Listener) Wait(ctx context.Context, wanted func(*Advertisement) bool) (*Advertisement, error) {
	name := l.link.Attrs().Name
	if _, err := l.ns.WaitAddress(ctx, name, func(a netlink.Addr) bool { return a.IP.IsLinkLocalUnicast() }); err != nil {
		return nil, err
	}
	solicitation, err := ndp.MarshalMessage(&ndp.RouterSolicitation{Options: []ndp.Option{
		&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: l.link.Attrs().HardwareAddr},
	}})
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { _ = l.conn.SetReadDeadline(time.Unix(1, 0)) })()
	for delay := time.Second; ; delay = min(2*delay, 8*time.Second) {
		if _, err := l.conn.WriteTo(solicitation, nil, allRouters); err != nil {
			return nil, fmt.Errorf("send a router solicitation on %s: %w", name, err)
		}
		if found := l.receive(ctx, time.Now().Add(delay), wanted); found != nil {
			return found, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("wait for a router advertisement on %s: %w", name, context.Cause(ctx))
		}
	}
}

var allRouters = &net.IPAddr{IP: net.IPv6linklocalallrouters}

func (l *Listener) receive(ctx context.Context, until time.Time, wanted func(*Advertisement) bool) *Advertisement {
	buf := make([]byte, 1500)
	_ = l.conn.SetReadDeadline(until)
	for ctx.Err() == nil {
		n, header, source, err := l.conn.ReadFrom(buf)
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				wait(ctx, time.Until(until))
			}
			return nil
		}
		from, _ := source.(*net.IPAddr)
		// With this hop limit it has come through no router.
		if from == nil || !from.IP.IsLinkLocalUnicast() || header == nil || header.HopLimit != ndp.HopLimit {
			continue
		}
		if a := read(buf[:n], from.IP); a != nil && wanted(a) {
			return a
		}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// read returns nil for what is no advertisement.
func read(packet []byte, from net.IP) *Advertisement {
	parsed, err := ndp.ParseMessage(packet)
	m, ok := parsed.(*ndp.RouterAdvertisement)
	router, valid := netip.AddrFromSlice(from)
	if err != nil || !ok || !valid {
		return nil
	}
	a := &Advertisement{Router: router, Default: m.RouterLifetime > 0}
	for _, o := range m.Options {
		switch o := o.(type) {
		case *ndp.PrefixInformation:
			if o.AutonomousAddressConfiguration && o.ValidLifetime > 0 {
				a.Prefixes = append(a.Prefixes, netip.PrefixFrom(o.Prefix, int(o.PrefixLength)))
			}
		case *ndp.RecursiveDNSServer:
			for _, s := range o.Servers {
				if o.Lifetime > 0 && !s.IsUnspecified() && !s.IsMulticast() {
					a.Servers = lease.Union(a.Servers, []string{s.WithZone("").String()})
				}
			}
		case *ndp.DNSSearchList:
			if o.Lifetime > 0 {
				a.Search = lease.Union(a.Search, lease.Domains(o.DomainNames...))
			}
		}
	}
	return a
}

// Address waits for the address that the kernel makes of a prefix.
func (l *Listener) Address(ctx context.Context, prefixes []netip.Prefix) (netip.Prefix, error) {
	found, err := l.ns.WaitAddress(ctx, l.link.Attrs().Name, func(a netlink.Addr) bool {
		ip, _ := netip.AddrFromSlice(a.IP)
		if a.Flags&(unix.IFA_F_TEMPORARY|unix.IFA_F_DEPRECATED) != 0 {
			return false
		}
		for _, p := range prefixes {
			if p.Contains(ip) {
				return true
			}
		}
		return false
	})
	if err != nil {
		return netip.Prefix{}, err
	}
	ip, _ := netip.AddrFromSlice(found.IP)
	bits, _ := found.Mask.Size()
	return netip.PrefixFrom(ip, bits), nil
}

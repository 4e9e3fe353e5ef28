package nft_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/nft"
)

func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// node is a namespace with its rules.
type node struct {
	nft.Rules
	ns *nettest.NS
}

func newNode(t testing.TB) node {
	t.Helper()
	ns := nettest.NewNS(t)
	opened, err := netdev.Open(ns.Path())
	must(t, err)
	t.Cleanup(func() { opened.Close() })
	return node{nft.In(opened), ns}
}

func (n node) conn(t testing.TB) *nftables.Conn {
	t.Helper()
	fd, err := os.Open(n.ns.Path())
	must(t, err)
	t.Cleanup(func() { fd.Close() })
	c, err := nftables.New(nftables.WithNetNSFd(int(fd.Fd())))
	must(t, err)
	return c
}

// empty fails the test if there is any rule, or what is needed for one.
func (n node) empty(t testing.TB) {
	t.Helper()
	tables, err := n.conn(t).ListTables()
	must(t, err)
	for _, table := range tables {
		t.Errorf("the table %s is left", table.Name)
	}
}

func cidr(t testing.TB, s string) *net.IPNet {
	t.Helper()
	ip, n, err := net.ParseCIDR(s)
	must(t, err)
	return &net.IPNet{IP: ip, Mask: n.Mask}
}

func owner(container string) nft.Owner {
	return nft.Owner{Network: "blue", ContainerID: container, IfName: "net1"}
}

func TestMasqueradeIsCheckedAndRemoved(t *testing.T) {
	n, ctx := newNode(t), t.Context()
	addrs := []*net.IPNet{cidr(t, "10.1.0.5/24"), cidr(t, "2001:db8::5/64"), cidr(t, "10.1.0.6/24")}
	must(t, n.AddMasquerade(ctx, owner("a"), addrs))
	must(t, n.AddMasquerade(ctx, owner("b"), []*net.IPNet{cidr(t, "10.1.0.7/24")}))
	must(t, n.CheckMasquerade(ctx, owner("a"), addrs))
	for _, missing := range []struct {
		owner nft.Owner
		addr  string
	}{
		{owner("a"), "10.1.0.9/24"},
		{owner("a"), "10.9.0.5/24"},
		{owner("b"), "10.1.0.5/24"},
		{nft.Owner{Network: "red", ContainerID: "a", IfName: "net1"}, "10.1.0.5/24"},
	} {
		if n.CheckMasquerade(ctx, missing.owner, []*net.IPNet{cidr(t, missing.addr)}) == nil {
			t.Errorf("the check passes for %s of %s", missing.addr, missing.owner)
		}
	}
	must(t, n.Remove(ctx, owner("a")))
	if n.CheckMasquerade(ctx, owner("a"), addrs[:1]) == nil {
		t.Error("the check passes after removal")
	}
	must(t, n.CheckMasquerade(ctx, owner("b"), []*net.IPNet{cidr(t, "10.1.0.7/24")}))
	must(t, n.Remove(ctx, owner("b")))
	must(t, n.Remove(ctx, owner("b")))
	n.empty(t)
}

// TestRemovalGoesOn: what a Remove that was killed has left is removed by the next one.
func TestRemovalGoesOn(t *testing.T) {
	n, ctx := newNode(t), t.Context()
	masqueraded := []*net.IPNet{cidr(t, "10.1.0.5/24")}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 5}
	inet := &nftables.Table{Family: nftables.TableFamilyINet, Name: "braid"}
	bridge := &nftables.Table{Family: nftables.TableFamilyBridge, Name: "braid"}
	set := func(c *nftables.Conn, table *nftables.Table, name string) *nftables.Set {
		s, err := c.GetSetByName(table, name)
		must(t, err)
		return s
	}
	for what, leave := range map[string]func(*nftables.Conn){
		"the table of masquerading": func(c *nftables.Conn) {
			c.FlushTable(inet)
			must(t, c.Flush())
			c.DelSet(set(c, inet, "masquerade/blue/10.1.0.0/24"))
		},
		"the rule of the spoof check": func(c *nftables.Conn) {
			c.FlushSet(set(c, bridge, "ports"))
			c.FlushSet(set(c, bridge, "allowed"))
		},
		"the table of the spoof check": func(c *nftables.Conn) {
			ports, allowed := set(c, bridge, "ports"), set(c, bridge, "allowed")
			c.FlushTable(bridge)
			c.DelSet(ports)
			c.DelSet(allowed)
		},
	} {
		must(t, n.AddMasquerade(ctx, owner("a"), masqueraded))
		must(t, n.AddSpoofCheck(ctx, owner("a"), "veth0", mac))
		c := n.conn(t)
		leave(c)
		must(t, c.Flush())
		must(t, n.Remove(ctx, owner("a")))
		t.Log(what)
		n.empty(t)
	}
}

// An address that was given to another container belongs to that one; a late DEL of the first must not take it away.
func TestMasqueradeBelongsToTheLastOwner(t *testing.T) {
	n, ctx := newNode(t), t.Context()
	addr := []*net.IPNet{cidr(t, "10.1.0.5/24")}
	must(t, n.AddMasquerade(ctx, owner("a"), addr))
	must(t, n.AddMasquerade(ctx, owner("b"), addr))
	must(t, n.Remove(ctx, owner("a")))
	must(t, n.CheckMasquerade(ctx, owner("b"), addr))
	must(t, n.Remove(ctx, owner("b")))
	n.empty(t)
}

func TestNetworksMayHaveTheSameAddresses(t *testing.T) {
	n, ctx := newNode(t), t.Context()
	addr := []*net.IPNet{cidr(t, "10.1.0.5/24")}
	red := nft.Owner{Network: "red", ContainerID: "a", IfName: "net1"}
	must(t, n.AddMasquerade(ctx, owner("a"), addr))
	must(t, n.AddMasquerade(ctx, red, addr))
	must(t, n.Remove(ctx, red))
	must(t, n.CheckMasquerade(ctx, owner("a"), addr))
}

// outside builds pod -- node -- outside, with the node routing, and no route back from the outside to the pod.
func outside(t *testing.T) (n node, pod, beyond *nettest.NS) {
	t.Helper()
	n, pod, beyond = newNode(t), nettest.NewNS(t), nettest.NewNS(t)
	plug(t, n.ns, "pod0", pod, "eth0")
	plug(t, n.ns, "out0", beyond, "eth0")
	n.ns.Address(t, "pod0", "10.1.0.1/24", "2001:db8:1::1/64")
	n.ns.Address(t, "out0", "192.0.2.1/24", "2001:db8:2::1/64")
	pod.Address(t, "eth0", "10.1.0.5/24", "2001:db8:1::5/64")
	beyond.Address(t, "eth0", "192.0.2.9/24", "2001:db8:2::9/64")
	for _, gw := range []string{"10.1.0.1", "2001:db8:1::1"} {
		must(t, pod.Handle().RouteAdd(&netlink.Route{Gw: net.ParseIP(gw)}))
	}
	n.ns.Do(t, func() {
		must(t, os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0))
		must(t, os.WriteFile("/proc/sys/net/ipv6/conf/all/forwarding", []byte("1"), 0))
	})
	return n, pod, beyond
}

func plug(t *testing.T, a *nettest.NS, nameA string, b *nettest.NS, nameB string) {
	t.Helper()
	fd, err := os.Open(b.Path())
	must(t, err)
	defer fd.Close()
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: nameB, PeerNamespace: netlink.NsFd(fd.Fd())}
	veth.Name = nameA
	must(t, a.Handle().LinkAdd(veth))
	must(t, a.Handle().LinkSetUp(veth))
	must(t, b.Handle().LinkSetUp(b.Link(t, nameB)))
}

func TestMasqueradeMovesPackets(t *testing.T) {
	n, pod, beyond := outside(t)
	addrs := []*net.IPNet{cidr(t, "10.1.0.5/24"), cidr(t, "2001:db8:1::5/64")}
	for _, to := range []string{"192.0.2.9", "2001:db8:2::9"} {
		nettest.NoReach(t, pod, beyond, to)
	}
	must(t, n.AddMasquerade(t.Context(), owner("a"), addrs))
	for _, to := range []string{"192.0.2.9", "2001:db8:2::9"} {
		nettest.Reach(t, pod, beyond, to)
	}
	must(t, n.Remove(t.Context(), owner("a")))
	for _, to := range []string{"192.0.2.9", "2001:db8:2::9"} {
		nettest.NoReach(t, pod, beyond, to)
	}
}

// TestRemoveOfNothing: where there are no tables nobody waits for those who change any; where there is one, of either family, it has to
// be looked into.
func TestRemoveOfNothing(t *testing.T) {
	n, ctx := newNode(t), t.Context()
	opened, err := netdev.Open(n.ns.Path())
	must(t, err)
	defer opened.Close()
	removed := func() error {
		t.Helper()
		unlock, err := opened.LockExclusive(ctx)
		must(t, err)
		defer unlock()
		late, cancel := context.WithCancel(ctx)
		cancel()
		return errors.Join(n.Remove(late, owner("a")), n.GC(late, "blue", nil))
	}
	must(t, removed())
	for _, add := range []func() error{
		func() error { return n.AddMasquerade(ctx, owner("a"), []*net.IPNet{cidr(t, "10.1.0.5/24")}) },
		func() error { return n.AddSpoofCheck(ctx, owner("a"), "vetha", net.HardwareAddr{2, 0, 0, 0, 0, 1}) },
	} {
		must(t, add())
		if err := removed(); !errors.Is(err, context.Canceled) {
			t.Errorf("error = %v, want that the lock was waited for", err)
		}
		must(t, n.Remove(ctx, owner("a")))
		must(t, removed())
	}
	n.empty(t)
}

func TestSpoofCheck(t *testing.T) {
	n, ctx := newNode(t), t.Context()
	mac, other := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	must(t, n.AddSpoofCheck(ctx, owner("a"), "vethaaaaaaaaaaa", mac))
	must(t, n.AddSpoofCheck(ctx, owner("b"), "vethb", other))
	must(t, n.CheckSpoofCheck(ctx, owner("a"), "vethaaaaaaaaaaa", mac))
	if n.CheckSpoofCheck(ctx, owner("a"), "vethaaaaaaaaaaa", other) == nil {
		t.Error("the check passes for another MAC address")
	}
	// A retry with a new random address.
	must(t, n.AddSpoofCheck(ctx, owner("a"), "vethaaaaaaaaaaa", other))
	must(t, n.CheckSpoofCheck(ctx, owner("a"), "vethaaaaaaaaaaa", other))
	if n.CheckSpoofCheck(ctx, owner("a"), "vethaaaaaaaaaaa", mac) == nil {
		t.Error("the earlier address is still allowed")
	}
	must(t, n.Remove(ctx, owner("a")))
	must(t, n.CheckSpoofCheck(ctx, owner("b"), "vethb", other))
	must(t, n.Remove(ctx, owner("b")))
	n.empty(t)
}

func TestGC(t *testing.T) {
	n, ctx := newNode(t), t.Context()
	red := nft.Owner{Network: "red", ContainerID: "a", IfName: "net1"}
	for i, o := range []nft.Owner{owner("a"), owner("b"), red} {
		must(t, n.AddMasquerade(ctx, o, []*net.IPNet{cidr(t, fmt.Sprintf("10.1.0.%d/24", i+1))}))
		must(t, n.AddSpoofCheck(ctx, o, fmt.Sprintf("veth%d", i), net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}))
	}
	must(t, n.GC(ctx, "blue", []types.GCAttachment{{ContainerID: "b", IfName: "net1"}, {ContainerID: "a", IfName: "net2"}}))
	if n.CheckMasquerade(ctx, owner("a"), []*net.IPNet{cidr(t, "10.1.0.1/24")}) == nil {
		t.Error("the stale attachment is masqueraded")
	}
	must(t, n.CheckMasquerade(ctx, owner("b"), []*net.IPNet{cidr(t, "10.1.0.2/24")}))
	must(t, n.CheckSpoofCheck(ctx, owner("b"), "veth1", net.HardwareAddr{2, 0, 0, 0, 0, 1}))
	must(t, n.CheckMasquerade(ctx, red, []*net.IPNet{cidr(t, "10.1.0.3/24")}))
	must(t, n.GC(ctx, "blue", nil))
	must(t, n.GC(ctx, "red", nil))
	n.empty(t)
}

// Names as long as a file name may be.
func TestLongNames(t *testing.T) {
	n, ctx := newNode(t), t.Context()
	long := strings.Repeat("x", 250)
	var owners []nft.Owner
	for _, end := range []string{"1", "2"} {
		owners = append(owners,
			nft.Owner{Network: long + end, ContainerID: "c", IfName: "net1"},
			nft.Owner{Network: long, ContainerID: long + end, IfName: "net1"})
	}
	addr := []*net.IPNet{cidr(t, "2001:db8:1111:2222:3333:4444:5555:6666/127")}
	for _, o := range owners[:1] {
		must(t, n.AddMasquerade(ctx, o, addr))
	}
	for _, o := range owners[1:] {
		if n.CheckMasquerade(ctx, o, addr) == nil {
			t.Errorf("%s is taken for %s", o, owners[0])
		}
		must(t, n.Remove(ctx, o))
	}
	must(t, n.CheckMasquerade(ctx, owners[0], addr))
	must(t, n.GC(ctx, owners[0].Network, []types.GCAttachment{{ContainerID: "c", IfName: "net1"}}))
	must(t, n.CheckMasquerade(ctx, owners[0], addr))
	must(t, n.Remove(ctx, owners[0]))
	n.empty(t)
}

func TestForeignRulesStay(t *testing.T) {
	n, ctx := newNode(t), t.Context()
	c := n.conn(t)
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "braid"})
	chain := c.AddChain(&nftables.Chain{Name: "mine", Table: table})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain})
	must(t, c.Flush())

	must(t, n.AddMasquerade(ctx, owner("a"), []*net.IPNet{cidr(t, "10.1.0.5/24")}))
	must(t, n.Remove(ctx, owner("a")))
	rules, err := c.GetRules(table, chain)
	if err != nil || len(rules) != 1 {
		t.Errorf("rules of somebody else: %v, %v; want one", rules, err)
	}
}

// The rule is what makes the elements count: without it CHECK fails, and the next ADD puts it back.
func TestRuleIsPutBack(t *testing.T) {
	n, ctx := newNode(t), t.Context()
	addr := []*net.IPNet{cidr(t, "10.1.0.5/24")}
	must(t, n.AddMasquerade(ctx, owner("a"), addr))
	c := n.conn(t)
	c.FlushTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "braid"})
	must(t, c.Flush())
	if n.CheckMasquerade(ctx, owner("a"), addr) == nil {
		t.Error("the check passes without the rule")
	}
	must(t, n.AddMasquerade(ctx, owner("b"), []*net.IPNet{cidr(t, "10.1.0.6/24")}))
	must(t, n.CheckMasquerade(ctx, owner("a"), addr))
}

func TestParallel(t *testing.T) {
	n, ctx := newNode(t), t.Context()
	errs := make([]error, 20)
	for range 3 {
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				o, addr := owner(fmt.Sprint(i)), []*net.IPNet{{IP: net.IPv4(10, 1, 0, byte(i)), Mask: net.CIDRMask(24, 32)}}
				if errs[i] = n.AddMasquerade(ctx, o, addr); errs[i] == nil {
					errs[i] = n.CheckMasquerade(ctx, o, addr)
				}
				if err := n.Remove(ctx, o); err != nil {
					errs[i] = err
				}
			})
		}
		wg.Wait()
		if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
			t.Fatal(errs[i])
		}
		n.empty(t)
	}
}

func TestAvailable(t *testing.T) { must(t, newNode(t).Available(t.Context())) }

// What the kernel has can be listed by the nft tool, and be read by an operator.
func TestNftTool(t *testing.T) {
	tool, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("the nft tool is not installed")
	}
	n, ctx := newNode(t), t.Context()
	must(t, n.AddMasquerade(ctx, owner("a"), []*net.IPNet{cidr(t, "10.1.0.5/24"), cidr(t, "2001:db8::5/64")}))
	must(t, n.AddSpoofCheck(ctx, owner("a"), "veth1", net.HardwareAddr{2, 0, 0, 0, 0, 1}))
	var out []byte
	n.ns.Do(t, func() { out, err = exec.Command(tool, "list", "ruleset").CombinedOutput() })
	must(t, err)
	for _, want := range []string{
		`ip saddr @masquerade/blue/10.1.0.0/24 ip daddr != 10.1.0.0/24 ip daddr != 224.0.0.0/4 masquerade`,
		`ip6 saddr @masquerade/blue/2001_db8__/64 ip6 daddr != 2001:db8::/64 ip6 daddr != ff00::/8 masquerade`,
		`10.1.0.5 comment "blue:a:net1"`,
		`iifname @ports iifname . ether saddr != @allowed drop`,
		`"veth1" . 02:00:00:00:00:01`,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// A pod more must not cost more when there are many.
func BenchmarkMasquerade(b *testing.B) {
	for _, pods := range []int{0, 1000, 10000} {
		b.Run(fmt.Sprintf("%d pods", pods), func(b *testing.B) {
			n := newNode(b)
			ip := func(i int) []*net.IPNet {
				return []*net.IPNet{{IP: net.IPv4(10, 1, byte(i>>8), byte(i)), Mask: net.CIDRMask(16, 32)}}
			}
			for i := range pods {
				must(b, n.AddMasquerade(b.Context(), owner(fmt.Sprint(i)), ip(i)))
			}
			for i := pods; b.Loop(); i++ {
				must(b, n.AddMasquerade(b.Context(), owner("new"), ip(i)))
			}
		})
	}
}

func BenchmarkRemove(b *testing.B) {
	for _, pods := range []int{1, 1000, 10000} {
		b.Run(fmt.Sprintf("%d pods", pods), func(b *testing.B) {
			n := newNode(b)
			for i := range pods {
				must(b, n.AddMasquerade(b.Context(), owner(fmt.Sprint(i)), []*net.IPNet{{IP: net.IPv4(10, 1, byte(i>>8), byte(i)), Mask: net.CIDRMask(16, 32)}}))
			}
			for b.Loop() {
				must(b, n.Remove(b.Context(), owner("none")))
			}
		})
	}
}

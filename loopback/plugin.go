// Package loopback is the CNI plugin that sets the lo interface of a pod up. It has no keys of its own; see README.md.
package loopback

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/netdev"
)

// The only interface that this plugin serves, whatever CNI_IFNAME says.
const lo = "lo"

// Plugin is the loopback plugin. The zero value is ready to use.
type Plugin struct{}

var _ cni.Plugin = Plugin{}

// Add sets lo up and returns its addresses, or prevResult as it came if there is one.
func (Plugin) Add(_ context.Context, req *cni.Request) (*types100.Result, error) {
	prev, err := req.PrevResult()
	if err != nil {
		return nil, err
	}
	ns, err := netdev.Open(req.Netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	link, err := ns.Link(lo)
	if err != nil {
		return nil, err
	}
	if err := ns.Handle().LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set lo up: %w", err)
	}
	res, err := result(ns, link)
	if err != nil {
		return nil, err
	}
	// "it MUST handle `prevResult` by either passing it through, or modifying it appropriately"
	if prev != nil {
		return prev, nil
	}
	return res, nil
}

// result has the first address of each family. Others than loopback addresses mean that this is no pod's namespace.
func result(ns *netdev.Namespace, link netlink.Link) (*types100.Result, error) {
	res := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{{
			Name: lo, Mac: net.HardwareAddr(make([]byte, 6)).String(), Mtu: link.Attrs().MTU, Sandbox: ns.Path(),
		}},
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		addrs, err := netdev.Dump(func() ([]netlink.Addr, error) { return ns.Handle().AddrList(link, family) })
		if err != nil {
			return nil, fmt.Errorf("list the addresses of lo: %w", err)
		}
		for i, a := range addrs {
			if !a.IP.IsLoopback() {
				return nil, fmt.Errorf("lo has the address %s, which is no loopback address", a.IPNet)
			}
			if i == 0 {
				res.IPs = append(res.IPs, &types100.IPConfig{Interface: types100.Int(0), Address: *a.IPNet})
			}
		}
	}
	return res, nil
}

// Del sets lo down.
func (Plugin) Del(_ context.Context, req *cni.Request) error {
	ns, err := netdev.Open(req.Netns)
	if errors.Is(err, netdev.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	link, err := ns.Link(lo)
	if err != nil {
		return err
	}
	if err := ns.Handle().LinkSetDown(link); err != nil {
		return fmt.Errorf("set lo down: %w", err)
	}
	return nil
}

// Check fails if lo is down.
func (Plugin) Check(_ context.Context, req *cni.Request) error {
	prev, err := req.PrevResult()
	if err != nil {
		return err
	}
	// "The plugin must consult the `prevResult` to determine the expected interfaces and addresses."
	if prev == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "missing prevResult", "")
	}
	ns, err := netdev.Open(req.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	link, err := ns.Link(lo)
	if err != nil {
		return err
	}
	if link.Attrs().Flags&net.FlagUp == 0 {
		return errors.New("lo is down")
	}
	return nil
}

// GC does nothing: the interface goes with its namespace.
func (Plugin) GC(context.Context, *cni.Request) error { return nil }

// Status says that lo can always be set up.
func (Plugin) Status(context.Context, *cni.Request) error { return nil }

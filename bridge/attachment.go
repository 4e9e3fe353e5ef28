package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/undo"
	"github.com/braid-cni/braid/ipam"
	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/netdev/stacked"
	"github.com/braid-cni/braid/nft"
)

const carrierPatience = 10 * time.Second

// An attachment is what one request is about.
type attachment struct {
	*config
	req   *cni.Request
	owner nft.Owner
	ipam  ipam.Delegate
	prev  *types100.Result // nil if there is none
	node  *netdev.Namespace
	pod   *netdev.Namespace
	rules nft.Rules

	// Of an ADD only.
	undo    undo.Stack
	mac     net.HardwareAddr // nil leaves it to the kernel
	bridge  *netlink.Bridge
	port    netlink.Link
	inPod   netlink.Link     // the pod's interface; nil if it has none
	adopted bool             // an earlier plugin of the chain has made the port
	result  *types100.Result // of this plugin; indexes count the interfaces of prevResult as well
	inside  int              // index of the pod's interface in the result, or -1
}

// open reads a request and opens the namespaces. The caller closes.
func (p Plugin) open(req *cni.Request) (a *attachment, err error) {
	conf, err := cni.DecodeCommon(req, parse)
	if err != nil {
		return nil, err
	}
	a = &attachment{config: conf, req: req, owner: nft.Owner{Network: conf.Network, ContainerID: req.ContainerID, IfName: req.IfName}}
	if a.ipam, err = ipam.For(req, p.Find); err != nil {
		return nil, err
	}
	if a.prev, err = req.PrevResult(); err != nil {
		return nil, err
	}
	if a.pod, err = netdev.Open(req.Netns); err != nil {
		return nil, err
	}
	if a.node, err = netdev.Host(); err != nil {
		return nil, errors.Join(err, a.pod.Close())
	}
	a.rules = nft.In(a.node)
	return a, nil
}

func (a *attachment) close() {
	_ = a.pod.Close()
	_ = a.node.Close()
}

// onError has a step undone if the ADD fails, however little time it has left itself.
func (a *attachment) onError(ctx context.Context, what string, do func(context.Context) error) {
	a.undo.Add(what, func() error {
		ctx, cancel := undo.Time(ctx, undo.Limit)
		defer cancel()
		return do(ctx)
	})
}

// connect makes the pod's interface and the port, with all that is to be in effect before the first packet, and sets
// both up: a DHCP client needs them. The pod's end is up from the start, and has no carrier until the port is.
func (a *attachment) connect(ctx context.Context) error {
	if err := a.plug(ctx); err != nil {
		return err
	}
	if err := a.setPort(a.bridge, a.port); err != nil {
		return err
	}
	a.describe()
	if err := a.checkSpoofing(ctx); err != nil {
		return err
	}
	return a.node.SetUp(a.port)
}

// plug connects the port to the bridge, both of which it makes if need be.
func (a *attachment) plug(ctx context.Context) (err error) {
	if a.port, err = a.findAdopted(a.node, a.prev); err != nil {
		return err
	}
	a.adopted = a.port != nil
	a.onError(ctx, "create bridge "+a.Bridge, func(ctx context.Context) error { return a.discardBridge(ctx, a.node) })
	a.onError(ctx, "create the gateway of the VLAN", func(ctx context.Context) error { return a.tidyVLANGateway(ctx, a.node) })
	name := hostName(a.owner.String(), 0)
	br, inTheWay, leave, err := a.enterBridge(ctx, a.node, name)
	if err != nil {
		return err
	}
	defer leave()
	a.bridge = br
	if a.adopted {
		return a.adopt()
	}
	a.onError(ctx, "create "+a.req.IfName, func(context.Context) error {
		_, err := deletePort(a.node, a.owner)
		return errors.Join(err, a.forgetSourceRouting(a.req))
	})
	return a.createPort(name, inTheWay == nil)
}

// adopt connects a port that is there, and marks it, if it can, as one that DEL has to disconnect.
func (a *attachment) adopt() (err error) {
	if indexOf(a.prev, a.req.IfName) >= 0 {
		if a.inPod, err = a.pod.Link(a.req.IfName); err != nil {
			return err
		}
	}
	if a.port.Attrs().MasterIndex == a.bridge.Index {
		return nil
	}
	mark := a.port.Attrs().Alias == ""
	a.undo.Add("connect "+a.port.Attrs().Name, func() error { return disconnect(a.node, a.port, mark) })
	if mark {
		if err := a.node.Handle().LinkSetAlias(a.port, adoptedPrefix+a.owner.String()); err != nil {
			return fmt.Errorf("mark %s: %w", a.port.Attrs().Name, err)
		}
	}
	if err := a.connectPort(a.bridge, a.port); err != nil {
		return err
	}
	a.bridge, err = a.findBridge(a.node) // which may have got another MTU and MAC address with the port
	return err
}

// checkSpoofing has packets dropped that the pod sends with another MAC address than its own.
func (a *attachment) checkSpoofing(ctx context.Context) error {
	if !a.MACSpoofCheck {
		return nil
	}
	mac, err := a.podMAC(a.result)
	if err != nil {
		return err
	}
	a.onError(ctx, "MAC spoof check", func(ctx context.Context) error { return a.rules.Remove(ctx, a.owner) })
	return a.rules.AddSpoofCheck(ctx, a.owner, a.port.Attrs().Name, mac)
}

// podMAC returns the MAC address that the pod may send with.
func (a *attachment) podMAC(res *types100.Result) (net.HardwareAddr, error) {
	if i := indexOf(res, a.req.IfName); i >= 0 {
		if mac, err := netdev.ParseMAC(res.Interfaces[i].Mac); err == nil {
			return mac, nil
		}
	}
	if a.mac != nil {
		return a.mac, nil
	}
	return nil, stacked.Invalid("macspoofchk", "found true, but prevResult does not tell the MAC address of %s, and none is requested", a.req.IfName)
}

// address asks for addresses, or takes those that an earlier plugin has given to the interface that it has made.
func (a *attachment) address(ctx context.Context) error {
	if a.ipam.Configured() {
		if a.inside < 0 {
			return stacked.Invalid("ipam", "found type %q, but prevResult has no interface %s that could have an address", a.IPAM.Type, a.req.IfName)
		}
		res, err := a.ipam.AddUnique(ctx, a.req, a.taken)
		if err != nil {
			return err
		}
		a.onError(ctx, "IPAM DEL", func(ctx context.Context) error { return a.ipam.Del(ctx, a.req) })
		a.result.IPs, a.result.Routes, a.result.DNS = res.IPs, res.Routes, res.DNS
	} else if a.adopted {
		a.result.IPs = own(a.prev, a.req.IfName)
	}
	for i, ip := range a.result.IPs {
		ip = ip.Copy()
		ip.Interface = types100.Int(a.inside)
		a.result.IPs[i] = ip
	}
	if !a.DNS.IsEmpty() {
		a.result.DNS = *a.DNS.Copy()
	}
	return a.chooseGateways(a.result)
}

// taken tells which addresses others have that the bridge connects.
func (a *attachment) taken(ctx context.Context, addrs []netip.Addr) (map[netip.Addr]net.HardwareAddr, error) {
	if !a.Probe.Enabled() {
		return nil, nil
	}
	if err := a.waitPort(ctx); err != nil {
		return nil, err
	}
	return a.pod.Taken(ctx, a.req.IfName, addrs, a.Probe)
}

// waitPort returns when packets of the pod can pass. The carrier of a port that was adopted is its plugin's affair.
func (a *attachment) waitPort(ctx context.Context) error {
	if a.adopted || netdev.Operational(a.port) && netdev.Operational(a.inPod) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, carrierPatience)
	defer cancel()
	if err := a.node.WaitCarrier(ctx, a.port.Attrs().Name); err != nil {
		return err
	}
	return a.pod.WaitCarrier(ctx, a.req.IfName)
}

// configure gives the pod's interface its addresses and routes. Packets must be able to pass
// before: the probes of duplicate address detection are among the first.
func (a *attachment) configure(ctx context.Context) error {
	if a.inside < 0 || a.NoContainerInterface {
		return nil
	}
	if err := a.waitPort(ctx); err != nil {
		return err
	}
	return a.pod.Configure(ctx, a.inPod, a.result, a.options())
}

func (a *attachment) options() netdev.Options {
	return netdev.Options{Detection: a.Detection.After(a.Probe), SourceRouting: a.SourceRouting}
}

// masquerade lets the pod reach what has no route to it.
func (a *attachment) masquerade(ctx context.Context) error {
	if !a.IPMasq || len(a.result.IPs) == 0 {
		return nil
	}
	a.onError(ctx, "masquerade", func(ctx context.Context) error { return a.rules.Remove(ctx, a.owner) })
	return a.rules.AddMasquerade(ctx, a.owner, subnets(a.result.IPs))
}

// subnets returns addresses with their masks.
func subnets(ips []*types100.IPConfig) (nets []*net.IPNet) {
	for _, ip := range ips {
		nets = append(nets, &ip.Address)
	}
	return nets
}

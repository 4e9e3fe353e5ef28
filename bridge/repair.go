package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/netdev/stacked"
)

var _ cni.Repairer = Plugin{}

// Broken implements [cni.Repairer]: it is what Check finds wrong on the node.
func (p Plugin) Broken(ctx context.Context, req *cni.Request) error {
	a, err := p.openMade(req)
	if err != nil {
		return err
	}
	defer a.close()
	return a.checkNode(ctx)
}

// Repair implements [cni.Repairer]: the bridge, with the MAC address that pods know, the connection of the port with its
// properties, the spoof check, masquerade and the gateway addresses. Interfaces are not made again: if the port is gone,
// so is the pod's interface, and with it all that the pod has done with it.
func (p Plugin) Repair(ctx context.Context, req *cni.Request) error {
	a, err := p.openMade(req)
	if err != nil {
		return err
	}
	defer a.close()
	res := *a.prev
	res.Interfaces, res.IPs = slices.Clone(res.Interfaces), own(a.prev, a.req.IfName)
	a.result, a.inside = &res, indexOf(a.prev, a.req.IfName)
	if err := a.reconnect(ctx); err != nil {
		return err
	}
	return errors.Join(
		a.checkSpoofing(ctx),
		a.masquerade(ctx),
		a.serveGateways(ctx),
		keepBridge(a.node, a.bridge),
	)
}

// openMade opens a request about an attachment that has been made.
func (p Plugin) openMade(req *cni.Request) (*attachment, error) {
	a, err := p.open(req)
	if err != nil {
		return nil, err
	}
	// "The plugin must consult the `prevResult` to determine the expected interfaces and addresses."
	if a.prev == nil {
		err = stacked.Invalid("prevResult", "it is missing")
	} else {
		a.mac, err = netdev.RequestedMAC(req)
	}
	if err != nil {
		a.close()
		return nil, err
	}
	return a, nil
}

// reconnect has the port connected to the bridge as it was.
func (a *attachment) reconnect(ctx context.Context) (err error) {
	if a.port, err = a.findMade(); err != nil {
		return err
	}
	br, _, leave, err := a.enterBridge(ctx, a.node, a.port.Attrs().Name)
	if err != nil {
		return err
	}
	defer leave()
	a.bridge = br
	if err := a.restoreMAC(); err != nil {
		return err
	}
	if a.MTU != 0 && a.port.Attrs().MTU != a.MTU && !a.adopted {
		if err := a.node.Handle().LinkSetMTU(a.port, a.MTU); err != nil {
			return fmt.Errorf("set the MTU of %s: %w", a.port.Attrs().Name, err)
		}
	}
	if err := a.node.SetUp(a.port); err != nil {
		return err
	}
	if a.isConnected() {
		return nil
	}
	// Anew, whatever is wrong with it: a port that is connected has the bridge's defaults, and nothing of before.
	if err := errors.Join(disconnect(a.node, a.port, false), a.connectPort(br, a.port), a.setPort(br, a.port)); err != nil {
		return err
	}
	if a.inside < 0 || a.NoContainerInterface {
		return nil
	}
	if link, err := a.pod.Link(a.req.IfName); err == nil {
		_ = a.pod.Announce(link, a.prev) // bridges beyond may have learned otherwise; the pod may not have the address any more
	}
	return nil
}

// findMade returns the port of the attachment.
func (a *attachment) findMade() (netlink.Link, error) {
	port, err := findPort(a.node, a.owner)
	if !errors.Is(err, netdev.ErrNotFound) {
		return port, err
	}
	if port, err = a.findAdopted(a.node, a.prev); err == nil && port == nil {
		err = fmt.Errorf("the port of bridge %s is missing, and with it the pod's interface %s: only a new pod gets another", a.Bridge, a.req.IfName)
	}
	a.adopted = port != nil
	return port, err
}

// isConnected tells whether the port is connected as setPort leaves it.
func (a *attachment) isConnected() bool {
	if a.port.Attrs().MasterIndex != a.bridge.Index || a.checkProperties(a.port) != nil {
		return false
	}
	return !a.usesVLANs() || a.checkVLANs(a.node, a.bridge, a.port) == nil
}

// restoreMAC gives the bridge the MAC address that the pod knows, if it is that of a bridge which the plugin has made, or if
// nobody can know it by the one that it has: a bridge without a port, which somebody has made in the place of another.
func (a *attachment) restoreMAC() error {
	want := a.knownMAC()
	if want == nil || a.checkMAC(a.bridge) == nil {
		return nil
	}
	made, err := ownMAC(a.node, a.Bridge)
	if err != nil {
		return err
	}
	if used, err := hasPorts(a.node, a.bridge); err != nil || used && !bytes.Equal(made, want) {
		return err
	}
	if err := a.node.Handle().LinkSetHardwareAddr(a.bridge, want); err != nil {
		return fmt.Errorf("set the MAC address of bridge %s: %w", a.Bridge, err)
	}
	a.bridge, err = a.findBridge(a.node)
	return err
}

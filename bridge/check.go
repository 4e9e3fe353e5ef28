package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/netdev"
)

// Check implements [cni.Plugin]. It returns everything that is not as prevResult and the configuration say.
func (p Plugin) Check(ctx context.Context, req *cni.Request) error {
	a, err := p.openMade(req)
	if err != nil {
		return err
	}
	defer a.close()
	return errors.Join(a.checkNode(ctx), a.checkPod(), a.ipam.Check(ctx, req))
}

// checkNode checks what the attachment has on the node.
func (a *attachment) checkNode(ctx context.Context) error {
	br, err := a.findBridge(a.node)
	if err != nil {
		return err
	}
	errs := []error{a.checkBridge(br), a.checkMAC(br)}
	ips := own(a.prev, a.req.IfName)
	errs = append(errs, a.checkGateways(a.node, br, ips))
	if a.IPMasq && len(ips) > 0 {
		errs = append(errs, a.rules.CheckMasquerade(ctx, a.owner, subnets(ips)))
	}
	port, err := findPort(a.node, a.owner)
	if errors.Is(err, netdev.ErrNotFound) {
		var adopted netlink.Link
		if adopted, err = a.findAdopted(a.node, a.prev); adopted != nil {
			port, a.adopted = adopted, true
		} else if err == nil {
			err = fmt.Errorf("the port of bridge %s is missing", br.Name)
		}
	}
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, a.checkPort(ctx, br, port))...)
}

// checkMAC compares the address of a bridge that is the gateway with that of the result: pods have it in their neighbour
// tables. One that is not, and that somebody else has made, may change it.
func (a *attachment) checkMAC(br *netlink.Bridge) error {
	if !a.IsGateway || a.gateway(br) != br.Name {
		return nil
	}
	if want := a.knownMAC(); want != nil && !bytes.Equal(want, br.HardwareAddr) {
		return fmt.Errorf("bridge %s has MAC %s, want %s", br.Name, br.HardwareAddr, want)
	}
	return nil
}

// knownMAC is the address of the bridge that the result tells, or nil.
func (a *attachment) knownMAC() net.HardwareAddr {
	for _, i := range a.prev.Interfaces {
		if i.Name == a.Bridge && i.Sandbox == "" {
			if mac, err := net.ParseMAC(i.Mac); err == nil {
				return mac
			}
		}
	}
	return nil
}

func (a *attachment) checkPort(ctx context.Context, br *netlink.Bridge, port netlink.Link) error {
	attrs := port.Attrs()
	if attrs.MasterIndex != br.Index {
		return fmt.Errorf("port %s is not connected to bridge %s", attrs.Name, br.Name)
	}
	errs := []error{a.checkProperties(port), a.checkPair(port)}
	if !isUp(port) {
		errs = append(errs, fmt.Errorf("port %s is down", attrs.Name))
	}
	if a.MTU != 0 && attrs.MTU != a.MTU && !a.adopted {
		errs = append(errs, fmt.Errorf("port %s has MTU %d, want %d", attrs.Name, attrs.MTU, a.MTU))
	}
	if a.usesVLANs() {
		errs = append(errs, a.checkVLANs(a.node, br, port))
	}
	if a.MACSpoofCheck {
		mac, err := a.podMAC(a.prev)
		if err == nil {
			err = a.rules.CheckSpoofCheck(ctx, a.owner, attrs.Name, mac)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// checkProperties checks what setPort sets.
func (a *attachment) checkProperties(port netlink.Link) error {
	name := port.Attrs().Name
	found, err := netdev.Dump(func() ([]netlink.Protinfo, error) {
		info, err := a.node.Handle().LinkGetProtinfo(port)
		if err != nil {
			// It is looked for in a list of all ports of the node. That leaves one out if another goes while it is made, and
			// the kernel does not mark this one.
			err = errors.Join(err, netlink.ErrDumpInterrupted)
		}
		return []netlink.Protinfo{info}, err
	})
	if err != nil {
		return fmt.Errorf("look up the properties of port %s: %w", name, err)
	}
	var errs []error
	if found[0].Hairpin != a.Hairpin {
		errs = append(errs, fmt.Errorf("port %s has hairpin mode %t, want %t", name, found[0].Hairpin, a.Hairpin))
	}
	if found[0].Isolated != a.PortIsolation {
		errs = append(errs, fmt.Errorf("port %s has isolation %t, want %t", name, found[0].Isolated, a.PortIsolation))
	}
	return errors.Join(errs...)
}

// checkPair checks that the port and the pod's interface are the two ends of one pair.
func (a *attachment) checkPair(port netlink.Link) error {
	if a.adopted {
		return nil
	}
	inside, err := a.pod.Link(a.req.IfName)
	if err != nil {
		return nil // checkPod says so
	}
	if !isPair(inside, port) {
		return fmt.Errorf("interface %s is not the other end of port %s", a.req.IfName, port.Attrs().Name)
	}
	return nil
}

// checkPod checks the pod's interface.
func (a *attachment) checkPod() error {
	if !a.NoContainerInterface {
		if indexOf(a.prev, a.req.IfName) < 0 && a.adopted {
			return nil // a tap, for instance, has no interface of the pod
		}
		return a.pod.Check(a.req.IfName, a.prev, a.options())
	}
	link, err := a.pod.Link(a.req.IfName)
	if err != nil {
		return err
	}
	inside := a.pod.Interface(link)
	if i := indexOf(a.prev, a.req.IfName); i >= 0 && a.prev.Interfaces[i].Mac != inside.Mac {
		return fmt.Errorf("interface %s has MAC %s, want %s", inside.Name, inside.Mac, a.prev.Interfaces[i].Mac)
	}
	return nil
}

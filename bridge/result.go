package bridge

import (
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/netdev"
)

// describe begins the result: "interfaces: An array of all interfaces created by the attachment, including any
// host-level interfaces".
func (a *attachment) describe() {
	a.result = &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	if a.prev != nil {
		a.result.Interfaces = slices.Clone(a.prev.Interfaces)
	}
	a.result.Interfaces = append(a.result.Interfaces, &types100.Interface{
		Name: a.bridge.Name, Mac: a.bridge.HardwareAddr.String(), Mtu: a.bridge.MTU,
	})
	if a.adopted {
		a.inside = indexOf(a.prev, a.req.IfName)
		return
	}
	ofPort := a.node.Interface(a.port)
	ofPort.Sandbox = ""
	a.result.Interfaces = append(a.result.Interfaces, ofPort, a.pod.Interface(a.inPod))
	a.inside = len(a.result.Interfaces) - 1
}

// indexOf returns the index of the pod's interface in a result, or -1.
func indexOf(res *types100.Result, ifName string) int {
	return slices.IndexFunc(res.Interfaces, func(i *types100.Interface) bool { return i.Name == ifName && i.Sandbox != "" })
}

// own returns the addresses of the pod's interface.
func own(res *types100.Result, ifName string) []*types100.IPConfig {
	ips, err := netdev.AddressesOf(ifName, res)
	if err != nil {
		return nil // those that refer to nothing are not for us
	}
	return ips
}

// merged returns the result with prevResult. The interfaces of that keep their places, and so what refers to them.
//
// "it MUST handle `prevResult` by either passing it through, or modifying it appropriately"
func (a *attachment) merged() *types100.Result {
	if a.prev == nil {
		return a.result
	}
	res := *a.result
	res.IPs = nil
	for _, ip := range a.prev.IPs {
		if taken := a.adopted && a.inside >= 0 && ip.Interface != nil && *ip.Interface == a.inside; !taken || a.ipam.Configured() {
			res.IPs = append(res.IPs, ip)
		}
	}
	res.IPs = append(res.IPs, a.result.IPs...)
	res.Routes = append(slices.Clone(a.prev.Routes), a.result.Routes...)
	if res.DNS.IsEmpty() {
		res.DNS = a.prev.DNS
	}
	return &res
}

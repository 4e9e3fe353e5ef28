package delegate

import (
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
)

// normalize makes a plugin's result one that can be merged: it lists the pod's interface, and every address has the
// index of an interface. Results of CNI 0.1.0 and 0.2.0 have no interfaces at all, and newer ones may leave the index
// out ("Runtimes should gracefully handle this situation", spec-upgrades.md) or have a negative one. An index beyond
// the list is the plugin's error. The mac is that of the pod's interface as the kernel has it.
//
// Without the index a runtime takes the address for one of eth0, and so the secondary network's address for the pod's.
func normalize(res *types100.Result, at cni.Attachment, actual *types100.Interface) (*types100.Result, error) {
	res = clone(res)
	own := podInterface(res)
	if own < 0 {
		own = len(res.Interfaces)
		res.Interfaces = append(res.Interfaces, &types100.Interface{Name: at.IfName, Sandbox: at.Netns})
	}
	if iface := res.Interfaces[own].Copy(); actual != nil && iface.Name == actual.Name {
		iface.Mac = actual.Mac
		if iface.Mtu != 0 {
			iface.Mtu = actual.Mtu
		}
		res.Interfaces[own] = iface
	}
	for i, ip := range res.IPs {
		switch {
		case ip.Interface == nil || *ip.Interface < 0:
			ip.Interface = types100.Int(own)
		case *ip.Interface >= len(res.Interfaces):
			return nil, fmt.Errorf("result is invalid: ips[%d].interface is %d, but it lists %d interfaces", i, *ip.Interface, len(res.Interfaces))
		}
	}
	return res, nil
}

// podInterface returns the index of the interface that stands for an attachment, -1 if a result has none. Network CRD
// specification (5.1.1): "the first sandbox interface of the CNI Result object".
func podInterface(res *types100.Result) int {
	return slices.IndexFunc(res.Interfaces, func(i *types100.Interface) bool { return i.Sandbox != "" })
}

// merge joins results in their order, the first being that of the default network, whose DNS is the pod's.
//
// CNI specification (5): interfaces is "An array of all interfaces created by the attachment, including any host-level
// interfaces". An interface of the host that several attachments share (a bridge) is listed once. One that is called
// like an interface of the pod and has no address is left out: runtimes keep interfaces by name, and would take it for
// the pod's.
func merge(results []*types100.Result) *types100.Result {
	merged := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	inPod := make(map[string]bool)
	for _, res := range results {
		for _, iface := range res.Interfaces {
			if iface.Sandbox != "" {
				inPod[iface.Name] = true
			}
		}
	}
	for n, res := range results {
		res = clone(res)
		index := make([]int, len(res.Interfaces)) // from the result's to the merged one's
		for i, iface := range res.Interfaces {
			index[i] = addInterface(merged, iface, inPod[iface.Name] && iface.Sandbox == "" && !addressed(res, i))
		}
		for _, ip := range res.IPs {
			ip.Interface = types100.Int(index[*ip.Interface])
			merged.IPs = append(merged.IPs, ip)
		}
		for _, route := range res.Routes {
			if !slices.ContainsFunc(merged.Routes, func(r *types.Route) bool { return r.String() == route.String() }) {
				merged.Routes = append(merged.Routes, route)
			}
		}
		if n == 0 {
			merged.DNS = res.DNS
		}
	}
	return merged
}

// addInterface returns the index at which the merged result has the interface; -1 if it is left out.
func addInterface(merged *types100.Result, iface *types100.Interface, leaveOut bool) int {
	if leaveOut {
		return -1
	}
	if iface.Sandbox == "" {
		same := slices.IndexFunc(merged.Interfaces, func(i *types100.Interface) bool { return i.Sandbox == "" && i.Name == iface.Name })
		if same >= 0 {
			return same
		}
	}
	merged.Interfaces = append(merged.Interfaces, iface)
	return len(merged.Interfaces) - 1
}

func addressed(res *types100.Result, iface int) bool {
	return slices.ContainsFunc(res.IPs, func(ip *types100.IPConfig) bool { return *ip.Interface == iface })
}

// clone copies a result as deep as this package changes it.
func clone(res *types100.Result) *types100.Result {
	c := *res
	c.Interfaces = slices.Clone(res.Interfaces)
	c.Routes = slices.Clone(res.Routes)
	c.IPs = make([]*types100.IPConfig, len(res.IPs))
	for i, ip := range res.IPs {
		c.IPs[i] = ip.Copy()
	}
	return &c
}

package stacked

import (
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// adopts tells whether the addresses come from prevResult: no IPAM plugin is configured, and an earlier plugin of the
// chain has found addresses for an interface that it has not made.
func (d *Device) adopts(prev *types100.Result) bool {
	return prev != nil && !d.IPAM.Configured() && len(free(prev)) > 0
}

// free returns the addresses of a result that no interface of the pod has: they refer to none, or to one of the node.
func free(prev *types100.Result) (ips []*types100.IPConfig) {
	for _, ip := range prev.IPs {
		if isFree(prev, ip) {
			ips = append(ips, ip)
		}
	}
	return ips
}

func isFree(prev *types100.Result, ip *types100.IPConfig) bool {
	n := ip.Interface
	return n == nil || *n >= 0 && *n < len(prev.Interfaces) && prev.Interfaces[*n].Sandbox == ""
}

// merge adds what was made to prevResult. The interfaces of that keep their places, and so what refers to them.
//
// "it MUST handle `prevResult` by either passing it through, or modifying it appropriately"
func merge(prev, own *types100.Result, adopted bool) *types100.Result {
	if prev == nil {
		return own
	}
	res := &types100.Result{
		CNIVersion: own.CNIVersion,
		Interfaces: append(slices.Clone(prev.Interfaces), own.Interfaces...),
		DNS:        own.DNS,
	}
	if res.DNS.IsEmpty() {
		res.DNS = prev.DNS
	}
	for _, ip := range prev.IPs {
		if !adopted || !isFree(prev, ip) {
			res.IPs = append(res.IPs, ip)
		}
	}
	for _, ip := range own.IPs {
		ip = ip.Copy()
		ip.Interface = types100.Int(len(prev.Interfaces))
		res.IPs = append(res.IPs, ip)
	}
	res.Routes = slices.Clone(prev.Routes)
	if !adopted {
		res.Routes = append(res.Routes, own.Routes...)
	}
	return res
}

// single returns the only interface that earlier plugins of the chain have made in a namespace: the node's, or the
// pod's (whose path is not empty).
func single(prev *types100.Result, sandbox string) (name string) {
	if prev == nil {
		return ""
	}
	for _, i := range prev.Interfaces {
		if i.Sandbox != sandbox {
			continue
		}
		if name != "" {
			return ""
		}
		name = i.Name
	}
	return name
}

package cni

import (
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// A ResultDocument is the JSON of a result of CNI 1.0.0 and later. The library writes the same, but for the order of keys: it
// encodes a result, decodes that into a map to take empty DNS out, and encodes the map.
type ResultDocument struct {
	CNIVersion string                `json:"cniVersion,omitempty"`
	Interfaces []*types100.Interface `json:"interfaces,omitempty"`
	IPs        []*types100.IPConfig  `json:"ips,omitempty"`
	Routes     []*types.Route        `json:"routes,omitempty"`
	DNS        *types.DNS            `json:"dns,omitempty"`
}

// Document returns the document of a result; nil of nil.
func Document(res *types100.Result) *ResultDocument {
	if res == nil {
		return nil
	}
	d := &ResultDocument{CNIVersion: res.CNIVersion, Interfaces: res.Interfaces, IPs: res.IPs, Routes: res.Routes}
	if !res.DNS.IsEmpty() {
		d.DNS = &res.DNS
	}
	return d
}

package cni

import (
	"net"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// A ResultDocument is the JSON of a result of CNI 1.0.0 and later. The library writes the same, but for the order of keys: it
// encodes a result, decodes that into a map to take empty DNS out, and encodes the map.
type ResultDocument struct {
	CNIVersion string                `json:"cniVersion,omitempty"`
	Interfaces []*types100.Interface `json:"interfaces,omitempty"`
	IPs        []*IPDocument         `json:"ips,omitempty"`
	Routes     []*types.Route        `json:"routes,omitempty"`
	DNS        *types.DNS            `json:"dns,omitempty"`
}

// An IPDocument is the JSON of an IP address of a result. The library encodes each address three times, one in the other.
type IPDocument struct {
	Interface *int   `json:"interface,omitempty"`
	Address   string `json:"address"` // with its prefix length
	Gateway   net.IP `json:"gateway,omitempty"`
}

// Document returns the document of a result; nil of nil.
func Document(res *types100.Result) *ResultDocument {
	if res == nil {
		return nil
	}
	d := &ResultDocument{CNIVersion: res.CNIVersion, Interfaces: res.Interfaces, Routes: res.Routes}
	if len(res.IPs) > 0 {
		d.IPs = make([]*IPDocument, len(res.IPs))
	}
	for i, ip := range res.IPs {
		if ip != nil {
			d.IPs[i] = &IPDocument{ip.Interface, ip.Address.String(), ip.Gateway}
		}
	}
	if !res.DNS.IsEmpty() {
		d.DNS = &res.DNS
	}
	return d
}

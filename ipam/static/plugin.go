// Package static is the IPAM plugin whose addresses are in the configuration, or requested by the pod. README.md is its
// manual.
package static

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
)

// Plugin is the static plugin. It keeps nothing, so DEL and GC have nothing to do.
type Plugin struct{}

var _ cni.Plugin = Plugin{}

// Add implements [cni.Plugin].
func (Plugin) Add(_ context.Context, req *cni.Request) (*types100.Result, error) { return parse(req) }

// Del implements [cni.Plugin].
func (Plugin) Del(context.Context, *cni.Request) error { return nil }

// Check implements [cni.Plugin]: prevResult must have every address of the configuration.
func (Plugin) Check(_ context.Context, req *cni.Request) error {
	want, err := parse(req)
	if err != nil {
		return err
	}
	prev, err := cni.PrevResult(req.Config)
	if err != nil {
		return err
	}
	if prev == nil {
		return invalid("prevResult is missing: CHECK compares the configuration with it")
	}
	for _, ip := range want.IPs {
		same := func(have *types100.IPConfig) bool {
			return have.Address.String() == ip.Address.String() && (ip.Gateway == nil || ip.Gateway.Equal(have.Gateway))
		}
		if !slices.ContainsFunc(prev.IPs, same) {
			return fmt.Errorf("address %s with gateway %s is not in prevResult", ip.Address.String(), ip.Gateway)
		}
	}
	return nil
}

// GC implements [cni.Plugin].
func (Plugin) GC(context.Context, *cni.Request) error { return nil }

// Status implements [cni.Plugin]. Addresses may come with each ADD, so a configuration without any is ready too.
func (Plugin) Status(context.Context, *cni.Request) error { return nil }

type config struct {
	IPAM *struct {
		Addresses []struct {
			Address string `json:"address"`
			Gateway string `json:"gateway"`
		} `json:"addresses"`
		Routes []*types.Route `json:"routes"`
		DNS    types.DNS      `json:"dns"`
	} `json:"ipam"`
	RuntimeConfig struct {
		IPs []string `json:"ips"`
	} `json:"runtimeConfig"`
	Args struct {
		CNI struct {
			IPs []string `json:"ips"`
		} `json:"cni"`
	} `json:"args"`
}

// parse returns the addresses of a configuration as a result. Those of runtimeConfig replace those of args, which
// replace the others; those of CNI_ARGS come in addition to the configured ones. All complaints are joined.
func parse(req *cni.Request) (*types100.Result, error) {
	var c config
	if err := json.Unmarshal(req.Config, &c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("decode static configuration: %v", err), "")
	}
	if c.IPAM == nil {
		return nil, invalid("key \"ipam\" is missing")
	}
	res := &types100.Result{CNIVersion: types100.ImplementedSpecVersion, Routes: c.IPAM.Routes, DNS: c.IPAM.DNS}
	var errs []error
	add := func(key, address, gateway string) {
		ip, err := parseAddress(key, address, gateway)
		res.IPs, errs = append(res.IPs, ip), append(errs, err)
	}
	switch {
	case len(c.RuntimeConfig.IPs) > 0:
		for i, address := range c.RuntimeConfig.IPs {
			add(fmt.Sprintf("runtimeConfig.ips[%d]", i), address, "")
		}
	case len(c.Args.CNI.IPs) > 0:
		for i, address := range c.Args.CNI.IPs {
			add(fmt.Sprintf("args.cni.ips[%d]", i), address, "")
		}
	default:
		for i, a := range c.IPAM.Addresses {
			add(fmt.Sprintf("ipam.addresses[%d].address", i), a.Address, a.Gateway)
		}
		gateways := split(req.Attachment, "GATEWAY")
		for i, address := range split(req.Attachment, "IP") {
			gateway := ""
			if i < len(gateways) {
				gateway = gateways[i]
			}
			add("IP of CNI_ARGS", address, gateway)
		}
	}
	if len(res.IPs) == 0 {
		errs = append(errs, invalid(`no address: want "ipam.addresses", or the request "ips" and "capabilities": {"ips": true}`))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	c.lendGateways(res)
	return res, nil
}

// lendGateways gives requested addresses the gateway of the configured address whose subnet they are in.
func (c *config) lendGateways(res *types100.Result) {
	for _, ip := range res.IPs {
		for _, a := range c.IPAM.Addresses {
			gateway := net.ParseIP(a.Gateway)
			if ip.Gateway == nil && gateway != nil && ip.Address.Contains(gateway) {
				ip.Gateway = gateway
			}
		}
	}
}

// split returns the values of a key of CNI_ARGS.
func split(at cni.Attachment, key string) []string {
	value, ok := at.Arg(key)
	if !ok || value == "" {
		return nil
	}
	return strings.Split(value, ",")
}

func parseAddress(key, address, gateway string) (*types100.IPConfig, error) {
	prefix, err := netip.ParsePrefix(strings.TrimSpace(address))
	if err != nil {
		return nil, invalid("%s is %q: want an address with a prefix length, like 10.1.0.9/16", key, address)
	}
	ip := &types100.IPConfig{Address: net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}}
	if gateway != "" {
		gw, err := netip.ParseAddr(strings.TrimSpace(gateway))
		if err != nil {
			return nil, invalid("gateway of %s is %q: want an address", key, gateway)
		}
		ip.Gateway = gw.AsSlice()
	}
	return ip, nil
}

func invalid(format string, args ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf(format, args...), "")
}

package ipam

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Decode decodes the configuration of an IPAM plugin. A value of the wrong type is an error of code 7 that names the
// key, what is no JSON is one of code 6.
func Decode(config []byte, into any) error {
	err := json.Unmarshal(config, into)
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return invalid("%s is a JSON %s: want a %s", e.Field, e.Value, e.Type)
	}
	if err != nil {
		return types.NewError(types.ErrDecodingFailure, fmt.Sprintf("decode configuration: %v", err), "")
	}
	return nil
}

// maxRoutes bounds the routes of a configuration: each is a call of the kernel.
const maxRoutes = 1024

// ParseRoutes decodes the key "ipam.routes", which every IPAM plugin has, from its elements. All complaints are joined;
// each names its key and has code 7.
func ParseRoutes(elements []json.RawMessage) (routes []*types.Route, err error) {
	if len(elements) > maxRoutes {
		return nil, invalid("ipam.routes has %d routes: want %d at most", len(elements), maxRoutes)
	}
	var errs []error
	for i, element := range elements {
		r := new(types.Route)
		switch err := json.Unmarshal(element, r); {
		case err != nil:
			errs = append(errs, invalid("ipam.routes[%d]: %v", i, err))
		case r.Dst.IP == nil:
			errs = append(errs, invalid(`ipam.routes[%d] has no dst: want a subnet like "0.0.0.0/0"`, i))
		case r.GW != nil && (r.GW.To4() == nil) != (r.Dst.IP.To4() == nil):
			errs = append(errs, invalid("ipam.routes[%d].gw is %s: want an address of the IP family of dst, %s", i, r.GW, &r.Dst))
		}
		routes = append(routes, r)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return routes, nil
}

// Assigned returns the addresses that a result has for an interface of the pod, and those for no interface: results of
// IPAM plugins and of old CNI versions do not say.
func Assigned(res *types100.Result, ifName string) (ips []*types100.IPConfig) {
	for _, ip := range res.IPs {
		if i := ip.Interface; i != nil && *i >= 0 && *i < len(res.Interfaces) {
			if on := res.Interfaces[*i]; on.Name != ifName || on.Sandbox == "" {
				continue
			}
		}
		ips = append(ips, ip)
	}
	return ips
}

func invalid(format string, args ...any) error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf(format, args...), "")
}

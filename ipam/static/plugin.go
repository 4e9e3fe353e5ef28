// Package static is the IPAM plugin whose addresses are in the configuration, or requested by the pod. README.md is its
// manual.
package static

import (
	"context"
	"errors"
	"fmt"
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/ipam"
)

// Plugin is the static plugin. It keeps nothing, so DEL and GC have nothing to do.
type Plugin struct{}

var (
	_ cni.Plugin     = Plugin{}
	_ ipam.Allocator = Plugin{}
)

// OnlyAllocates implements [ipam.Allocator].
func (Plugin) OnlyAllocates() {}

// Add implements [cni.Plugin].
func (Plugin) Add(_ context.Context, req *cni.Request) (*types100.Result, error) {
	res, err := parse(req)
	if err != nil {
		return nil, err
	}
	if len(res.IPs) == 0 {
		return nil, invalid(`no address: want "ipam.addresses", or the request "ips" and "capabilities": {"ips": true}`)
	}
	return res, nil
}

// Del implements [cni.Plugin].
func (Plugin) Del(context.Context, *cni.Request) error { return nil }

// Check implements [cni.Plugin]. The interface must have every address in prevResult, and where the configuration has
// a gateway, that gateway. One that the interface plugin has added is none of this plugin's business.
func (Plugin) Check(_ context.Context, req *cni.Request) error {
	want, err := parse(req)
	if err != nil {
		return err
	}
	prev, err := req.PrevResult()
	if err != nil {
		return err
	}
	// "The plugin must consult the `prevResult` to determine the expected interfaces and addresses."
	if prev == nil {
		return invalid("prevResult is missing: CHECK compares the configuration with it")
	}
	assigned := ipam.Assigned(prev, req.IfName)
	var errs []error
	for _, ip := range want.IPs {
		errs = append(errs, checkOne(ip, assigned))
	}
	return errors.Join(errs...)
}

func checkOne(want *types100.IPConfig, assigned []*types100.IPConfig) error {
	i := slices.IndexFunc(assigned, func(have *types100.IPConfig) bool { return have.Address.String() == want.Address.String() })
	if i < 0 {
		return fmt.Errorf("address %s is not in prevResult", &want.Address)
	}
	switch have := assigned[i].Gateway; {
	case want.Gateway == nil || want.Gateway.Equal(have):
		return nil
	case have == nil:
		return fmt.Errorf("address %s has no gateway in prevResult: want %s", &want.Address, want.Gateway)
	default:
		return fmt.Errorf("address %s has the gateway %s in prevResult: want %s", &want.Address, have, want.Gateway)
	}
}

// GC implements [cni.Plugin].
func (Plugin) GC(context.Context, *cni.Request) error { return nil }

// Status implements [cni.Plugin]. Addresses may come with each ADD, so a configuration without any is ready too.
func (Plugin) Status(_ context.Context, req *cni.Request) error {
	_, err := parse(req)
	return err
}

// Package ipam runs the address plugin that a network configuration names, on behalf of the interface plugin that the
// configuration is for (CNI specification, section 4, "Plugin Delegation").
package ipam

import (
	"context"
	"errors"
	"fmt"
	"strings"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/undo"
)

// A Delegate is the address plugin of one configuration. The zero Delegate is that of a layer 2 network: each verb does
// nothing and succeeds.
//
// The plugin gets the request of the interface plugin as it is: "Delegated plugins are provided the complete network
// configuration passed to the "upper" plugin."
type Delegate struct {
	Type   string
	plugin cni.Plugin
}

// For returns the delegate of the configuration of a request. A type that is no file name is an error of code 7.
func For(req *cni.Request, find cni.Lookup) (Delegate, error) {
	name, err := cni.DecodeCommon(req, typeOf)
	if err != nil {
		return Delegate{}, err
	}
	switch t := string(name); {
	case t == "":
		return Delegate{}, nil
	case t == "." || t == ".." || strings.ContainsAny(t, "/\\\x00"):
		return Delegate{}, invalid("ipam.type is %q: want the name of a plugin's file, without a path", t)
	default:
		return Delegate{t, find(t)}, nil
	}
}

type pluginType string

func typeOf(config []byte) (pluginType, error) {
	var conf struct {
		IPAM struct {
			Type string `json:"type"`
		} `json:"ipam"`
	}
	err := Decode(config, &conf)
	return pluginType(conf.IPAM.Type), err
}

// Configured says whether there is an address plugin at all.
func (d Delegate) Configured() bool { return d.plugin != nil }

// An Allocator is an address plugin that tells addresses and leaves the interface alone: it may be there or not.
type Allocator interface{ OnlyAllocates() }

// MayConfigure tells whether the plugin may look at the interface of the request, or change it.
func (d Delegate) MayConfigure() bool {
	_, only := d.plugin.(Allocator)
	return d.Configured() && !only
}

// Add allocates, and returns one address at least. When it fails nothing stays allocated: "If, on ADD, a delegated
// plugin fails, the "upper" plugin should execute again with DEL before returning failure."
func (d Delegate) Add(ctx context.Context, req *cni.Request) (*types100.Result, error) {
	if !d.Configured() {
		return &types100.Result{CNIVersion: types100.ImplementedSpecVersion}, nil
	}
	res, err := d.plugin.Add(ctx, req)
	if err == nil && len(res.IPs) == 0 {
		err = errors.New("its result has no IP address")
	}
	if err == nil {
		return res, nil
	}
	if _, missing := errors.AsType[*cni.NotFoundError](err); missing {
		return nil, d.wrap(err) // there is nobody to undo anything, and nobody did anything
	}
	releasing, cancel := undo.Time(ctx, undo.Limit)
	defer cancel()
	return nil, errors.Join(d.wrap(err), d.Del(releasing, req))
}

// Del releases.
func (d Delegate) Del(ctx context.Context, req *cni.Request) error {
	return d.run(cni.Plugin.Del, ctx, req)
}

// Check checks the allocation.
func (d Delegate) Check(ctx context.Context, req *cni.Request) error {
	return d.run(cni.Plugin.Check, ctx, req)
}

// GC releases what no valid attachment holds.
func (d Delegate) GC(ctx context.Context, req *cni.Request) error {
	return d.run(cni.Plugin.GC, ctx, req)
}

// Status says whether addresses can be had.
func (d Delegate) Status(ctx context.Context, req *cni.Request) error {
	return d.run(cni.Plugin.Status, ctx, req)
}

func (d Delegate) run(verb func(cni.Plugin, context.Context, *cni.Request) error, ctx context.Context, req *cni.Request) error {
	if !d.Configured() {
		return nil
	}
	return d.wrap(verb(d.plugin, ctx, req))
}

func (d Delegate) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("ipam %s: %w", d.Type, err)
}

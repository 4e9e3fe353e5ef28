// Package dhcp is the IPAM plugin "dhcp": addresses from DHCP servers of the network that a pod is attached to, and
// from router advertisements.
//
// The plugin itself does little. A lease must be extended for as long as the pod lives, so [keeper] gets and keeps
// the leases, and the plugin talks to it over a unix socket. Only what the kernel does on its own (autoconfiguration
// by router advertisements) needs no keeper.
package dhcp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/undo"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// A Plugin is the IPAM plugin. The zero value is ready to use.
type Plugin struct{}

var _ cni.Plugin = Plugin{}

// undoTime bounds what is undone after a failed ADD, whose own deadline may have passed.
const undoTime = 15 * time.Second

// Add gets the addresses of an attachment, whose interface must exist. If it has them already, because an earlier
// caller did not live to hear of them, it returns the same ones.
func (Plugin) Add(ctx context.Context, req *cni.Request) (res *types100.Result, err error) {
	c, err := parse(req.Config)
	if err != nil {
		return nil, err
	}
	spec, err := c.spec(req)
	if err != nil {
		return nil, err
	}
	var u undo.Stack
	defer u.OnError(&err)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	routers := make(chan advertised)
	go func() { routers <- c.advertised(ctx, req) }()
	res, err = c.lease(ctx, spec, &u)
	if err != nil {
		cancel()
	}
	r := <-routers
	if err == nil {
		err = r.err
	}
	if err != nil {
		return nil, err
	}
	r.addTo(res)
	return res, nil
}

// lease gets what the keeper has to get.
func (c *config) lease(ctx context.Context, spec *lease.Spec, u *undo.Stack) (*types100.Result, error) {
	if !c.leased() {
		return &types100.Result{CNIVersion: types100.ImplementedSpecVersion}, nil
	}
	u.Add("release "+spec.Key.String(), func() error {
		ctx, cancel := undo.Time(ctx, undoTime)
		defer cancel()
		return release(ctx, c.IPAM.Socket, spec.Key)
	})
	answer, err := ask(ctx, c.IPAM.Socket, &lease.Request{Verb: lease.VerbAdd, Spec: *spec})
	if err != nil {
		return nil, err
	}
	return answer.Held.Result(), nil
}

// Del gives the leases of an attachment back. The configuration need not be right.
//
// "since DHCP leases have a lifetime this release action would not be considered critical and no error should be
// returned if this action fails"
func (Plugin) Del(ctx context.Context, req *cni.Request) error {
	name, socket := addressee(req.Config)
	return release(ctx, socket, lease.Key{ContainerID: req.ContainerID, Network: name, IfName: req.IfName})
}

// Check fails if a lease is not held or not valid, or if its address and gateway are not those of prevResult.
func (Plugin) Check(ctx context.Context, req *cni.Request) error {
	c, err := parse(req.Config)
	if err != nil {
		return err
	}
	prev, err := req.PrevResult()
	if err != nil {
		return err
	}
	if prev == nil {
		return invalid("prevResult", "it is missing")
	}
	held, err := c.held(ctx, req)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range held.Leases() {
		errs = append(errs, compare(l, prev))
	}
	if c.IPAM.IPv6 == slaac {
		errs = append(errs, checkAdvertised(req, prev))
	}
	return errors.Join(errs...)
}

// Leases returns the leases of an attachment, with all that a CNI result cannot say: when they end, MTU, time servers.
// It fails if one is not held or not valid.
func (Plugin) Leases(ctx context.Context, req *cni.Request) (*lease.Held, error) {
	c, err := parse(req.Config)
	if err != nil {
		return nil, err
	}
	return c.held(ctx, req)
}

func (c *config) held(ctx context.Context, req *cni.Request) (*lease.Held, error) {
	if !c.leased() {
		return new(lease.Held), nil
	}
	answer, err := ask(ctx, c.IPAM.Socket, &lease.Request{Verb: lease.VerbCheck, Spec: lease.Spec{Key: c.key(req)}})
	if err != nil {
		return nil, err
	}
	return &answer.Held, nil
}

func compare(l *lease.Lease, prev *types100.Result) error {
	for _, ip := range prev.IPs {
		if ip.Address.String() != lease.IPNet(l.Address).String() {
			continue
		}
		if l.Gateway.IsValid() && !ip.Gateway.Equal(l.Gateway.AsSlice()) {
			return fmt.Errorf("the gateway of the lease %s is %s, prevResult says %s", l.Address, l.Gateway, ip.Gateway)
		}
		return nil
	}
	return fmt.Errorf("the lease is of %s, which prevResult does not have", l.Address)
}

// GC releases the leases of the network whose attachments are not valid.
func (Plugin) GC(ctx context.Context, req *cni.Request) error {
	c, err := parse(req.Config)
	if err != nil {
		return err
	}
	valid, err := cni.ValidAttachments(req.Config)
	if err != nil {
		return err
	}
	if !c.leased() {
		return nil
	}
	return collect(ctx, c.IPAM.Socket, c.Name, valid)
}

// Status fails, with code 50, if the configuration needs the keeper and there is none.
func (Plugin) Status(ctx context.Context, req *cni.Request) error {
	c, err := parse(req.Config)
	if err != nil {
		return err
	}
	if !c.leased() {
		return nil
	}
	if _, err := ask(ctx, c.IPAM.Socket, &lease.Request{Verb: lease.VerbStatus}); err != nil {
		return types.NewError(types.ErrPluginNotAvailable, err.Error(), "")
	}
	return nil
}

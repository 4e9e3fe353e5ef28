package chain

import (
	"context"
	"errors"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
)

// Broken returns what an attachment lacks on the node and its plugins can make again; nil if nothing. Plugins that are no
// [cni.Repairer] are not asked, those of a network with disableCheck neither. Prev is the result of Add.
func (c *Chain) Broken(ctx context.Context, at cni.Attachment, capabilities map[string]any, prev *types100.Result) error {
	return c.repairers(at, capabilities, prev, func(i int, r cni.Repairer, req *cni.Request) error {
		return c.failed(i, r.Broken(ctx, req))
	})
}

// Repair makes that again. It runs all plugins that can, and joins their errors.
func (c *Chain) Repair(ctx context.Context, at cni.Attachment, capabilities map[string]any, prev *types100.Result) error {
	return c.repairers(at, capabilities, prev, func(i int, r cni.Repairer, req *cni.Request) error {
		if r.Broken(ctx, req) == nil {
			return nil
		}
		return c.call(ctx, i, "repair", at.IfName, func(ctx context.Context) error { return r.Repair(ctx, req) })
	})
}

func (c *Chain) repairers(at cni.Attachment, capabilities map[string]any, prev *types100.Result, do func(int, cni.Repairer, *cni.Request) error) error {
	if c.network.DisableCheck {
		return nil
	}
	var errs []error
	for i, l := range c.links {
		r, ok := l.plugin.(cni.Repairer)
		if !ok {
			continue
		}
		req, err := c.request(i, at, capabilities, prev)
		if err == nil {
			err = do(i, r, req)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

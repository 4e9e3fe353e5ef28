package stacked

import (
	"context"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
)

// IPAM is what a Device needs of the plugin that its addresses come from.
type IPAM interface {
	Configured() bool
	Add(ctx context.Context, req *cni.Request) (*types100.Result, error)
	Del(ctx context.Context, req *cni.Request) error
	Check(ctx context.Context, req *cni.Request) error
	GC(ctx context.Context, req *cni.Request) error
	Status(ctx context.Context, req *cni.Request) error
}

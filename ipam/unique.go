package ipam

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/undo"
)

// maxTries bounds how many times one ADD asks for addresses. The next ADD goes on where it ended: an address plugin
// that has given the last address of a pool away comes to the first one again only when it has been through all.
const maxTries = 16

// AvoidKey is the key below "args" in which the address plugin finds those that it has given, and that others use. It
// may ignore it.
const AvoidKey = "braid-cni.io/avoid"

// A Taken tells which addresses somebody else has, and the MAC of each.
type Taken func(context.Context, []netip.Addr) (map[netip.Addr]net.HardwareAddr, error)

// AddUnique is Add until nobody else has any of the addresses. What others have is released, and told by [cni.Notice].
// If the plugin comes back to addresses, because they were requested or there are no others, the error, of code 11, says
// who has them.
func (d Delegate) AddUnique(ctx context.Context, req *cni.Request, taken Taken) (*types100.Result, error) {
	if !d.Configured() {
		return d.Add(ctx, req)
	}
	avoid := map[netip.Addr]net.HardwareAddr{}
	var tried [][]netip.Addr
	for range maxTries {
		next, err := avoiding(req, avoid)
		if err != nil {
			return nil, err
		}
		res, err := d.Add(ctx, next)
		if err != nil {
			return nil, errors.Join(err, d.conflict(avoid))
		}
		addrs := addressesOf(res)
		if slices.ContainsFunc(tried, func(before []netip.Addr) bool { return slices.Equal(before, addrs) }) {
			return nil, errors.Join(d.conflict(avoid), d.release(ctx, req))
		}
		found, err := taken(ctx, addrs)
		if err == nil && len(found) == 0 {
			return res, nil
		}
		if err := errors.Join(err, d.release(ctx, req)); err != nil {
			return nil, err
		}
		cni.Notice(ctx, d.conflict(found).Error())
		tried = append(tried, addrs)
		maps.Copy(avoid, found)
	}
	return nil, d.conflict(avoid)
}

// release undoes an ADD, however little time it has left.
func (d Delegate) release(ctx context.Context, req *cni.Request) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undo.Limit)
	defer cancel()
	return d.Del(ctx, req)
}

// conflict returns nil if there is none.
func (d Delegate) conflict(found map[netip.Addr]net.HardwareAddr) error {
	var owners []string
	for _, addr := range slices.SortedFunc(maps.Keys(found), netip.Addr.Compare) {
		owners = append(owners, fmt.Sprintf("address %s is in use by %s", addr, found[addr]))
	}
	if owners == nil {
		return nil
	}
	return d.wrap(types.NewError(types.ErrTryAgainLater, strings.Join(owners, ", "), ""))
}

func addressesOf(res *types100.Result) (addrs []netip.Addr) {
	for _, ip := range res.IPs {
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs
}

// avoiding returns the request with the addresses below AvoidKey.
func avoiding(req *cni.Request, avoid map[netip.Addr]net.HardwareAddr) (*cni.Request, error) {
	if len(avoid) == 0 {
		return req, nil
	}
	var conf, args map[string]json.RawMessage
	if err := json.Unmarshal(req.Config, &conf); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, "decode configuration: "+err.Error(), "")
	}
	if json.Unmarshal(conf["args"], &args) != nil || args == nil {
		args = map[string]json.RawMessage{}
	}
	var err error
	if args[AvoidKey], err = json.Marshal(slices.SortedFunc(maps.Keys(avoid), netip.Addr.Compare)); err != nil {
		return nil, err
	}
	if conf["args"], err = json.Marshal(args); err != nil {
		return nil, err
	}
	next := *req
	next.Common = cni.Common{}
	next.Config, err = json.Marshal(conf)
	return &next, err
}

// Package hostlocal is the IPAM plugin that gives out addresses of ranges which belong to this node alone, and keeps
// them in files, those of the reference host-local plugin. README.md is its manual.
package hostlocal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/undo"
)

// Plugin is the host-local plugin.
type Plugin struct{}

var _ cni.Plugin = Plugin{}

// Add implements [cni.Plugin]. All sets are served under one lock, or none is.
func (Plugin) Add(ctx context.Context, req *cni.Request) (res *types100.Result, err error) {
	c, err := parse(req)
	if err != nil {
		return nil, err
	}
	res = &types100.Result{CNIVersion: types100.ImplementedSpecVersion, Routes: c.routes}
	if c.resolvConf != "" {
		if res.DNS, err = readResolvConf(c.resolvConf); err != nil {
			return nil, err
		}
	}
	s := &store{dir: c.dataDir}
	unlock, err := s.lock(ctx, true)
	if err != nil {
		return nil, busy(err)
	}
	defer unlock()
	var u undo.Stack
	defer u.OnError(&err)
	o := ownerOf(req.Attachment)
	held, err := s.of(o)
	if err != nil {
		return nil, err
	}
	requested := slices.Clone(c.requested)
	for i, set := range c.sets {
		if mine := slices.IndexFunc(held, func(a netip.Addr) bool { _, in := set.find(a); return in }); mine >= 0 {
			return nil, fmt.Errorf("container %s has address %s for %s already: duplicate allocation is not allowed", o.containerID, held[mine], o.ifName)
		}
		a, err := allocate(s, i, set, &requested, o)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", c.network, err)
		}
		u.Add("release "+a.String(), func() error { return s.release(a) })
		if err := s.setCursor(i, a); err != nil {
			return nil, err
		}
		r, _ := set.find(a)
		res.IPs = append(res.IPs, &types100.IPConfig{Address: r.ipNet(a), Gateway: r.gateway.AsSlice()})
	}
	if len(requested) > 0 {
		return nil, invalid("network %s: requested address %s is in none of the ranges", c.network, requested[0])
	}
	return res, s.sync()
}

// allocate takes the requested address that is of the set, or else the next free one after the last that was given out.
func allocate(s *store, setIndex int, set set, requested *[]netip.Addr, o owner) (netip.Addr, error) {
	for i, a := range *requested {
		r, in := set.find(a)
		if !in {
			continue
		}
		*requested = slices.Delete(*requested, i, i+1)
		if a == r.gateway {
			return a, invalid("requested address %s is the gateway's", a)
		}
		ok, err := s.reserve(a, o)
		if err == nil && !ok {
			err = fmt.Errorf("requested address %s is not available: another container has it", a)
		}
		return a, err
	}
	for a := range set.after(s.cursor(setIndex)) {
		if ok, err := s.reserve(a, o); ok || err != nil {
			return a, err
		}
	}
	return netip.Addr{}, exhausted(set)
}

// after yields every address of the set once, the gateways' excepted, beginning behind the last one given out.
func (s set) after(last netip.Addr) func(yield func(netip.Addr) bool) {
	return func(yield func(netip.Addr) bool) {
		at, ok := s.find(last)
		if !ok { // no cursor, or that of other ranges
			at, last = s[0], netip.Addr{}
		}
		n := slices.Index(s, at)
		if last.IsValid() && !yieldRange(addressRange{start: last.Next(), end: at.end, gateway: at.gateway}, yield) {
			return
		}
		first := 0
		if last.IsValid() {
			first = 1
		}
		for i := first; i < len(s); i++ {
			if !yieldRange(s[(n+i)%len(s)], yield) {
				return
			}
		}
		if last.IsValid() {
			yieldRange(addressRange{start: at.start, end: last, gateway: at.gateway}, yield)
		}
	}
}

func yieldRange(r addressRange, yield func(netip.Addr) bool) bool {
	for a := r.start; a.IsValid() && a.Compare(r.end) <= 0; a = a.Next() {
		if a != r.gateway && !yield(a) {
			return false
		}
	}
	return true
}

func exhausted(s set) error {
	return types.NewError(types.ErrTryAgainLater,
		fmt.Sprintf("no address is free in %s: delete pods, or add a range to \"ranges\"", s), "")
}

// Del implements [cni.Plugin]. It needs the network's name and dataDir only.
func (Plugin) Del(ctx context.Context, req *cni.Request) error {
	s, err := storeOf(req)
	if err != nil {
		return err
	}
	unlock, err := s.lock(ctx, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return busy(err)
	}
	defer unlock()
	held, err := s.of(ownerOf(req.Attachment))
	if err != nil || len(held) == 0 {
		return err
	}
	for _, a := range held {
		err = errors.Join(err, s.release(a))
	}
	return errors.Join(err, s.sync())
}

// Check implements [cni.Plugin]: what prevResult says was given out must still be reserved for the attachment.
func (Plugin) Check(ctx context.Context, req *cni.Request) error {
	c, err := parse(req)
	if err != nil {
		return err
	}
	prev, err := cni.PrevResult(req.Config)
	if err != nil {
		return err
	}
	if prev == nil {
		return invalid("prevResult is missing: CHECK compares the reservations with it")
	}
	s := &store{dir: c.dataDir}
	unlock, err := s.lock(ctx, false)
	if err != nil {
		return busy(err)
	}
	defer unlock()
	held, err := s.of(ownerOf(req.Attachment))
	if err != nil {
		return err
	}
	for _, set := range c.sets {
		if !slices.ContainsFunc(held, func(a netip.Addr) bool { _, in := set.find(a); return in && reported(prev, a) }) {
			return fmt.Errorf("network %s: container %s has no reservation in %s for an address of its %s", c.network, req.ContainerID, set, req.IfName)
		}
	}
	return nil
}

func reported(res *types100.Result, a netip.Addr) bool {
	return slices.ContainsFunc(res.IPs, func(ip *types100.IPConfig) bool {
		have, _ := netip.AddrFromSlice(ip.Address.IP)
		return have.Unmap() == a
	})
}

// GC implements [cni.Plugin]. A reservation without interface name is valid with any interface of its container.
func (Plugin) GC(ctx context.Context, req *cni.Request) error {
	s, err := storeOf(req)
	if err != nil {
		return err
	}
	valid, err := cni.ValidAttachments(req.Config)
	if err != nil {
		return err
	}
	unlock, err := s.lock(ctx, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return busy(err)
	}
	defer unlock()
	keep := make(map[string]bool)
	for _, at := range valid {
		o := owner{at.ContainerID, at.IfName}
		keep[o.content()], keep[strings.TrimSpace(o.containerID)] = true, true
	}
	var errs []error
	err = s.each(func(a netip.Addr, content string) error {
		if !keep[strings.TrimSpace(content)] {
			errs = append(errs, s.release(a))
		}
		return nil
	})
	return errors.Join(append(errs, err, s.sync())...)
}

// Status implements [cni.Plugin]: "it should return an error if those resources are exhausted and no new ADD requests
// can be serviced".
func (Plugin) Status(ctx context.Context, req *cni.Request) error {
	c, err := parse(req)
	if err != nil {
		return err
	}
	used := make([]uint64, len(c.sets))
	err = (&store{dir: c.dataDir}).each(func(a netip.Addr, _ string) error {
		for i, set := range c.sets {
			if r, in := set.find(a); in && a != r.gateway {
				used[i]++
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, set := range c.sets {
		if set.usedUp(used[i]) {
			return types.NewError(types.ErrPluginNotAvailable,
				fmt.Sprintf("network %s: no address is free in %s: %d are in use", c.network, set, used[i]), "")
		}
	}
	return nil
}

// usedUp says whether a set has no more than n addresses.
func (s set) usedUp(n uint64) bool {
	for range s.after(netip.Addr{}) {
		if n == 0 {
			return false
		}
		n--
	}
	return true
}

func ownerOf(at cni.Attachment) owner { return owner{at.ContainerID, at.IfName} }

func busy(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return types.NewError(types.ErrTryAgainLater, err.Error(), "")
	}
	return err
}

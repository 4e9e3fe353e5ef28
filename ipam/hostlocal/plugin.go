// Package hostlocal is the IPAM plugin that gives out addresses of ranges which belong to this node alone, and keeps
// them in files, those of the reference host-local plugin. README.md is its manual.
package hostlocal

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/atomicfile"
	"github.com/braid-cni/braid/internal/bootid"
	"github.com/braid-cni/braid/ipam"
	"github.com/braid-cni/braid/ipam/hostlocal/store"
)

// Plugin is the host-local plugin. The zero value is ready to use.
type Plugin struct {
	// DataDir has the reservations of networks that do not say where theirs are; /var/lib/cni/networks if empty.
	DataDir string

	// BootID and MachineID are files that tell this boot from others, and this node from others that share a dataDir;
	// /proc/sys/kernel/random/boot_id and /etc/machine-id if empty.
	BootID, MachineID string
}

var (
	_ cni.Plugin     = Plugin{}
	_ ipam.Allocator = Plugin{}
)

// OnlyAllocates implements [ipam.Allocator].
func (Plugin) OnlyAllocates() {}

// Add implements [cni.Plugin]. All range sets are served, or none is.
func (p Plugin) Add(ctx context.Context, req *cni.Request) (*types100.Result, error) {
	c, err := p.parse(req)
	if err != nil {
		return nil, err
	}
	res := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	for _, r := range c.routes { // a result is changed on its way
		res.Routes = append(res.Routes, r.Copy())
	}
	if c.resolvConf != "" {
		if res.DNS, err = readResolvConf(c.resolvConf); err != nil {
			return nil, err
		}
	}
	// A folder that nodes share survives when one of them loses power, and its index is that of the last one that used it.
	if err := cni.Recorded(ctx); err != nil {
		return nil, err
	}
	s, err := p.open(ctx, c.folder, true)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	picks, err := c.allocate(s, ownerOf(req.Attachment))
	if err != nil {
		return nil, err
	}
	for i, pick := range picks {
		r, _ := c.sets[i].find(pick.Addr)
		res.IPs = append(res.IPs, &types100.IPConfig{Address: r.ipNet(pick.Addr), Gateway: r.gateway.AsSlice()})
	}
	return res, nil
}

// Del implements [cni.Plugin]. It needs the network's name and dataDir only.
func (p Plugin) Del(ctx context.Context, req *cni.Request) error {
	folder, err := p.folderOf(req)
	if err != nil {
		return err
	}
	s, err := p.open(ctx, folder, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Release(ownerOf(req.Attachment))
}

// Check implements [cni.Plugin]. The addresses that prevResult has of the ranges must be those that are reserved for
// the attachment, one of each range set.
func (p Plugin) Check(ctx context.Context, req *cni.Request) error {
	c, err := p.parse(req)
	if err != nil {
		return err
	}
	prev, err := req.PrevResult()
	if err != nil {
		return err
	}
	// "The plugin must consult the `prevResult` to determine the expected interfaces and addresses."
	if prev == nil {
		return invalid("prevResult is missing: CHECK compares the reservations with it")
	}
	held, err := p.held(ctx, c.folder, ownerOf(req.Attachment))
	if err != nil {
		return err
	}
	var assigned []netip.Addr
	for _, ip := range ipam.Assigned(prev, req.IfName) {
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			assigned = append(assigned, a.Unmap())
		}
	}
	return c.compare(held, assigned, ownerOf(req.Attachment))
}

// held returns the addresses that are reserved for an owner.
func (p Plugin) held(ctx context.Context, folder string, o store.Owner) ([]netip.Addr, error) {
	s, err := p.open(ctx, folder, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return s.Of(o)
}

// compare finds differences between the addresses that are reserved and those that the interface has.
func (c *config) compare(held, assigned []netip.Addr, o store.Owner) error {
	var errs []error
	for _, set := range c.sets {
		if !slices.ContainsFunc(held, func(a netip.Addr) bool { _, in := set.find(a); return in }) {
			errs = append(errs, fmt.Errorf("no address of %s (%s) is reserved for %s", set, set.key, o))
		}
		for _, a := range assigned {
			if _, in := set.find(a); in && !slices.Contains(held, a) {
				errs = append(errs, fmt.Errorf("address %s is not reserved for %s", a, o))
			}
		}
	}
	for _, a := range held {
		if !slices.Contains(assigned, a) {
			errs = append(errs, fmt.Errorf("address %s is reserved for %s, but prevResult does not have it", a, o))
		}
	}
	return errors.Join(errs...)
}

// GC implements [cni.Plugin]. A reservation without interface name is valid with any interface of its container.
func (p Plugin) GC(ctx context.Context, req *cni.Request) error {
	folder, err := p.folderOf(req)
	if err != nil {
		return err
	}
	attachments, err := cni.ValidAttachments(req.Config)
	if err != nil {
		return err
	}
	valid := map[store.Owner]bool{}
	for _, at := range attachments {
		valid[store.Owner{ContainerID: at.ContainerID, IfName: at.IfName}] = true
		valid[store.Owner{ContainerID: at.ContainerID}] = true
	}
	s, err := p.open(ctx, folder, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Retain(func(o store.Owner) bool { return valid[o] })
}

// Status implements [cni.Plugin]: "it should return an error if those resources are exhausted and no new ADD requests
// can be serviced". Ranges that come with each ADD are not known.
func (p Plugin) Status(ctx context.Context, req *cni.Request) error {
	if j, err := decode(req.Config); err != nil || j.withoutRanges() {
		return err
	}
	c, err := p.parse(req)
	if err != nil {
		return err
	}
	if err := atomicfile.Writable(c.folder); err != nil {
		return types.NewError(types.ErrPluginNotAvailable, "the folder of reservations: "+err.Error(), "")
	}
	s, err := p.open(ctx, c.folder, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer s.Close()
	for i := range c.sets {
		a, err := c.next(s, i)
		if err == nil && !a.IsValid() {
			err = c.exhausted(s, i, types.ErrPluginNotAvailable)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func ownerOf(at cni.Attachment) store.Owner {
	return store.Owner{ContainerID: at.ContainerID, IfName: at.IfName}
}

// open opens the store of a network.
func (p Plugin) open(ctx context.Context, folder string, create bool) (*store.Store, error) {
	s, err := store.Open(ctx, folder, p.node(), create)
	if cause := context.Cause(ctx); err != nil && cause != nil && errors.Is(err, cause) {
		msg := fmt.Sprintf("%v: other processes use the addresses of the network, and did not come to an end in time", err)
		return nil, types.NewError(types.ErrTryAgainLater, msg, "")
	}
	return s, err
}

// Keep is for a process that serves many requests: it keeps open what it needs of the folders that it uses, for some seconds
// after each use and until stop is called.
func Keep() (stop func()) { return store.Keep() }

// node tells this boot of this node. What cannot be read is unknown: reservations are then kept over a reboot.
func (p Plugin) node() store.Node {
	if p.BootID == "" && p.MachineID == "" {
		return thisNode()
	}
	return nodeOf(p.BootID, p.MachineID)
}

// thisNode stays what it is while the process runs, which asks for each network of a pod.
var thisNode = sync.OnceValue(func() store.Node { return nodeOf("", "") })

func nodeOf(bootIDFile, machineIDFile string) store.Node {
	boot := bootid.Get
	if bootIDFile != "" {
		boot = func() string { return bootid.Read(bootIDFile) }
	}
	host, _ := os.Hostname()
	return store.Node{
		Boot: boot(),
		ID:   bootid.Read(cmp.Or(machineIDFile, "/etc/machine-id")) + "\n" + host, // clones of a machine have one id
	}
}

package delegate

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/chain"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/journal"
)

// gcShare is the part of its deadline for which a GC waits for ADDs and DELs to end, since others wait behind it meanwhile. A pod
// whose ADD hangs, as a tenant can have it, must not keep all other pods of the node from starting. The runtime sends the next GC
// soon enough.
const gcShare = 10

// GC implements [cni.Plugin]. The runtime lists the attachments of this network that are valid, (container, eth0): they
// stand for all attachments that Braid made with them. The others are undone, but what an ADD has made that GC had to wait
// for, and then every network is told which of its own attachments are valid.
//
// "Plugins MUST, additionally, forward any GC calls to delegated plugins they are configured to use." Passing on the
// runtime's list as it is would have them free net1 of every pod.
func (d *Delegator) GC(ctx context.Context, req *cni.Request) (err error) {
	ctx, observed := d.observe(ctx, "GC")
	defer func() { observed.end(err) }()
	c, err := d.call(req)
	if err != nil {
		return err
	}
	observed.of(c)
	valid, err := cni.ValidAttachments(req.Config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.conf.Deadlines.GC)
	defer cancel()
	stale := func(r *journal.Record) bool {
		return r.Network == c.conf.Name && !slices.Contains(valid, types.GCAttachment{ContainerID: r.ContainerID, IfName: r.IfName})
	}
	over, untold := c.over(stale)
	locking, stop := context.WithTimeout(ctx, c.conf.Deadlines.GC/gcShare)
	unlock, err := c.journal.LockAll(locking)
	stop()
	if err != nil {
		return tryAgain(err)
	}
	defer unlock()

	records, unreadable := c.journal.All()
	errs := []error{cmp.Or(unreadable, untold)} // the former is most of the latter, as a rule
	networks := newNetworkSet()
	for _, network := range c.operatorNetworks() {
		networks.add(network)
	}
	for _, r := range records {
		stale := stale(r) && (!r.Done || over[keyOf(r).Name()].Equal(r.Created))
		for i := range r.Attachments {
			a := &r.Attachments[i]
			networks.add(a.Network)
			if !stale {
				networks.keep(a.Network, r.At(a))
			}
		}
		if stale {
			errs = append(errs, c.undo(ctx, r))
		}
	}
	for _, err := range flatten(unreadable) {
		errs = append(errs, c.collectNewer(ctx, err, valid))
	}
	c.keepOthers(networks, records, valid)
	if unreadable != nil {
		// An attachment may be in use whose record can not be read: nobody is told that it is not.
		return errors.Join(errs...)
	}
	for _, n := range networks.list {
		if err := chain.Lenient(n.network, c.path, c.find).GC(ctx, networks.valid[n.network.Name]); err != nil {
			errs = append(errs, fmt.Errorf("network %s: %w", n.network.Name, err))
		}
	}
	return errors.Join(errs...)
}

// keepOthers has the networks keep what belongs to valid attachments that Braid has not made: pods that were there before it,
// with addresses of the same networks. The runtime says that they are valid, and the cache of Multus what else they have.
func (c *call) keepOthers(networks *networkSet, records []*journal.Record, valid []types.GCAttachment) {
	others := make(map[string]bool)
	for _, at := range valid {
		made := slices.ContainsFunc(records, func(r *journal.Record) bool { return r.ContainerID == at.ContainerID && r.IfName == at.IfName })
		if made {
			continue
		}
		others[at.ContainerID] = true
		for _, n := range networks.list {
			networks.keep(n.network, cni.Attachment{ContainerID: at.ContainerID, IfName: at.IfName})
		}
	}
	if len(others) == 0 {
		return
	}
	for _, l := range c.leftovers("") {
		if others[l.at.ContainerID] {
			networks.keep(l.network, l.at)
		}
	}
}

// collectNewer undoes what can be read of a record of a newer Braid, if that is what the error says of it and its container
// is none of the valid ones.
func (c *call) collectNewer(ctx context.Context, err error, valid []types.GCAttachment) error {
	var newer *journal.NewerError
	if !errors.As(err, &newer) {
		return nil
	}
	r := newer.Record
	at := types.GCAttachment{ContainerID: r.ContainerID, IfName: r.IfName}
	if r.Network != c.conf.Name || slices.Contains(valid, at) {
		return nil
	}
	of := *c
	req := *c.req
	req.Attachment = cni.Attachment{ContainerID: r.ContainerID, Netns: r.Netns, IfName: r.IfName, Args: r.Args}
	of.req = &req
	return of.delNewer(ctx, newer)
}

// over returns when those ADDs began that are stale and have come to their end. One that GC has to wait for has not been heard
// of when the runtime makes its list: what it makes is left to the next GC, as the pod may live. Runtimes should not, but do
// call GC while there are ADDs. The error is about those of which it cannot be told, which are left to the next GC too.
func (c *call) over(stale func(*journal.Record) bool) (map[string]time.Time, error) {
	now, cancel := context.WithCancel(context.Background())
	cancel() // wait for no lock
	began := make(map[string]time.Time)
	records, unreadable := c.journal.All()
	errs := []error{unreadable}
	for _, r := range records {
		if !r.Done || !stale(r) {
			continue
		}
		unlock, err := c.journal.Lock(now, r.ContainerID)
		switch {
		case err == nil:
			unlock()
			began[keyOf(r).Name()] = r.Created
		case !errors.Is(err, context.Canceled):
			errs = append(errs, err)
		}
	}
	return began, errors.Join(errs...)
}

// operatorNetworks returns the networks that the configuration names and that can be read without the API server.
func (c *call) operatorNetworks() (networks []*conf.Network) {
	for _, o := range operatorChoices(c.conf, nil) {
		if network, err := o.load(c.conf, nil); err == nil {
			networks = append(networks, network)
		}
	}
	return networks
}

// A networkSet collects networks and their valid attachments. A network is told apart by its whole configuration, since
// a NetworkAttachmentDefinition may have been edited; attachments belong to all configurations of one name, since it
// is by name that plugins keep them.
type networkSet struct {
	list  []member
	valid map[string][]types.GCAttachment // by network name
}

type member struct {
	network *conf.Network
	config  string
}

func newNetworkSet() *networkSet { return &networkSet{valid: make(map[string][]types.GCAttachment)} }

func (s *networkSet) add(network *conf.Network) {
	config, err := json.Marshal(network)
	if err != nil || slices.ContainsFunc(s.list, func(m member) bool { return m.config == string(config) }) {
		return
	}
	s.list = append(s.list, member{network, string(config)})
}

func (s *networkSet) keep(network *conf.Network, at cni.Attachment) {
	s.valid[network.Name] = append(s.valid[network.Name], types.GCAttachment{ContainerID: at.ContainerID, IfName: at.IfName})
}

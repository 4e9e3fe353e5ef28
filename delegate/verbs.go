package delegate

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/chain"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/journal"
)

// chainOf returns the plugins that made an attachment.
func (c *call) chainOf(a *journal.Attachment) *chain.Chain {
	return chain.Lenient(a.Network, c.path, c.find).With(c.Memory)
}

// Del implements [cni.Plugin]. It needs the journal only: neither the API server, nor a valid configuration, nor the
// namespace.
//
// "Plugins MUST accept multiple DEL calls for the same (CNI_CONTAINERID, CNI_IFNAME) pair, and return success if the
// interface in question, or any modifications added, are missing."
func (d *Delegator) Del(ctx context.Context, req *cni.Request) (err error) {
	ctx, observed := d.observe(ctx, "DEL")
	defer func() { observed.end(err) }()
	entry, invalid := conf.ParseWith(d.Memory, req.Config) // what could be read of an invalid one is enough
	c, err := d.callWith(req, entry)
	if err != nil {
		return err
	}
	observed.of(c)
	if invalid != nil {
		c.log.Warn("the configuration is invalid; DEL works from the journal", "err", invalid)
	}
	ctx, cancel := context.WithTimeout(ctx, c.conf.Deadlines.Del)
	defer cancel()
	unlock, err := c.journal.Lock(ctx, req.ContainerID)
	if err != nil {
		return tryAgain(err)
	}
	defer unlock()

	r, err := c.journal.Get(req.ContainerID, req.IfName)
	if c.Caller != nil && err != nil {
		return cni.ErrElsewhere // what somebody else has made, or nobody can read
	}
	switch part, _ := partOf(err); {
	case errors.Is(err, journal.ErrNotFound):
		return errors.Join(c.delOfOther(ctx), c.journal.Remove(req.ContainerID, req.IfName)) // of a record that was never finished
	case part != nil:
		c.hearRuntime(part)
		return c.delPart(ctx, err)
	case err != nil:
		return err
	}
	if err := c.mayDo(c.chains(r)...); err != nil {
		return err
	}
	c.hearRuntime(r)
	made := r.Attachments
	err = c.undo(ctx, r)
	if c.pod().Name != "" {
		observed.removed(made, r.Attachments, err)
	}
	return err
}

// delOfOther undoes what somebody else has made: a pod that was there before Braid was installed. Multus has kept what it
// made; of others the runtime has kept the result of the ADD, and hands it over: that is undone by the plugins of what is the
// default network now. Where it hands over none there was no ADD, or a DEL since.
func (c *call) delOfOther(ctx context.Context) error {
	found, err := c.delLeftovers(ctx)
	if found {
		return err
	}
	prev, prevErr := cni.PrevResult(c.req.Config)
	if prevErr != nil || prev == nil {
		return err
	}
	plan, planErr := NewPlan(c.conf, nil, c.req.IfName, nil)
	if planErr != nil {
		c.log.Warn("plan", "err", planErr)
	}
	for _, p := range plan {
		if p.Default && p.Network != nil {
			c.log.Info("undo what Braid has not made", "network", p.Name)
			return errors.Join(err, chain.Lenient(p.Network, c.path, c.findBinary).Del(ctx, c.req.Attachment, p.Capabilities, prev))
		}
	}
	return err
}

// delPart undoes what is known of an attachment whose record can not be read as a whole, which the cause says. The record
// is kept beside, for whoever looks for the rest.
func (c *call) delPart(ctx context.Context, cause error) error {
	var newer *journal.NewerError
	if errors.As(cause, &newer) {
		return c.delNewer(ctx, newer)
	}
	c.log.Error("record set aside; only networks of the configuration are undone", "err", cause)
	r := &journal.Record{
		BootID: c.BootID, ContainerID: c.req.ContainerID, Netns: c.req.Netns, IfName: c.req.IfName, Args: c.req.Args,
		Attachments: c.operatorAttachments(),
	}
	r.NetnsInode, _ = inodeOf(c.req.Netns) // the namespace may be gone
	if err := c.journal.SetAside(c.req.ContainerID, c.req.IfName); err != nil {
		return err
	}
	return c.undo(ctx, r)
}

// operatorAttachments are those to the networks of the configuration, as far as they are known without the API server.
func (c *call) operatorAttachments() (list []journal.Attachment) {
	plan, err := NewPlan(c.conf, nil, c.req.IfName, nil)
	if err != nil {
		c.log.Warn("plan", "err", err)
	}
	for _, p := range plan {
		if p.Network != nil {
			list = append(list, journal.Attachment{Name: p.Name, IfName: p.IfName, Default: p.Default, Network: p.Network})
		}
	}
	return list
}

// delNewer undoes what can be read of a record that a newer Braid has written: as long as that fails the record stays as it
// is, and then it is set aside, since there may be more in it.
func (c *call) delNewer(ctx context.Context, newer *journal.NewerError) error {
	c.log.Warn("only what can be read of a record is undone; it will be set aside", "err", newer)
	r := newer.Record
	if len(r.Attachments) == 0 {
		r.Attachments = c.operatorAttachments()
	}
	if _, err := c.takeDown(ctx, r); err != nil {
		return err
	}
	return c.journal.SetAside(r.ContainerID, r.IfName)
}

// hearRuntime takes the word of the runtime for the namespace of a record: that it is gone, or that it is the one at its path
// still, which a record of an early version of Braid does not say.
func (c *call) hearRuntime(r *journal.Record) {
	switch {
	case c.req.Netns == "":
		r.Netns = ""
	case c.req.Netns == r.Netns && r.NetnsInode == 0 && !c.otherBoot(r):
		r.NetnsInode, _ = inodeOf(r.Netns) // it may be gone
	}
}

// Check implements [cni.Plugin]: every attachment of the pod is checked, and all complaints are joined.
func (d *Delegator) Check(ctx context.Context, req *cni.Request) (err error) {
	ctx, observed := d.observe(ctx, "CHECK")
	defer func() { observed.end(err) }()
	c, err := d.call(req)
	if err != nil {
		return err
	}
	observed.of(c)
	ctx, cancel := context.WithTimeout(ctx, c.conf.Deadlines.Check)
	defer cancel()
	unlock, err := c.journal.LockToRead(ctx, req.ContainerID)
	if err != nil {
		return tryAgain(err)
	}
	defer unlock()

	r, err := c.journal.Get(req.ContainerID, req.IfName)
	switch {
	case errors.Is(err, journal.ErrNotFound):
		// "A runtime must not call CHECK for a container that has not been ADDed"
		return types.NewError(types.ErrUnknownContainer, fmt.Sprintf("container %s has no interface %s of this network: there was no ADD, or a DEL since", req.ContainerID, req.IfName), "")
	case err != nil:
		return err
	case !r.Done:
		return fmt.Errorf("interface %s of container %s is incomplete: an ADD or a DEL did not come to its end", req.IfName, req.ContainerID)
	}
	if err := c.mayDo(c.chains(r)...); err != nil {
		return err
	}
	return c.each(r, func(a *journal.Attachment) error { return c.chainOf(a).Check(ctx, r.At(a), a.Capabilities, a.Result) })
}

// Status implements [cni.Plugin]. It asks neither the API server nor waits for anything: runtimes call it every few
// seconds. "A plugin must exit with a zero (success) return code if the plugin is ready to service ADD requests."
func (d *Delegator) Status(ctx context.Context, req *cni.Request) (err error) {
	ctx, observed := d.observe(ctx, "STATUS")
	defer func() { observed.end(err) }()
	c, err := d.call(req)
	if err != nil {
		return err
	}
	observed.of(c)
	ctx, cancel := context.WithTimeout(ctx, c.conf.Deadlines.Status)
	defer cancel()
	if file := c.conf.ReadinessIndicatorFile; file != "" {
		if _, err := os.Stat(file); err != nil {
			return notAvailable("default network is not ready: readinessindicatorfile: %v", err)
		}
	}
	if err := c.journal.Writable(); err != nil {
		return notAvailable("the journal: %v", err)
	}
	if err := c.canResolve(); err != nil {
		return notAvailable("pods and networks can not be looked up: %v", err)
	}
	for _, file := range []string{c.conf.Kubeconfig, c.conf.Manifests} {
		if _, err := os.Stat(file); file != "" && err != nil {
			return notAvailable("pods and networks can not be looked up: %v", err)
		}
	}
	for _, o := range operatorChoices(c.conf, nil) {
		if o.nad != nil {
			continue // in the API server only
		}
		network, err := o.load(c.conf, nil)
		if err != nil {
			return notAvailable("%v", err)
		}
		ch, err := chain.New(network, c.path, c.find)
		if err == nil {
			err = ch.Status(ctx)
		}
		if err != nil {
			return fmt.Errorf("network %s: %w", network.Name, err)
		}
	}
	return nil
}

// canResolve says whether there is a resolver. It is not asked anything.
func (c *call) canResolve() error {
	k, err := c.connect()
	if err != nil {
		return err
	}
	k.Close()
	return nil
}

func notAvailable(format string, args ...any) error {
	return types.NewError(types.ErrPluginNotAvailable, fmt.Sprintf(format, args...), "")
}

package delegate

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sync/errgroup"

	"github.com/braid-cni/braid/chain"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/internal/roomy"
	"github.com/braid-cni/braid/internal/undo"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/netdev/parent"
	"github.com/braid-cni/braid/resolve"
)

// Add implements [cni.Plugin]. The stations of an ADD, in order: whichever of them fails, nothing that was made stays.
func (d *Delegator) Add(ctx context.Context, req *cni.Request) (res *types100.Result, err error) {
	ctx, observed := d.observe(ctx, "ADD")
	defer func() { observed.end(err) }()
	c, err := d.call(req)
	if err != nil {
		return nil, err
	}
	observed.of(c)
	if err := c.conf.CheckDefaultNetwork(); err != nil {
		return nil, err
	}
	if err := c.checkPod(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(undo.WithBudget(ctx, undo.Limit), c.conf.Deadlines.Add)
	defer cancel()
	cluster, err := c.connect()
	if err != nil {
		return nil, err
	}
	defer cluster.Close()
	answer := cluster.ask(ctx)
	unlock, err := c.journal.Lock(ctx, req.ContainerID)
	if err != nil {
		return nil, tryAgain(err)
	}
	defer unlock()
	if err := c.mayDo(); err != nil {
		return nil, err
	}
	cni.Hear(ctx) // nothing was changed so far
	if err := c.undoEarlier(ctx); err != nil {
		return nil, err
	}
	if err := c.ready(ctx); err != nil {
		return nil, err
	}
	inherited, err := c.inherited()
	if err != nil {
		return nil, err
	}
	ns, err := netdev.Open(req.Netns)
	if err != nil {
		return nil, fmt.Errorf("open CNI_NETNS: %w", err)
	}
	defer ns.Close()
	node, err := netdev.Host() // so that the plugins share it too
	if err != nil {
		return nil, fmt.Errorf("open the network namespace of the node: %w", err)
	}
	defer node.Close()
	taken, err := ns.Names()
	if err != nil {
		return nil, err
	}
	pod, err := answer()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil && !errors.Is(err, cni.ErrElsewhere) {
			cluster.reportFailure(ctx, err)
		}
	}()
	plan, chains, err := c.plan(pod, taken)
	if err == nil {
		err = c.mayDo(chains...)
	}
	if err != nil {
		return nil, err
	}
	record, err := c.attach(ctx, ns, plan, chains)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = c.takeBack(ctx, record, err)
		}
	}()
	if err := applyDefaultRoute(ns, plan, slices.Concat(record.Attachments, inherited)); err != nil {
		return nil, err
	}
	report, err := cluster.success(record, plan, inherited)
	if err != nil {
		return nil, err
	}
	record.Done = true
	if record.Pending, err = cluster.pending(report); err != nil {
		return nil, err
	}
	return c.result(record, inherited), cluster.conclude(ctx, record, report)
}

// HearsLate implements [cni.Late].
func (d *Delegator) HearsLate() {}

// inherited returns the cluster-wide default network of a plugin that is chained after the one that makes it, as if it
// were an attachment; nothing if this plugin makes the default network itself. It is neither checked nor undone here.
func (c *call) inherited() ([]journal.Attachment, error) {
	prev, err := cni.PrevResult(c.req.Config)
	if err != nil || prev == nil {
		return nil, err
	}
	if prev, err = normalize(prev, c.req.Attachment, nil); err != nil {
		return nil, fmt.Errorf("prevResult: %w", err)
	}
	return []journal.Attachment{{Name: c.conf.Name, IfName: c.req.IfName, Default: true, Result: prev}}, nil
}

// undoEarlier clears the way for an ADD that follows another of the same attachment which did not come to its end:
// because it was killed, or because its network namespace is gone.
func (c *call) undoEarlier(ctx context.Context) error {
	r, err := c.journal.Get(c.req.ContainerID, c.req.IfName)
	var corrupt *journal.CorruptError
	var newer *journal.NewerError
	switch {
	case errors.Is(err, journal.ErrNotFound):
		return nil
	case errors.As(err, &newer):
		return fmt.Errorf("container %s has interface %s already: %w; DEL it first, or install the newer Braid again",
			c.req.ContainerID, c.req.IfName, newer)
	case errors.As(err, &corrupt):
		if c.Caller != nil {
			return cni.ErrElsewhere
		}
		c.log.Error("record set aside", "err", err)
		return c.journal.SetAside(c.req.ContainerID, c.req.IfName)
	case err != nil:
		return err
	}
	c.hearRuntime(r)
	switch alive, err := c.alive(r); {
	case err != nil:
		return err
	case r.Done && alive && r.Netns == c.req.Netns && !madeByThisCall(ctx, r):
		// "A runtime should not call ADD twice (without an intervening DEL) for the same (network name, container id,
		// name of the interface inside the container)."
		return fmt.Errorf("container %s has interface %s already, made by an ADD at %s: DEL it first", r.ContainerID, r.IfName, r.Created.Format(time.RFC3339))
	}
	if err := c.mayDo(c.chains(r)...); err != nil {
		return err
	}
	c.log.Info("undo an ADD that did not come to its end", "created", r.Created)
	if err := c.undo(ctx, r); err != nil {
		return fmt.Errorf("undo an earlier ADD: %w", err)
	}
	return nil
}

// madeByThisCall says whether a record is that of this very call: of a worker that was killed before it could answer.
func madeByThisCall(ctx context.Context, r *journal.Record) bool {
	return r.Call != "" && r.Call == cni.CallID(ctx)
}

// plan says what will be made, and finds every plugin of it, before anything is changed.
func (c *call) plan(pod *resolve.Answer, taken []string) ([]Planned, []*chain.Chain, error) {
	plan, err := NewPlan(c.conf, pod, c.req.IfName, taken)
	if err != nil {
		return nil, nil, err
	}
	chains := make([]*chain.Chain, len(plan))
	errs := make([]error, len(plan))
	for i, p := range plan {
		if chains[i], err = chain.New(p.Network, c.path, c.find); err != nil {
			errs[i] = fmt.Errorf("network %s: %w", p.Name, err)
		} else {
			chains[i].With(c.Memory)
		}
	}
	c.log.Debug("planned", "attachments", names(plan))
	return plan, chains, errors.Join(errs...)
}

// attach makes the attachments, having noted in the journal what it is about to make. When it fails nothing of them is
// left but what the error says.
func (c *call) attach(ctx context.Context, ns *netdev.Namespace, plan []Planned, chains []*chain.Chain) (*journal.Record, error) {
	inode, err := inodeOf(c.req.Netns)
	if err != nil {
		return nil, err
	}
	pod := c.pod()
	record := &journal.Record{
		Created: time.Now().UTC(), BootID: c.BootID, Network: c.conf.Name, Pod: pod.Namespace + "/" + pod.Name, PodUID: pod.UID,
		ContainerID: c.req.ContainerID, Netns: c.req.Netns, NetnsInode: inode, NetnsCookie: ns.Cookie(), IfName: c.req.IfName, Args: c.req.Args,
		PIDNamespace: pidNamespace(), Call: cni.CallID(ctx),
	}
	for _, p := range plan {
		a := journal.Attachment{Name: p.Name, IfName: p.IfName, Default: p.Default, Network: p.Network, Capabilities: p.Capabilities}
		c.deviceInfo().request(record, &a)
		record.Attachments = append(record.Attachments, a)
	}
	durable, err := c.journal.Begin(record)
	if err != nil {
		return nil, err
	}
	ctx = cni.WithRecord(ctx, durable)
	begun := 0
	exists := make([]bool, len(plan))
	for _, n := range batches(plan, chains) {
		if !chains[begun].InProcess() {
			err = durable()
		}
		if err == nil {
			err = atOnce(ctx, begun, n, func(ctx context.Context, i int) (err error) {
				exists[i], err = c.attachOne(ctx, ns, chains[i], record, i, plan[i].device)
				return err
			})
			begun += n
		}
		if err != nil {
			break
		}
	}
	if cause := durable(); cause != nil && !errors.Is(err, cause) {
		err = errors.Join(err, cause)
	}
	if err == nil {
		return record, nil
	}
	// "Attachments that have not yet been performed shall not be attempted", nor are they undone.
	var made []journal.Attachment
	for i, a := range record.Attachments {
		if exists[i] {
			made = append(made, a)
		}
	}
	record.Attachments = made
	return nil, c.takeBack(ctx, record, err)
}

// atOnce does n things, which are numbered from first on, at the same time. When one of them fails, the context of the
// others ends.
func atOnce(ctx context.Context, first, n int, do func(ctx context.Context, i int) error) error {
	if n == 1 {
		return do(ctx, first) // on this stack, which is large already
	}
	group, ctx := errgroup.WithContext(parent.Together(ctx))
	for i := range n {
		group.Go(func() error {
			roomy.Stack()
			return do(ctx, first+i)
		})
	}
	return group.Wait()
}

// attachOne makes an attachment of the record. Exists says whether anything of it is there when it returns. A panic of a
// plugin is an error as any other: on this goroutine nobody else would recover from it and undo.
func (c *call) attachOne(ctx context.Context, ns *netdev.Namespace, ch *chain.Chain, record *journal.Record, i int, dev device) (exists bool, err error) {
	a := &record.Attachments[i]
	ctx = cni.WithNotices(ctx, func(notice string) { c.log.Warn(notice, "network", a.Name, "interface", a.IfName) })
	defer func() {
		if err != nil {
			err = fmt.Errorf("network %s: %s: %w", a.Name, a.IfName, err)
		}
	}()
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(c.Stderr, "panic: %v\n\n%s", r, debug.Stack())
			exists, err = true, fmt.Errorf("panic: %v", r)
		}
	}()
	at, start := record.At(a), time.Now()
	if err := c.deviceInfo().prepare(at, a.Name, dev, c.log); err != nil {
		return false, errors.Join(err, c.deviceInfo().remove(at, a.Name))
	}
	res, err := ch.Add(ctx, at, a.Capabilities)
	if err != nil {
		var incomplete *chain.UndoError
		return errors.As(err, &incomplete), errors.Join(err, c.deviceInfo().remove(at, a.Name))
	}
	var actual *types100.Interface
	if !ch.InProcess() || podInterface(res) < 0 { // own plugins tell what there is
		link, err := ns.Link(a.IfName)
		if err == nil {
			actual = ns.Interface(link)
		} else if !errors.Is(err, netdev.ErrNotFound) {
			return true, err
		}
	}
	a.Result, err = normalize(res, at, actual)
	c.log.Debug("attached", "network", a.Name, "interface", a.IfName, "took", time.Since(start))
	return true, err
}

// batches says how many attachments are made at the same time, in order. The cluster-wide default network comes first,
// alone. Attachments whose plugins are all own go together, so that what they wait for (DHCP, duplicate address
// detection, carrier) overlaps. A third-party plugin may expect to be the only one at work in the pod, and a parent
// inside the pod must be there: those wait for what comes before them, and what comes after waits for them.
func batches(plan []Planned, chains []*chain.Chain) (sizes []int) {
	together := false // whether the last batch may be added to
	for i, ch := range chains {
		alone := plan[i].Default || !ch.InProcess() || parentInPod(&plan[i])
		if together && !alone {
			sizes[len(sizes)-1]++
			continue
		}
		sizes = append(sizes, 1)
		together = !alone
	}
	return sizes
}

// parentInPod says whether a plugin looks its parent up in the pod, where another attachment may have to make it.
func parentInPod(p *Planned) bool {
	return slices.ContainsFunc(p.Network.Plugins, func(plugin conf.Plugin) bool { return plugin.ParentInPod })
}

// takeBack undoes the attachments of an ADD that fails, and returns why it fails, with what could not be undone.
func (c *call) takeBack(ctx context.Context, record *journal.Record, cause error) error {
	ctx, cancel := undo.Time(ctx, undo.Limit)
	defer cancel()
	if err := c.undo(ctx, record); err != nil {
		return errors.Join(cause, fmt.Errorf("undo: %w", err))
	}
	return cause
}

// result is what the runtime gets to know.
//
// "it MUST handle prevResult by either passing it through, or modifying it appropriately"
func (c *call) result(record *journal.Record, inherited []journal.Attachment) *types100.Result {
	var results []*types100.Result
	for _, a := range slices.Concat(inherited, record.Attachments) {
		if c.conf.Result == conf.ResultDefault && len(results) > 0 {
			break
		}
		results = append(results, a.Result)
	}
	return merge(results)
}

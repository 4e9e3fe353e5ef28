package delegate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/journal"
)

const (
	sweepers      = 8               // records that are undone at the same time
	sweepPatience = 1 * time.Second // for the lock of a container: an ADD or DEL is at work on it, so there is no hurry
)

// A RecordKey tells a record of the journal from every other one, that of a later ADD of the same container included.
type RecordKey struct {
	ContainerID string    `json:"containerID"`
	IfName      string    `json:"ifName"`
	Created     time.Time `json:"created,omitzero"` // zero if it could not be read
}

// Is says whether two keys are of the same record.
func (k RecordKey) Is(other RecordKey) bool {
	return k.ContainerID == other.ContainerID && k.IfName == other.IfName && k.Created.Equal(other.Created)
}

// Name is that of the record in the journal.
func (k RecordKey) Name() string { return k.ContainerID + ":" + k.IfName }

func keyOf(r *journal.Record) RecordKey { return RecordKey{r.ContainerID, r.IfName, r.Created} }

// Known is what the caller of a sweep knows of a record and the node cannot tell.
type Known struct {
	RecordKey
	// StaleSeconds have passed since an earlier sweep found the record stale; every sweep since has found it so too.
	StaleSeconds float64 `json:"staleSeconds,omitempty"`
	// PodGone says that the API server has no pod of the record's UID any more.
	PodGone bool `json:"podGone,omitempty"`
}

// SweepOptions say how careful a sweep is, and what it may use of what others have found.
type SweepOptions struct {
	// Grace is how long a record must have been stale before it is undone: the runtime's own DEL comes first. What
	// another boot of the node has left is undone at once.
	Grace time.Duration
	// DryRun changes nothing.
	DryRun bool
	// Unreadable has records undone too of which too little can be read to judge them, and those of a newer version of Braid
	// as far as they can be read. Whoever sets it knows that their containers are gone.
	Unreadable bool
	// Repair has what attachments of containers that live have lost on the node made again, as far as their plugins can.
	Repair bool
	// Spare undoes nothing. It is for repairs alone.
	Spare bool
	Known []Known
	// Found is told of every record, one at a time; required.
	Found func(Finding)
}

// What a sweep can find a record to be.
const (
	Alive      = "alive"
	Dead       = "dead"       // its namespace is gone, or of another boot
	PodGone    = "podGone"    // its namespace is there, without any process, and its pod is not
	Unknown    = "unknown"    // it cannot be told, and so is left alone
	Unreadable = "unreadable" // the record cannot be read, and what can be read of it does not say more
	Broken     = "broken"     // alive, but something of it is missing on the node; only looked for with SweepOptions.Repair
)

// What a sweep can have done about it.
const (
	Kept   = "kept"
	Waits  = "waits"  // until its grace is over, or for the next sweep if this one is ended
	Busy   = "busy"   // an ADD, DEL or GC is at work on it, or came first
	Would  = "would"  // be undone or repaired, but for SweepOptions.DryRun
	Undone = "undone" // nothing is left of it
	Failed = "failed" // what could not be undone is still in the journal, for the next sweep

	Repaired   = "repaired"   // nothing is missing any more
	Unrepaired = "unrepaired" // something still is
)

// A Finding is what a sweep makes of a record.
type Finding struct {
	RecordKey
	Network     string   `json:"network,omitempty"` // of the entry configuration
	Pod         string   `json:"pod,omitempty"`     // "namespace/name"
	PodUID      string   `json:"podUID,omitempty"`
	Attachments []string `json:"attachments,omitempty"` // "network@interface"
	Verdict     string   `json:"verdict"`
	Reason      string   `json:"reason,omitempty"` // for the verdict, to be read by people
	Action      string   `json:"action"`
	Error       string   `json:"error,omitempty"` // why the action is Failed or Unrepaired
}

// Sweep undoes what the journal has of containers that are gone without a DEL: many runtimes never call GC. It needs what
// DEL needs, the journal and the plugins. Of the request it uses Path and Config.
//
// A record is judged by what is at the path of its namespace, see judge, and once more right before it is undone, when
// its container is locked: an ADD or DEL that came between has made another record of it, or none. What is not in the
// journal is never touched, reservations without a record included: they may be of another runtime, whose plugins use the
// same folder.
//
// The error is that of the journal. What happened to each record is in the findings.
func (d *Delegator) Sweep(ctx context.Context, req *cni.Request, o SweepOptions) error {
	entry, invalid := conf.ParseWith(d.Memory, req.Config) // what could be read of an invalid one is enough, as it is for DEL
	c, err := d.callWith(req, entry)
	if err != nil {
		return err
	}
	if invalid != nil {
		c.log.Warn("the configuration is invalid; the sweep works from the journal", "err", invalid)
	}
	entry.Ignored = nil // has been told
	records, err := c.journal.All()
	s := &sweep{Delegator: d, req: req, conf: entry, journal: c.journal, o: o}
	candidates := s.candidates(records)
	unreadable, other := s.unreadable(err)
	candidates = append(candidates, unreadable...)

	// In no order: some that never come to an end must not keep the same others waiting in each sweep.
	rand.Shuffle(len(candidates), func(i, j int) { candidates[i], candidates[j] = candidates[j], candidates[i] })
	var group errgroup.Group
	group.SetLimit(sweepers)
	for _, f := range candidates {
		group.Go(func() error {
			s.found(s.undo(ctx, f))
			return nil
		})
	}
	for _, f := range s.live {
		group.Go(func() error {
			s.found(s.repair(ctx, f))
			return nil
		})
	}
	err = group.Wait()
	if !o.DryRun {
		err = errors.Join(err, c.journal.Tidy())
	}
	return errors.Join(err, other)
}

// A sweep is one walk over the journal.
type sweep struct {
	*Delegator
	req     *cni.Request
	conf    *conf.Config
	journal *journal.Journal
	o       SweepOptions
	claimed map[uint64]bool // inodes of namespaces that are there and belong to a record
	procs   processes       // as they were after all paths had been looked at
	live    []Finding       // to be looked at for a repair

	mu sync.Mutex // held while Found is called
}

func (s *sweep) found(f Finding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.o.Found(f)
}

// candidates judges the records, and returns those to be undone.
func (s *sweep) candidates(records []*journal.Record) (list []Finding) {
	s.claimed = make(map[uint64]bool)
	sights := make([]sight, len(records))
	for i, r := range records {
		sights[i] = look(r)
		if sights[i].state == there && !s.otherBoot(r) {
			s.claimed[r.NetnsInode] = true
		}
	}
	for i, r := range records {
		f := findingOf(r)
		switch {
		case s.decide(&f, s.judge(r, sights[i], &s.procs)):
			list = append(list, f)
		case s.o.Repair && f.Verdict == Alive && r.Done:
			s.live = append(s.live, f)
		default:
			s.found(f)
		}
	}
	return list
}

func findingOf(r *journal.Record) Finding {
	f := Finding{RecordKey: keyOf(r), Network: r.Network, Pod: r.Pod, PodUID: r.PodUID}
	for _, a := range r.Attachments {
		f.Attachments = append(f.Attachments, a.Name+"@"+a.IfName)
	}
	return f
}

// decide notes the verdict and what follows from it, and says whether the record is to be undone now.
func (s *sweep) decide(f *Finding, j judgement) bool {
	f.Verdict, f.Reason = j.verdict, j.reason
	switch {
	case !j.stale(), s.o.Spare:
		f.Action = Kept
	case !j.certain && s.known(f.RecordKey).StaleSeconds < s.o.Grace.Seconds():
		f.Action = Waits
	case s.o.DryRun:
		f.Action = Would
	default:
		return true
	}
	return false
}

func (s *sweep) known(key RecordKey) Known {
	for _, k := range s.o.Known {
		if k.Is(key) {
			return k
		}
	}
	return Known{}
}

// undo undoes the record of a finding if it is the same one and stale still. A panic of a plugin is an error as any
// other: the other records are to be undone all the same.
func (s *sweep) undo(ctx context.Context, f Finding) (res Finding) {
	defer func() {
		if r := recover(); r != nil {
			f.Action, f.Error = Failed, s.panicked(r)
			res = f
		}
	}()
	c, unlock, err := s.enter(ctx, &f)
	if err != nil {
		f.Action, f.Error = Failed, err.Error()
	}
	if c == nil {
		return f
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, s.conf.Deadlines.Del)
	defer cancel()

	r, err := s.journal.Get(f.ContainerID, f.IfName)
	part, _ := partOf(err)
	switch {
	case errors.Is(err, journal.ErrNotFound), err == nil && !f.Is(keyOf(r)):
		f.Action = Busy
		return f
	case part != nil:
		if !s.stillUnreadable(err, &f) {
			return f
		}
		c.req.Args = part.Args
		err = c.delPart(ctx, err)
	case err == nil:
		if !s.decide(&f, s.judge(r, look(r), s.processesNow(f.Verdict))) {
			return f
		}
		c.log.Info("undo what is left of a container that is gone", "pod", r.Pod, "verdict", f.Verdict, "reason", f.Reason)
		err = c.undo(ctx, r)
	}
	f.Action = Undone
	if err != nil {
		f.Action, f.Error = Failed, err.Error()
	}
	return f
}

func (s *sweep) panicked(r any) string {
	fmt.Fprintf(s.Stderr, "panic: %v\n\n%s", r, debug.Stack())
	return fmt.Sprintf("panic: %v", r)
}

// enter gets the lock of a container. It returns no call if there is nothing to be done now, and why: in the action, or
// as an error.
func (s *sweep) enter(ctx context.Context, f *Finding) (c *call, unlock func(), err error) {
	if ctx.Err() != nil {
		f.Action = Waits
		return nil, nil, nil
	}
	req := *s.req
	req.Attachment = cni.Attachment{ContainerID: f.ContainerID, IfName: f.IfName}
	if c, err = s.callWith(&req, s.conf); err != nil {
		return nil, nil, err
	}
	waiting, cancel := context.WithTimeout(ctx, sweepPatience)
	defer cancel()
	if unlock, err = s.journal.Lock(waiting, f.ContainerID); err != nil {
		f.Action = Busy
		return nil, nil, nil
	}
	return c, unlock, nil
}

// processesNow returns the processes to judge a record by for the second time. A namespace that has a path can have been
// entered since the first time; one that has none can only have been left.
func (s *sweep) processesNow(verdict string) *processes {
	if verdict == PodGone {
		return new(processes)
	}
	return &s.procs
}

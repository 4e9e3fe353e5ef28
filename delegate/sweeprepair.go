package delegate

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/braid-cni/braid/journal"
)

// repair looks for what the attachments of a record lack on the node, and has their plugins make it again. What a pod has
// done inside its namespace is not looked at. The record stays as it is: it says what there is to be.
func (s *sweep) repair(ctx context.Context, f Finding) (res Finding) {
	defer func() {
		if r := recover(); r != nil {
			f.Verdict, f.Action, f.Error = Broken, Unrepaired, s.panicked(r)
			res = f
		}
	}()
	c, unlock, err := s.enter(ctx, &f)
	if err != nil {
		f.Verdict, f.Action, f.Error = Broken, Unrepaired, err.Error()
	}
	if c == nil {
		return f
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(ctx, s.conf.Deadlines.Check)
	defer cancel()
	r, err := s.journal.Get(f.ContainerID, f.IfName)
	if err != nil || !f.Is(keyOf(r)) || !r.Done {
		f.Action = Busy
		return f
	}
	if alive, err := c.alive(r); err != nil || !alive {
		f.Action = Busy // it has just ended
		return f
	}
	f.Action = Kept
	missing := c.broken(ctx, r)
	if missing == nil {
		return f
	}
	f.Verdict, f.Reason = Broken, oneLine(missing)
	if s.o.DryRun {
		f.Action = Would
		return f
	}
	c.log.Info("repair what a pod has lost on the node", "pod", r.Pod, "reason", f.Reason)
	err = c.each(r, func(a *journal.Attachment) error { return c.chainOf(a).Repair(ctx, r.At(a), a.Capabilities, a.Result) })
	f.Action = Repaired
	if still := c.broken(ctx, r); still != nil {
		f.Action, f.Error = Unrepaired, oneLine(errors.Join(err, still))
	}
	return f
}

func (c *call) broken(ctx context.Context, r *journal.Record) error {
	return c.each(r, func(a *journal.Attachment) error { return c.chainOf(a).Broken(ctx, r.At(a), a.Capabilities, a.Result) })
}

// each does something with every attachment, and joins the errors.
func (c *call) each(r *journal.Record, do func(*journal.Attachment) error) error {
	var errs []error
	for i := range r.Attachments {
		a := &r.Attachments[i]
		if err := do(a); err != nil {
			errs = append(errs, fmt.Errorf("network %s: %s: %w", a.Name, a.IfName, err))
		}
	}
	return errors.Join(errs...)
}

// oneLine returns the text of an error that may be several.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// Package undo keeps the steps that take back what a function has done so far.
//
//	func add() (err error) {
//		var u undo.Stack
//		defer u.OnError(&err)
//		...
//		u.Add("delete link net1", func() error { ... })
//
// Where to add a step: before a compound action (running another plugin can fail halfway), after an atomic one
// (creating a link), and never for a thing that was there already.
package undo

import (
	"errors"
	"fmt"
)

// A Stack runs its steps in reverse order. The zero value is ready to use; it is not safe for concurrent use.
type Stack struct{ steps []step }

type step struct {
	what string
	do   func() error
}

// Add registers a step. What names it in the error if it fails: "delete link net1".
func (s *Stack) Add(what string, do func() error) { s.steps = append(s.steps, step{what, do}) }

// OnError runs the steps if *err is not nil, and joins the errors of steps that failed to it. Defer it with a named
// result, so that no shadowed err can keep it from running.
func (s *Stack) OnError(err *error) {
	if *err != nil {
		*err = errors.Join(*err, s.Run())
	}
}

// Run runs all steps, last one first, and forgets them. A failing step does not stop the others.
func (s *Stack) Run() error {
	var errs []error
	for i := len(s.steps) - 1; i >= 0; i-- {
		if err := s.steps[i].do(); err != nil {
			errs = append(errs, fmt.Errorf("undo: %s: %w", s.steps[i].what, err))
		}
	}
	s.steps = nil
	return errors.Join(errs...)
}

package node

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// A Part is something that the daemon does all the time.
type Part struct {
	Name string
	// Run runs the part until ctx ends. When it returns nil before, the part has done what it had to. After an error or a
	// panic it is called again, with growing pauses; the other parts go on meanwhile.
	Run func(ctx context.Context) error
	// Ready says why the part is not ready. It may be nil: then a part is, unless Run has failed lately.
	Ready func() error
}

const (
	minPause = 100 * time.Millisecond // before a part is run again
	maxPause = 30 * time.Second
	// settledTime is how long a part has to run after a failure until that is history.
	settledTime = 5 * time.Second
)

// A supervised part is run again when it fails.
type supervised struct {
	Part
	log *slog.Logger

	mu      sync.Mutex
	failure error     // the last one
	since   time.Time // when it was run again after that; zero until then
}

func (s *supervised) run(ctx context.Context) {
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		start := time.Now()
		err := s.once(ctx)
		switch {
		case err == nil:
			return
		case ctx.Err() != nil:
			s.log.Warn("failed while it ended", "err", err)
			return
		}
		if time.Since(start) > maxPause {
			pause = minPause
		}
		s.log.Error("failed, and will be run again", "err", err, "in", pause)
		s.set(err, time.Time{})
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
			s.set(err, time.Now())
		}
	}
}

// once runs the part until it ends, by a panic too.
func (s *supervised) once(ctx context.Context) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic", "value", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return s.Run(ctx)
}

func (s *supervised) set(failure error, since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure, s.since = failure, since
}

func (s *supervised) ready() error {
	s.mu.Lock()
	failure, since := s.failure, s.since
	s.mu.Unlock()
	if failure != nil && (since.IsZero() || time.Since(since) < settledTime) {
		return failure
	}
	if s.Ready != nil {
		return s.Ready()
	}
	return nil
}

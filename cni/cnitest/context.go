package cnitest

import (
	"context"
	"sync"
	"time"
)

// endAfter returns a context that ends when somebody looks at it for the n-th time, so that a plugin can be stopped
// at each place where it looks.
func endAfter(looks int) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	return &countdown{Context: ctx, cancel: cancel, left: looks}
}

type countdown struct {
	context.Context
	cancel context.CancelFunc

	mu   sync.Mutex
	left int
}

func (c *countdown) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == 0 {
		c.cancel()
	}
	c.left--
}

func (c *countdown) Deadline() (time.Time, bool) { return time.Time{}, false }

func (c *countdown) Done() <-chan struct{} {
	c.look()
	return c.Context.Done()
}

func (c *countdown) Err() error {
	c.look()
	return c.Context.Err()
}

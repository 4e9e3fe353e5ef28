package cni

import "context"

// A Late plugin has much to do before an ADD changes anything, and calls [Hear] then. Every other plugin is called when signals
// are heard.
type Late interface {
	Plugin
	HearsLate()
}

type heardKey struct{}

// WithHeard returns a context in which [Hear] waits until heard is closed. [Main] makes it so where signals are not heard yet.
func WithHeard(ctx context.Context, heard <-chan struct{}) context.Context {
	return context.WithValue(ctx, heardKey{}, heard)
}

// Hear returns when a signal would cancel the context of an ADD: what is begun from here on can be undone. It is for plugins that
// are [Late], and may be called more than once.
func Hear(ctx context.Context) {
	if heard, ok := ctx.Value(heardKey{}).(<-chan struct{}); ok {
		<-heard
	}
}

// hearing returns the context for a plugin, when signals are heard if it does not wait for that itself. Heard may be nil.
func hearing(ctx context.Context, command string, p Plugin, heard <-chan struct{}) context.Context {
	if heard == nil {
		return ctx
	}
	ctx = WithHeard(ctx, heard)
	if _, late := p.(Late); !late || command != "ADD" {
		Hear(ctx)
	}
	return ctx
}

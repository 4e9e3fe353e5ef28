package node

import (
	"context"

	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/resolve"
)

// Limit bounds what is asked of a slow source: how many look-ups run at once, and how many more wait for that. Further ones
// fail at once, as those do whose time is over before it is their turn. It goes between a cache and the API server behind
// it, so that what the cache has is answered however slow the server is.
func Limit(src lookup.Source, atOnce, waiting int) lookup.Source {
	return &limited{source: src, running: make(chan struct{}, atOnce), admitted: make(chan struct{}, atOnce+waiting)}
}

type limited struct {
	source            lookup.Source
	running, admitted chan struct{} // hold as many as there are
}

func (l *limited) Pod(ctx context.Context, pod resolve.Pod) (*lookup.Pod, error) {
	done, err := l.admit(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return l.source.Pod(ctx, pod)
}

func (l *limited) Network(ctx context.Context, name resolve.NetworkName) (*resolve.Network, error) {
	done, err := l.admit(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return l.source.Network(ctx, name)
}

// admit waits until it is the caller's turn. The caller calls done in the end.
func (l *limited) admit(ctx context.Context) (done func(), err error) {
	select {
	case l.admitted <- struct{}{}:
	default:
		return nil, busy("braidd asks the API server for as much as it may, and more wait than may wait")
	}
	select {
	case l.running <- struct{}{}:
		return func() { <-l.running; <-l.admitted }, nil
	case <-ctx.Done():
		<-l.admitted
		return nil, busy("braidd asks the API server for as much as it may: " + context.Cause(ctx).Error())
	}
}

func busy(message string) error { return &resolve.Error{Reason: resolve.Unavailable, Message: message} }

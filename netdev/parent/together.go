package parent

import (
	"context"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/netdev"
)

// Together returns the context of attachments that are made at the same time. Those that are looking for the same parent
// in the same way look once. What is found is older than the question by no more than they take.
func Together(ctx context.Context) context.Context {
	return context.WithValue(ctx, togetherKey{}, &found{})
}

type togetherKey struct{}

// A question, and its answer.
type question struct {
	selector Selector
	in       *netdev.Namespace
}

type answer struct {
	once sync.Once
	link netlink.Link
	err  error
}

// found is what is known already.
type found struct {
	sync.Mutex
	answers map[question]*answer
}

// ResolveOnce is Resolve, within a context of [Together]. The link is not to be changed.
func (s Selector) ResolveOnce(ctx context.Context, ns *netdev.Namespace) (netlink.Link, error) {
	known, ok := ctx.Value(togetherKey{}).(*found)
	if !ok {
		return s.Resolve(ns)
	}
	a := known.answer(question{s, ns})
	a.once.Do(func() { a.link, a.err = s.Resolve(ns) })
	return a.link, a.err
}

func (f *found) answer(q question) *answer {
	f.Lock()
	defer f.Unlock()
	if f.answers == nil {
		f.answers = map[question]*answer{}
	}
	if f.answers[q] == nil {
		f.answers[q] = &answer{}
	}
	return f.answers[q]
}

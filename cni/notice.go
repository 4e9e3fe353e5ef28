package cni

import "context"

type noticeKey struct{}

// WithNotices returns a context whose plugins tell the function what an operator should know of a request that
// succeeds all the same. It may be called concurrently.
func WithNotices(ctx context.Context, tell func(notice string)) context.Context {
	return context.WithValue(ctx, noticeKey{}, tell)
}

// Notice tells whoever listens to the plugins of the context. A CNI result has no place for it.
func Notice(ctx context.Context, notice string) {
	if tell, ok := ctx.Value(noticeKey{}).(func(string)); ok {
		tell(notice)
	}
}

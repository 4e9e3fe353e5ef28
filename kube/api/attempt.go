package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/resolve"
)

const (
	tryTime  = 10 * time.Second // for one request: the next may meet an API server that answers
	lateTime = time.Second      // for what an API server should have had before the plugin was called
)

// Pauses between requests that the API server could not serve: each is twice as long as the one before, and up to half as
// long again, so that those who failed together do not come back together.
const (
	firstPause = 50 * time.Millisecond
	maxPause   = 2 * time.Second
)

// An operation names what is tried, in the words of RBAC.
type operation struct{ verb, resource, namespace, name string }

func (o operation) String() string {
	if o.name == "" {
		return o.verb + " " + o.resource
	}
	return fmt.Sprintf("%s %s %s/%s", o.verb, o.resource, o.namespace, o.name)
}

// A lateError may be gone in a moment.
type lateError struct {
	err    *resolve.Error
	within time.Duration // of the first try; lateTime if it is less
}

func (e lateError) Error() string { return e.err.Error() }
func (e lateError) Unwrap() error { return e.err }

// attempt tries a request until it succeeds, trying again is of no use, or ctx ends. Its errors are of type
// *resolve.Error; when ctx ends, that of the last complete try, which says more than that time is over. A panic is one too.
func (r *Resolver) attempt(ctx context.Context, o operation, request func(context.Context) error) (err error) {
	defer lookup.Recovered(&err)
	next, start := firstPause, time.Now()
	var last *resolve.Error
	for {
		tryCtx, cancel := context.WithTimeout(ctx, tryTime)
		err = request(tryCtx)
		cancel()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = r.explain(o, err)
		}
		pause := next + rand.N(next/2)
		next = min(2*next, maxPause)
		if status, ok := errors.AsType[*StatusError](err); ok {
			pause = max(pause, status.Delay)
		}
		soon, late := errors.AsType[lateError](err)
		within := max(lateTime, soon.within)
		if r.server.Rereads && hasCode(err, http.StatusUnauthorized) {
			late = true // a token that was being replaced
		}
		again := last.Reason == resolve.Unavailable || late && time.Since(start)+pause < within
		if !again || !sleep(ctx, pause) {
			return last
		}
	}
}

// explain gives an error a reason, and says what to change.
func (r *Resolver) explain(o operation, err error) *resolve.Error {
	if e, ok := errors.AsType[*resolve.Error](err); ok {
		return &resolve.Error{Reason: e.Reason, Message: fmt.Sprintf("%s: %s", o, e.Message)}
	}
	switch {
	case hasCode(err, http.StatusUnauthorized):
		return invalid("%s: the API server does not accept the credentials of %s: %v", o, r.server.Credentials, err)
	case hasCode(err, http.StatusForbidden):
		return invalid("%s: %v; the account of %s needs the verb %q on %s", o, err, r.server.Credentials, o.verb, o.resource)
	case isUnknownPath(err):
		return invalid("%s: the API server has no %s: apply their CustomResourceDefinition", o, o.resource)
	case isUnavailable(err):
		return &resolve.Error{Reason: resolve.Unavailable, Message: fmt.Sprintf("%s: %v", o, err)}
	}
	return invalid("%s: %v", o, err)
}

// isUnavailable tells if the same request may be served later.
func isUnavailable(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	status, ok := errors.AsType[*StatusError](err)
	if !ok {
		return true // there was no answer, or it broke off
	}
	code := status.Code
	// A conflict: others have changed the object several times while the API server tried to apply a patch.
	return code == http.StatusConflict || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= http.StatusInternalServerError
}

// sleep reports false at once if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < d {
		return false
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// Explain says what to change about an error of the API server.
func (r *Resolver) Explain(verb, resource string, err error) error {
	return r.explain(operation{verb: verb, resource: resource}, err)
}

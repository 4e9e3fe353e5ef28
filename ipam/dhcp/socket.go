package dhcp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/peercred"
	"github.com/braid-cni/braid/ipam/dhcp/client4"
	"github.com/braid-cni/braid/ipam/dhcp/client6"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

// How long the keeper is waited for if the context does not end before. It has bounds of its own; these are for one
// that hangs.
const (
	addPatience = 10 * time.Minute
	patience    = 30 * time.Second
)

// errAbsent is wrapped by the error of ask if nobody listens on the socket.
var errAbsent = errors.New("the DHCP lease keeper does not run")

// nextPatience is how long an ADD waits for the keeper that follows one that has ended: an upgrade takes a moment.
const nextPatience = 10 * time.Second

// ask sends a request to the keeper. Errors carry code 11, or the one that the keeper gave them.
func ask(ctx context.Context, socket string, req *lease.Request) (*lease.Response, error) {
	limit := patience
	if req.Verb == lease.VerbAdd {
		limit = addPatience
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	res, err := exchange(ctx, socket, req)
	if req.Verb == lease.VerbAdd {
		for start := time.Now(); isBetween(socket, res, err) && time.Since(start) < nextPatience && ctx.Err() == nil; {
			time.Sleep(50 * time.Millisecond)
			res, err = exchange(ctx, socket, req)
		}
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, tryAgain(fmt.Errorf("ask the DHCP lease keeper at %s: %w", socket, context.Cause(ctx)))
	case err != nil:
		return nil, tryAgain(err)
	case res.Error != nil:
		return nil, res.Error
	}
	return res, nil
}

// isBetween tells if a keeper is about to end, has ended while it was asked, or does not run although there was one since the
// node has started.
func isBetween(socket string, res *lease.Response, err error) bool {
	if err == nil {
		return res.Error != nil && res.Error.Details == lease.DetailsEnding
	}
	if _, err := os.Stat(lease.Dir(socket)); err != nil {
		return false
	}
	return errors.Is(err, errAbsent) || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

func exchange(ctx context.Context, socket string, req *lease.Request) (*lease.Response, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: nobody listens on %s (start braidd dhcp, or set ipam.daemonSocketPath)", errAbsent, socket)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the DHCP lease keeper: %w", err)
	}
	defer conn.Close()
	if err := peercred.Root(conn.(*net.UnixConn)); err != nil {
		return nil, fmt.Errorf("trust what listens on %s: %w", socket, err)
	}
	// The keeper sees it, and gives up what is not wanted any more.
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	req.Version = lease.ProtocolVersion
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return nil, fmt.Errorf("ask the DHCP lease keeper at %s: %w", socket, err)
	}
	res := new(lease.Response)
	if err := lease.Read(conn, res); err != nil {
		return nil, fmt.Errorf("read the answer of the DHCP lease keeper at %s (is it the daemon of another plugin?): %w",
			socket, err)
	}
	return res, nil
}

func tryAgain(err error) error { return &tryAgainError{err} }

// A tryAgainError has code 11, "Try again later", and still wraps what it is made of.
type tryAgainError struct{ error }

func (e *tryAgainError) Unwrap() []error {
	return []error{e.error, types.NewError(types.ErrTryAgainLater, e.Error(), "")}
}

// releasePatience is how long a keeper that does not answer holds up a DEL: a part of the time that there is, since the rest of
// the pod is to be undone in it too, and what a failed ADD undoes comes here up to four times.
func releasePatience(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return min(patience, time.Until(deadline)/4)
	}
	return patience
}

// release gives the leases of an attachment back, by the keeper, or without it if it does not run. It fails only if
// the context ends.
func release(ctx context.Context, socket string, key lease.Key) error {
	req := &lease.Request{Verb: lease.VerbDel, Spec: lease.Spec{Key: key}}
	short, cancel := context.WithTimeout(ctx, releasePatience(ctx))
	defer cancel()
	err := askOrOpen(short, socket, req, func(s *lease.Store) error {
		r, err := s.Get(key)
		if r == nil || err != nil {
			return err
		}
		return releaseRecord(ctx, s, r)
	})
	if err != nil {
		// A keeper that does not answer will find the interface gone, and forget the lease.
		return ctx.Err()
	}
	return nil
}

// collect releases the leases of a network that are not in the list.
func collect(ctx context.Context, socket, network string, valid []types.GCAttachment) error {
	req := &lease.Request{Verb: lease.VerbGC, Spec: lease.Spec{Key: lease.Key{Network: network}}, Valid: valid}
	return askOrOpen(ctx, socket, req, func(s *lease.Store) error {
		records, err := s.All()
		errs := []error{err}
		for _, r := range records {
			k := r.Spec.Key
			if k.Network == network && !slices.Contains(valid, types.GCAttachment{ContainerID: k.ContainerID, IfName: k.IfName}) {
				errs = append(errs, releaseRecord(ctx, s, r))
			}
		}
		return errors.Join(errs...)
	})
}

// askOrOpen has the keeper do something that can be done twice, or does it to the records of a keeper that does not run;
// there being none is no error. A keeper that has its records open and does not answer is about to start or to end, or a
// connection to it broke: it is asked again.
func askOrOpen(ctx context.Context, socket string, req *lease.Request, do func(*lease.Store) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for tries := 20; ; tries-- {
		res, err := exchange(ctx, socket, req)
		switch {
		case err == nil && res.Error == nil:
			return nil
		case err == nil && res.Error.Details != lease.DetailsEnding:
			return res.Error
		case err == nil:
			err = res.Error
		}
		if ctx.Err() != nil {
			return tryAgain(fmt.Errorf("ask the DHCP lease keeper at %s: %w", socket, context.Cause(ctx)))
		}
		s, openErr := lease.OpenStore(lease.Dir(socket))
		switch {
		case openErr == nil:
			return errors.Join(do(s), s.Close())
		case errors.Is(openErr, fs.ErrNotExist) && errors.Is(err, errAbsent):
			return nil
		case !errors.Is(openErr, lease.ErrBusy) || tries == 0:
			return tryAgain(errors.Join(err, openErr))
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// releaseTime bounds how long servers and neighbours that do not answer are waited for.
const releaseTime = 5 * time.Second

// releaseRecord does what the keeper would do.
func releaseRecord(ctx context.Context, s *lease.Store, r *lease.Record) error {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	held := r.Held()
	if held.IPv4 != nil {
		c := client4.Client{Interface: r.Interface, Spec: &r.Spec}
		_ = c.Release(ctx, held.IPv4) // see Del
	}
	if held.IPv6 != nil {
		c := client6.Client{Interface: r.Interface, Spec: &r.Spec}
		_ = c.Release(ctx, held.IPv6)
	}
	return s.Remove(r.Spec.Key)
}

// addressee reads what a DEL needs of a configuration, whatever else is wrong in it.
func addressee(doc []byte) (network, socket string) {
	var c struct {
		Name any `json:"name"`
		IPAM any `json:"ipam"`
	}
	_ = json.Unmarshal(doc, &c)
	network, _ = c.Name.(string)
	ipam, _ := c.IPAM.(map[string]any)
	socket, _ = ipam["daemonSocketPath"].(string)
	if !strings.HasPrefix(socket, "/") || len(socket) > maxSocket {
		socket = lease.DefaultSocket
	}
	return network, socket
}

package hostlocal

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/ipam/hostlocal/store"
)

// allocate reserves an address of each range set for an owner that has none yet.
func (c *config) allocate(s *store.Store, o store.Owner) (picks []store.Pick, err error) {
	held, err := s.Of(o)
	if err != nil {
		return nil, err
	}
	if len(held) > 0 {
		return nil, fmt.Errorf("%s has the address %s already: duplicate allocation is not allowed, DEL comes first", o, held[0])
	}
	for range 3 { // a writer that does not take the lock may be faster
		if picks, err = c.pick(s); err != nil {
			return nil, err
		}
		err = s.Reserve(o, picks)
		if _, taken := errors.AsType[*store.TakenError](err); !taken {
			break
		}
	}
	if err == nil && c.pod != "" {
		c.remember(s, picks)
	}
	return picks, err
}

// remember notes the addresses for the pod's next ADD. That they cannot be noted does not keep this one from having
// them.
func (c *config) remember(s *store.Store, picks []store.Pick) {
	var addrs []netip.Addr
	for _, p := range picks {
		addrs = append(addrs, p.Addr)
	}
	_ = s.Remember(c.pod, addrs)
}

// pick chooses an address of each range set. It changes nothing.
func (c *config) pick(s *store.Store) (picks []store.Pick, err error) {
	var remembered []netip.Addr
	if c.pod != "" {
		remembered = s.Remembered(c.pod)
	}
	for i := range c.sets {
		p, err := c.pickOf(s, i, remembered)
		if err != nil {
			return nil, err
		}
		picks = append(picks, p)
	}
	return picks, nil
}

// pickOf chooses an address of set i: the requested one, or else one that the pod had before, or else the next free
// one. The cursor follows in the first and the last case, as it does in the reference.
func (c *config) pickOf(s *store.Store, i int, remembered []netip.Addr) (store.Pick, error) {
	if a := c.requested[i]; a.IsValid() {
		reserved, err := s.Reserved(a)
		if err == nil && reserved {
			err = c.notAvailable(s, a)
		}
		return store.Pick{Addr: a, Set: i, Cursor: true}, err
	}
	for _, a := range remembered {
		if _, in := c.sets[i].find(a); !in || !c.usable(a) {
			continue
		}
		if reserved, err := s.Reserved(a); err != nil || !reserved {
			return store.Pick{Addr: a, Set: i}, err
		}
	}
	a, err := c.next(s, i)
	if err == nil && !a.IsValid() {
		err = c.exhausted(s, i, types.ErrTryAgainLater)
	}
	return store.Pick{Addr: a, Set: i, Cursor: true}, err
}

// next returns the next free address of set i; an invalid one if there is none.
func (c *config) next(s *store.Store, i int) (a netip.Addr, err error) {
	for _, span := range c.sets[i].after(s.Cursor(i)) {
		for span.first.IsValid() && !span.last.Less(span.first) {
			if a, err = s.NextFree(span.first, span.last); err != nil || !a.IsValid() {
				break
			}
			if c.usable(a) {
				return a, nil
			}
			span.first = a.Next()
		}
		if err != nil {
			return netip.Addr{}, err
		}
	}
	return netip.Addr{}, nil
}

func (c *config) notAvailable(s *store.Store, a netip.Addr) error {
	if holder, ok := s.Holder(a); ok {
		return fmt.Errorf("requested address %s is not available: %s has it", a, holder)
	}
	return fmt.Errorf("requested address %s is not available: its file names no container that could have it", a)
}

func (c *config) exhausted(s *store.Store, i int, code uint) error {
	var used uint64
	for _, r := range c.sets[i].ranges {
		n, err := s.Count(r.first, r.last)
		if err != nil {
			return err
		}
		used += n
	}
	return types.NewError(code, fmt.Sprintf("no address is free in %s (%s): %d used, 0 free; delete pods, or add a range",
		c.sets[i], c.sets[i].key, used), "")
}

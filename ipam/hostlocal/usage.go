package hostlocal

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"math/bits"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/braid-cni/braid/ipam/hostlocal/store"
)

// A Pool is a range set of a configuration: every attachment has one address of it.
type Pool struct {
	Size, Used float64 // addresses that it can give out, and that are reserved
}

// maxPeek bounds how many files of a folder are counted.
const maxPeek = 1 << 20

// Pools counts the addresses of the range sets of a configuration, in their order, for who watches them. It takes no
// lock: nobody waits for it, and what is under way may be counted or not. Ranges that come with each ADD are not known,
// and have no pools. Root is where the node's file system is; empty if it is this process's.
func (p Plugin) Pools(conf []byte, root string) ([]Pool, error) {
	j, err := decode(conf)
	if err != nil || j.withoutRanges() {
		return nil, err
	}
	var c written
	var namesErr error
	c.names, namesErr = newNames(j.Name, j.IPAM.DataDir)
	if err := errors.Join(namesErr, c.readSets(j)); err != nil {
		return nil, err
	}
	pools, spans := c.measure()
	err = store.Peek(filepath.Join(root, p.folder(c.names)), maxPeek, func(a netip.Addr) {
		if i, ok := findSpan(spans, a); ok && !c.isGateway(a) {
			pools[i].Used++
		}
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return pools, nil
}

// A poolSpan is a range, and the pool it belongs to.
type poolSpan struct {
	span
	pool int
}

// measure returns the pools with their sizes, and all ranges, which have nothing in common, in the order of their
// addresses.
func (c *written) measure() (pools []Pool, spans []poolSpan) {
	pools = make([]Pool, len(c.sets))
	for i, s := range c.sets {
		for _, r := range s.ranges {
			spans = append(spans, poolSpan{r.span, i})
			pools[i].Size += r.size()
			if r.contains(r.gateway) {
				pools[i].Size--
			}
		}
	}
	slices.SortFunc(spans, func(a, b poolSpan) int { return a.first.Compare(b.first) })
	return pools, spans
}

func findSpan(spans []poolSpan, a netip.Addr) (pool int, ok bool) {
	n, exact := slices.BinarySearchFunc(spans, a, func(s poolSpan, a netip.Addr) int { return s.first.Compare(a) })
	if !exact {
		n--
	}
	if n < 0 || !spans[n].contains(a) {
		return 0, false
	}
	return spans[n].pool, true
}

// size returns how many addresses a span has.
func (s span) size() float64 {
	first, last := s.first.As16(), s.last.As16()
	low, borrow := bits.Sub64(binary.BigEndian.Uint64(last[8:]), binary.BigEndian.Uint64(first[8:]), 0)
	high, _ := bits.Sub64(binary.BigEndian.Uint64(last[:8]), binary.BigEndian.Uint64(first[:8]), borrow)
	return float64(high)*(1<<64) + float64(low) + 1
}

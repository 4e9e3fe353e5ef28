// Package store keeps which attachment has which address of a network, in the folder and the format of the reference
// host-local plugin, byte for byte, so that both can work on one folder at the same time:
//
//   - a reservation is a file named by the address, with the content "CONTAINER\r\nINTERFACE"; before there were
//     interface names, "CONTAINER";
//   - last_reserved_ip.N is the address that was last given out of range set N;
//   - lock is locked (flock) by whoever reads or writes any of them.
//
// A folder .braid beside the reservations holds what the reference does not have: an index, so that no operation takes
// longer the more reservations there are, the addresses that pods had before, and a file for the next reservation. It can
// be deleted at any time.
package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A Node tells the node, and the time since it was last started, from others.
type Node struct {
	// Boot is the id of the current boot. Empty means unknown: no reservation is taken for one of an earlier boot.
	Boot string
	// ID is that of the node. It matters where nodes share a folder: the boot of one says nothing about the others.
	ID string
}

// A Store is the locked folder of a network's reservations. It is for one goroutine.
type Store struct {
	*opened
	place   *place         // where it is kept when it is closed; nil if nowhere
	broken  bool           // the index, in memory
	cursors map[int]cursor // by range set, those that were read
	changed bool           // the folder, since the index was last noted to agree with it
}

// opened is what is open of a folder.
type opened struct {
	dir      folder
	lock     int // its descriptor
	node     Node
	keepable bool // see [nodesOwn]; only if there is a place for it

	private     folder  // of the index and the memory of pods
	privateErr  error   // why there is none
	indexFile   *handle // nil if there is none
	index       *index
	cursorFiles map[int]*handle // by range set, those that can be written to
}

// Open locks the folder of a network until Close, waiting for the lock for as long as ctx lasts. It makes the folder if
// create says so; if not, and there is no folder, the error wraps fs.ErrNotExist.
//
// It deletes reservations that nobody can hold: those that were never written to their end, and those that are known
// to be of an earlier boot of this node, which no container survives.
func Open(ctx context.Context, path string, node Node, create bool) (s *Store, err error) {
	place, err := enter(ctx, path)
	if err != nil {
		return nil, err
	}
	s = &Store{place: place, cursors: map[int]cursor{}}
	if s.opened, err = place.reopen(ctx, path, node); s.opened == nil && err == nil {
		s.opened = &opened{node: node, private: folder{path: path, fd: -1}, cursorFiles: map[int]*handle{}}
		err = s.open(ctx, path, create)
	}
	if err != nil {
		place.leave(nil)
		return nil, err
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, path string, create bool) (err error) {
	s.dir, err = openFolder(path)
	if create && errors.Is(err, fs.ErrNotExist) {
		if err := makeFolder(path); err != nil {
			return err
		}
		s.dir, err = openFolder(path)
	}
	if err != nil {
		if !create && cannotExist(err) {
			err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
		return err
	}
	if s.lock, err = s.dir.lock(ctx); err != nil {
		s.dir.close()
		return err
	}
	s.keepable = s.place != nil && s.dir.isNodesOwn()
	s.openPrivate()
	if err := s.openIndex(); err != nil {
		s.close()
		return err
	}
	return nil
}

// openPrivate opens what only this store uses. It may fail: DEL must work on a disk that is full.
func (s *Store) openPrivate() {
	private, err := s.dir.sub(privateName)
	if err != nil {
		s.privateErr = err
		return
	}
	s.private = private
	s.indexFile, _ = s.private.open(indexName, unix.O_RDWR|unix.O_CREAT)
}

// Close notes in the index what was changed and gives the lock back. That the index cannot be written is no error: it
// is made anew by whoever opens the folder next.
func (s *Store) Close() {
	agrees := s.indexFile != nil && !s.broken
	if s.changed && s.indexFile != nil {
		agrees = s.writeIndex() == nil && s.index != nil
	}
	if !s.keepable || !agrees || unix.Flock(s.lock, unix.LOCK_UN) != nil {
		s.unlock()
		return
	}
	s.place.leave(s.opened)
}

func (s *Store) unlock() {
	s.close()
	s.place.leave(nil)
}

// close closes everything. The lock is the last: when that is given back nothing is written any more.
func (o *opened) close() {
	for _, h := range o.cursorFiles {
		h.Close()
	}
	o.indexFile.Close()
	if o.private.fd >= 0 {
		o.private.close()
	}
	o.dir.close()
	if o.lock >= 0 {
		_ = unix.Close(o.lock)
	}
}

// ask runs a question to the index. An index that turns out to be corrupt is made anew first.
func ask[T any](s *Store, question func(x *index) (T, error)) (T, error) {
	if !s.broken {
		if answer, err := question(s.index); err == nil {
			return answer, nil
		}
	}
	if err := s.reindex(nil); err != nil {
		var none T
		return none, err
	}
	return question(s.index)
}

// Of returns the addresses of an owner. If it has none, those that are reserved for its container without an interface
// name.
func (s *Store) Of(o Owner) ([]netip.Addr, error) {
	_, addrs, err := s.of(o)
	return addrs, err
}

// of returns the addresses of an owner, and which owner their files name.
func (s *Store) of(o Owner) (Owner, []netip.Addr, error) {
	for _, named := range []Owner{o, {ContainerID: o.ContainerID}} {
		addrs, err := ask(s, func(x *index) ([]netip.Addr, error) { return x.of(named) })
		if err != nil || len(addrs) > 0 {
			return named, addrs, err
		}
	}
	return o, nil, nil
}

// Reserved says whether an address is reserved.
func (s *Store) Reserved(a netip.Addr) (bool, error) {
	return ask(s, func(x *index) (bool, error) { return x.reserved(a) })
}

// Holder returns whom an address is reserved for, as far as its file tells.
func (s *Store) Holder(a netip.Addr) (o Owner, ok bool) {
	f, err := s.dir.read(nameOf(a))
	if err != nil {
		return Owner{}, false
	}
	return parseOwner(f.content)
}

// NextFree returns the first address from..to that is not reserved; an invalid one if there is none.
func (s *Store) NextFree(from, to netip.Addr) (netip.Addr, error) {
	return ask(s, func(x *index) (netip.Addr, error) {
		a, ok, err := x.nextFree(from, to)
		if !ok {
			a = netip.Addr{}
		}
		return a, err
	})
}

// Count returns how many addresses from..to are reserved. It takes longer than everything else here.
func (s *Store) Count(from, to netip.Addr) (uint64, error) {
	return ask(s, func(x *index) (uint64, error) { return x.count(from, to) })
}

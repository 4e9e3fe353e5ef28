// Package store keeps which attachment has which address of a network, in the folder and the format of the reference
// host-local plugin, byte for byte, so that both can work on one folder at the same time:
//
//   - a reservation is a file named by the address, with the content "CONTAINER\r\nINTERFACE"; before there were
//     interface names, "CONTAINER";
//   - last_reserved_ip.N is the address that was last given out of range set N;
//   - lock is locked (flock) by whoever reads or writes any of them.
//
// A folder .braid beside the reservations holds what the reference does not have: an index, so that no operation takes
// longer the more reservations there are, and the addresses that pods had before. It can be deleted at any time.
package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/undo"
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
	dir  folder
	lock *os.File
	node Node

	private    folder   // of the index and the memory of pods
	privateErr error    // why there is none
	indexFile  *os.File // nil if there is none
	index      *index
	broken     bool // the index, in memory
	changed    bool // the folder, since the index was last noted to agree with it
}

// Open locks the folder of a network until Close, waiting for the lock for as long as ctx lasts. It makes the folder if
// create says so; if not, and there is no folder, the error wraps fs.ErrNotExist.
//
// It deletes reservations that nobody can hold: those that were never written to their end, and those that are known
// to be of an earlier boot of this node, which no container survives.
func Open(ctx context.Context, path string, node Node, create bool) (s *Store, err error) {
	if create {
		if err := makeFolder(path); err != nil {
			return nil, err
		}
	}
	s = &Store{node: node, private: folder{path: path, fd: -1}}
	if s.dir, err = openFolder(path); err != nil {
		if !create && cannotExist(err) {
			err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
		return nil, err
	}
	if s.lock, err = s.dir.lock(ctx); err != nil {
		s.dir.close()
		return nil, err
	}
	s.openPrivate()
	if err := s.openIndex(); err != nil {
		s.unlock()
		return nil, err
	}
	return s, nil
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
	if s.changed && s.indexFile != nil {
		_ = s.writeIndex()
	}
	s.unlock()
}

func (s *Store) unlock() {
	if s.indexFile != nil {
		s.indexFile.Close()
	}
	if s.privateErr == nil {
		s.private.close()
	}
	s.dir.close()
	s.lock.Close()
}

// openIndex reads the index, or makes it anew if it does not agree with the folder.
func (s *Store) openIndex() error {
	folder, err := s.dir.stamp()
	if err != nil {
		return err
	}
	var old *index
	if s.indexFile != nil {
		old, _ = readIndex(s.indexFile)
	}
	if old != nil && old.Folder == folder && old.Boot == hash(s.node.Boot) && old.Node == hash(s.node.ID) {
		s.index = old
		return nil
	}
	return s.reindex(old)
}

// writeIndex writes what has changed of the index, and then that it agrees with the folder. An index that is broken, or
// would better be larger, is dropped.
func (s *Store) writeIndex() error {
	f := s.indexFile
	if s.broken || s.index.full() {
		return f.Truncate(0)
	}
	if s.index.file == nil {
		// Not even for a moment the old header with new pages. What is not written is a hole.
		if err := errors.Join(f.Truncate(0), f.Truncate(int64(s.index.size)*pageSize)); err != nil {
			return err
		}
	}
	if err := s.index.flush(f); err != nil {
		return err
	}
	folder, err := s.dir.newStamp()
	if err != nil {
		return err
	}
	return s.index.writeHeader(f, folder)
}

// stamp returns the state of the folder.
func (d folder) stamp() (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return stamp{}, d.failed("stat", "", err)
	}
	return stamp{st.Dev, st.Ino, st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

// newStamp sets the modification time of the folder to one that no change of it will: that of a change is the present,
// and clocks of file systems are too coarse to tell two changes in a row.
func (d folder) newStamp() (stamp, error) {
	past := time.Now().Add(-2*time.Second - rand.N(time.Second)).UnixNano()
	times := []unix.Timespec{unix.NsecToTimespec(past), unix.NsecToTimespec(past)}
	if err := unix.UtimesNanoAt(d.fd, ".", times, 0); err != nil {
		return stamp{}, d.failed("set the time of", "", err)
	}
	return d.stamp()
}

func hash(s string) [sha256.Size]byte { return sha256.Sum256([]byte(s)) }

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

// Cursor returns the address that was last given out of a range set; an invalid one if it is not known.
func (s *Store) Cursor(set int) netip.Addr {
	a, _, _ := s.dir.cursor(set)
	return a
}

// A Pick is an address to be reserved, and the range set that it is of. Cursor says that the search for the next one
// shall go on behind it.
type Pick struct {
	Addr   netip.Addr
	Set    int
	Cursor bool
}

// A TakenError says that an address is reserved although it seemed to be free: somebody writes to the folder who does
// not take the lock. The store knows about it now.
type TakenError struct{ Addr netip.Addr }

func (e *TakenError) Error() string { return fmt.Sprintf("address %s is reserved already", e.Addr) }

// Reserve reserves all addresses for an owner, durably, or none.
func (s *Store) Reserve(o Owner, picks []Pick) error {
	f, err := s.link(o, picks)
	if _, taken := errors.AsType[*TakenError](err); taken {
		s.broken = true
	}
	if err != nil {
		return err
	}
	for _, p := range picks {
		s.note(s.index.insert(entry{addr: p.Addr, owner: o, owned: true, ino: f.ino, mtime: f.mtime}))
	}
	return nil
}

// note takes the error of a change of the index. What is on the disk counts, so it is not one of who changes that.
func (s *Store) note(err error) {
	if err != nil {
		s.broken = true
	}
}

// link makes the files of reservations.
func (s *Store) link(o Owner, picks []Pick) (f file, err error) {
	var u undo.Stack
	defer u.OnError(&err)
	if f, err = s.prepare(o); err != nil {
		return f, err
	}
	u.Add("delete the prepared reservation", func() error { return s.private.remove(pendingName) })
	s.changed = true
	for _, p := range picks {
		name := nameOf(p.Addr)
		err := unix.Linkat(s.private.fd, pendingName, s.dir.fd, name, 0)
		if errors.Is(err, unix.EEXIST) {
			return f, &TakenError{p.Addr}
		}
		if err != nil {
			return f, s.dir.failed("reserve", name, err)
		}
		u.Add("release "+name, func() error { return s.dir.remove(name) })
		if !p.Cursor {
			continue
		}
		if err := s.moveCursor(&u, p); err != nil {
			return f, err
		}
	}
	if err := s.private.remove(pendingName); err != nil {
		return f, err
	}
	return f, s.dir.sync()
}

// prepare writes a reservation aside, to be linked to the names of its addresses. No crash, of the process or of the
// node, can so leave an address that is reserved for nobody. One file serves all addresses: it has one content.
func (s *Store) prepare(o Owner) (f file, err error) {
	if s.privateErr != nil {
		return file{}, s.privateErr
	}
	// What a killed process left may be linked to an address by now: it is not to be written to.
	if err := s.private.remove(pendingName); err != nil {
		return file{}, err
	}
	w, err := s.private.open(pendingName, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		return file{}, err
	}
	_, err = io.WriteString(w, o.content())
	if err == nil {
		err = w.Sync()
	}
	if err = errors.Join(err, w.Close()); err == nil {
		f, err = s.private.read(pendingName)
	}
	if err != nil {
		err = errors.Join(err, s.private.remove(pendingName))
	}
	return f, err
}

func (s *Store) moveCursor(u *undo.Stack, p Pick) error {
	_, old, exists := s.dir.cursor(p.Set)
	u.Add("put the cursor back", func() error {
		if !exists {
			return s.dir.remove(cursorName(p.Set))
		}
		return s.dir.overwrite(cursorName(p.Set), old)
	})
	return s.dir.overwrite(cursorName(p.Set), p.Addr.String())
}

// Release frees the addresses of an owner; if it has none, those that are reserved for its container without an
// interface name. It goes on after an error.
//
// What is freed is not synced: should it come back after a power failure, that is another boot, in which it is deleted.
func (s *Store) Release(o Owner) error {
	named, addrs, err := s.of(o)
	if err != nil {
		return err
	}
	// An index that is wrong must not make anybody lose an address.
	if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return !s.holds(named, a) }) {
		if err := s.reindex(nil); err != nil {
			return err
		}
		if named, addrs, err = s.of(o); err != nil {
			return err
		}
	}
	var errs []error
	for _, a := range addrs {
		s.changed = true
		if err := s.dir.remove(nameOf(a)); err != nil {
			errs = append(errs, err)
			continue
		}
		s.note(s.index.remove(named, a))
	}
	return errors.Join(errs...)
}

func (s *Store) holds(o Owner, a netip.Addr) bool {
	holder, ok := s.Holder(a)
	return ok && holder == o
}

// Retain frees all addresses whose owners are not to be kept. Files that name no owner stay. It goes on after an error.
func (s *Store) Retain(keep func(Owner) bool) error {
	s.changed = true
	entries, err := s.scan(nil)
	if err != nil {
		return err
	}
	var errs []error
	kept := entries[:0]
	for _, e := range entries {
		if !e.owned || keep(e.owner) {
			kept = append(kept, e)
			continue
		}
		if err := s.dir.remove(nameOf(e.addr)); err != nil {
			errs = append(errs, err)
			kept = append(kept, e)
		}
	}
	s.build(kept)
	return errors.Join(errs...)
}

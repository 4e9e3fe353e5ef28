package store

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/undo"
)

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

// Reserve reserves all addresses for an owner, or none, whenever the process is killed.
//
// Nothing is synced to the disk: no container survives that the power goes, so neither has a reservation to. What comes back
// of it is of an earlier boot, or torn, and is deleted then; see Open.
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
	return f, s.private.remove(pendingName)
}

// prepare writes a reservation aside, to be linked to the names of its addresses. No crash of the process can so leave an
// address that is reserved for nobody. One file serves all addresses: it has one content.
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
	err := s.dir.overwrite(cursorName(p.Set), p.Addr.String())
	if errors.Is(err, unix.EISDIR) {
		return nil // a folder of that name is in nobody's way: the cursor only says where to go on looking
	}
	u.Add("put the cursor back", func() error {
		if !exists {
			return s.dir.remove(cursorName(p.Set))
		}
		return s.dir.overwrite(cursorName(p.Set), old)
	})
	return err
}

// Release frees the addresses of an owner; if it has none, those that are reserved for its container without an
// interface name. It goes on after an error.
//
// What is freed is not synced either: should it come back after a power failure, it costs an address until GC or the next
// reboot, and nobody has it.
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

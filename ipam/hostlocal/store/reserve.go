package store

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"sync"

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
	for i, p := range picks {
		name := nameOf(p.Addr)
		err := s.give(name, i == len(picks)-1)
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
	return f, nil
}

// give gives the prepared reservation the name of an address: its last one, or one more.
func (s *Store) give(name string, last bool) error {
	if last {
		err := unix.Renameat2(s.private.fd, pendingName, s.dir.fd, name, unix.RENAME_NOREPLACE)
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) { // a file system that cannot do that
			return err
		}
	}
	err := unix.Linkat(s.private.fd, pendingName, s.dir.fd, name, 0)
	if err == nil && last {
		err = s.private.remove(pendingName)
	}
	return err
}

// prepare writes a reservation aside, to be given the names of its addresses. No crash of the process can so leave an
// address that is reserved for nobody. One file serves all addresses: it has one content.
func (s *Store) prepare(o Owner) (f file, err error) {
	if s.privateErr != nil {
		return file{}, s.privateErr
	}
	h, size, err := s.blank()
	if err != nil {
		return file{}, err
	}
	defer h.Close()
	var st unix.Stat_t
	if err = overwrite(h, o.content(), size); err == nil {
		st, err = h.stat()
	}
	if err != nil {
		return file{}, errors.Join(err, s.private.remove(pendingName))
	}
	return file{ino: st.Ino, mtime: st.Mtim.Nano()}, nil
}

// blank opens the file that a reservation is written to, and tells its size: the one that was freed last, see
// [Store.free]. To make one costs a file system more than all the rest.
func (s *Store) blank() (h *handle, size int64, err error) {
	h, err = s.private.open(pendingName, unix.O_RDWR)
	if err == nil {
		// What a killed process left may be linked to an address by now: it is not to be written to.
		var st unix.Stat_t
		if st, err = h.stat(); err == nil && st.Mode == unix.S_IFREG|0o600 && st.Nlink == 1 && int(st.Uid) == self() {
			return h, st.Size, nil
		}
		h.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		if err := s.private.remove(pendingName); err != nil {
			return nil, 0, err
		}
	}
	h, err = s.private.open(pendingName, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
	return h, 0, err
}

// self is the user whose files this process makes.
var self = sync.OnceValue(unix.Geteuid)

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
	claims, ok := s.claims(named, addrs)
	defer func() { closeAll(claims) }()
	// An index that is wrong must not make anybody lose an address.
	if !ok {
		if err := s.reindex(nil); err != nil {
			return err
		}
		if named, addrs, err = s.of(o); err != nil {
			return err
		}
		closeAll(claims)
		claims, _ = s.claims(named, addrs)
	}
	var errs []error
	for i, a := range addrs {
		s.changed = true
		if err := s.free(nameOf(a), claims[i]); err != nil {
			errs = append(errs, err)
			continue
		}
		s.note(s.index.remove(named, a))
	}
	return errors.Join(errs...)
}

// A claim is the open file of a reservation; the zero claim is that of one which cannot be written to.
type claim struct {
	*handle
	file
}

// claims opens the reservations of addresses, and tells whether all of them are an owner's.
func (s *Store) claims(o Owner, addrs []netip.Addr) (claims []claim, ok bool) {
	ok = true
	for _, a := range addrs {
		c := s.claim(nameOf(a))
		holder, owned := parseOwner(c.content)
		if c.handle == nil {
			holder, owned = s.Holder(a)
		}
		claims, ok = append(claims, c), ok && owned && holder == o
	}
	return claims, ok
}

func (s *Store) claim(name string) (c claim) {
	h, err := s.dir.open(name, unix.O_RDWR|unix.O_NONBLOCK)
	if err != nil {
		return claim{}
	}
	f, err := h.read()
	if err != nil || !f.regular {
		h.Close()
		return claim{}
	}
	return claim{h, f}
}

func closeAll(claims []claim) {
	for _, c := range claims {
		c.Close()
	}
}

// free takes the name of an address from a reservation, and keeps its file for the next one if it has no other name. It
// then has zeros, as a reservation that was never written: should a loss of power leave them at another address, they are
// known for what they are.
func (s *Store) free(name string, c claim) error {
	if c.handle == nil || c.links != 1 || c.size > maxContent || s.privateErr != nil ||
		unix.Renameat(s.dir.fd, name, s.private.fd, pendingName) != nil {
		return s.dir.remove(name)
	}
	_, _ = c.WriteAt(make([]byte, c.size), 0)
	return nil
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

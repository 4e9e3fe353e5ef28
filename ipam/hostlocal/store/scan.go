package store

import (
	"errors"
	"io/fs"
	"net/netip"
)

// An entry is an address that is reserved.
type entry struct {
	addr  netip.Addr
	owner Owner
	owned bool // the file names an owner; it may also be a link, or something that somebody else put there
	ino   uint64
	mtime int64 // nanoseconds
}

// reindex makes the index anew from the folder. The old index, if there is one, tells what is of an earlier boot.
func (s *Store) reindex(old *index) error {
	s.changed = true
	entries, err := s.scan(s.ofEarlierBoot(old))
	if err != nil {
		return err
	}
	s.build(entries)
	return nil
}

// build makes an index of entries.
func (s *Store) build(entries []entry) {
	s.index, s.broken = newIndex(len(entries)), false
	s.index.Boot, s.index.Node = hash(s.node.Boot), hash(s.node.ID)
	for _, e := range entries {
		s.note(s.index.insert(e))
	}
}

// ofEarlierBoot returns the reservations that are known to have been made during an earlier boot of this node: those
// that were in the index then. They are told from later ones of the same address by inode and time. No clock is asked
// which are older than this boot, because clocks are set; so reservations that the reference made after this store was
// last used before the reboot are not among them. They are in the index from now on.
func (s *Store) ofEarlierBoot(old *index) map[netip.Addr]record {
	if old == nil || s.node.Boot == "" || old.Boot == hash("") || old.Boot == hash(s.node.Boot) || old.Node != hash(s.node.ID) {
		return nil
	}
	known, _ := old.files() // as many as can be read
	return known
}

// scan reads all reservations. It deletes those that were never written to their end, and those that are stale.
//
// The reference writes reservations while it holds the lock. So one that is empty now, stays so.
func (s *Store) scan(stale map[netip.Addr]record) (entries []entry, err error) {
	names, err := s.dir.names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		a, ok := addressOf(name)
		if !ok {
			continue
		}
		f, err := s.dir.read(name)
		if errors.Is(err, fs.ErrNotExist) { // deleted by somebody who does not lock
			continue
		}
		if err != nil {
			return nil, err
		}
		e := entry{addr: a, ino: f.ino, mtime: f.mtime}
		e.owner, e.owned = parseOwner(f.content)
		r, known := stale[a]
		if f.regular && torn(f.content) || known && e.owned && r.ino == f.ino && r.mtime == f.mtime {
			if err := s.dir.remove(name); err != nil {
				return nil, err
			}
			continue
		}
		entries = append(entries, e)
	}
	return entries, nil
}

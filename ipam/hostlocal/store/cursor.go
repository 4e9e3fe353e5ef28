package store

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/undo"
)

// A cursor is the file that has the address which was last given out of a range set. One that cannot be read is none: it
// only says where to go on looking.
type cursor struct {
	content string
	exists  bool
}

func cursorName(set int) string { return "last_reserved_ip." + strconv.Itoa(set) }

// Cursor returns the address that was last given out of a range set; an invalid one if it is not known.
func (s *Store) Cursor(set int) netip.Addr {
	a, _ := netip.ParseAddr(strings.TrimSpace(s.cursor(set).content))
	return a.Unmap()
}

// cursor reads a cursor once: whoever writes it takes the lock.
func (s *Store) cursor(set int) cursor {
	c, known := s.cursors[set]
	if !known {
		f := s.readCursor(set)
		c = cursor{f.content, f.regular}
		s.cursors[set] = c
	}
	return c
}

// readCursor leaves the file open, to be written to.
func (s *Store) readCursor(set int) (f file) {
	if h := s.cursorFiles[set]; h != nil {
		f, _ = h.read()
		return f
	}
	h, err := s.dir.open(cursorName(set), unix.O_RDWR|unix.O_NONBLOCK)
	switch {
	case errors.Is(err, unix.ENOENT):
		return file{}
	case err != nil:
		f, _ = s.dir.read(cursorName(set))
		return f
	}
	if f, err = h.read(); err != nil || !f.regular {
		h.Close()
		return file{}
	}
	s.hold(set, h)
	return f
}

// maxCursors bounds how many files of cursors are open: a configuration can have very many range sets.
const maxCursors = 8

// hold leaves the file of a cursor open, and none of the others if they are many.
func (o *opened) hold(set int, h *handle) {
	if len(o.cursorFiles) >= maxCursors {
		for _, other := range o.cursorFiles {
			other.Close()
		}
		clear(o.cursorFiles)
	}
	o.cursorFiles[set] = h
}

// moveCursor has the search for the next address go on behind a pick.
func (s *Store) moveCursor(u *undo.Stack, p Pick) error {
	old, now := s.cursor(p.Set), cursor{p.Addr.String(), true}
	err := s.setCursor(p.Set, now)
	if errors.Is(err, unix.EISDIR) {
		return nil // a folder of that name is in nobody's way: the cursor only says where to go on looking
	}
	u.Add("put the cursor back", func() error { return s.setCursor(p.Set, old) })
	return err
}

func (s *Store) setCursor(set int, c cursor) (err error) {
	name, before := cursorName(set), s.cursor(set)
	delete(s.cursors, set)
	h := s.cursorFiles[set]
	if !c.exists {
		h.Close()
		delete(s.cursorFiles, set)
		return s.dir.remove(name)
	}
	if h == nil {
		if h, err = s.dir.open(name, unix.O_RDWR|unix.O_CREAT); err != nil {
			return err
		}
		s.hold(set, h)
	}
	if err := overwrite(h, c.content, int64(len(before.content))); err != nil {
		return err
	}
	s.cursors[set] = c
	return nil
}

package store

import (
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"
)

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
		s.index = nil
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
	if err := s.index.writeHeader(f, folder); err != nil {
		return err
	}
	s.index.file = f
	return nil
}

// stamp returns the state of the folder.
func (d folder) stamp() (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return stamp{}, d.failed("stat", "", err)
	}
	return stampOf(&st), nil
}

func stampOf(st *unix.Stat_t) stamp {
	return stamp{st.Dev, st.Ino, uint64(st.Mtim.Nano()), uint64(st.Ctim.Nano())}
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

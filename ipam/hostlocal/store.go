package hostlocal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/atomicfile"
)

// A store is the folder of a network's reservations, in the format of the reference plugin, byte for byte, so that both
// can work on one folder at the same time:
//
//   - a reservation is a file named by the address, with the content "CONTAINER\r\nINTERFACE"; before there were
//     interface names, "CONTAINER";
//   - last_reserved_ip.N is the address that was last given out of set N;
//   - lock is locked (flock) by who reads or writes any of them.
//
// A file appears whole or not at all (written aside, synced, linked), so a crash leaves no address that is taken by
// nobody. The reference can leave an empty file; whoever made it holds the lock no more, so it counts as absent.
type store struct{ dir string }

// An owner is an attachment as the store knows it.
type owner struct{ containerID, ifName string }

func (o owner) content() string { return strings.TrimSpace(o.containerID) + "\r\n" + o.ifName }

// owns says whether a reservation with some content is the owner's. The content of the reference may have white space
// around it.
func (o owner) owns(content string) bool {
	content = strings.TrimSpace(content)
	return content == o.content() || content == strings.TrimSpace(o.containerID)
}

// lock waits for the lock until ctx ends. It makes the folder if create says so; without it and without a folder there
// is nothing to lock, and the error wraps fs.ErrNotExist.
func (s *store) lock(ctx context.Context, create bool) (unlock func(), err error) {
	if create {
		if err := os.MkdirAll(s.dir, 0o755); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(filepath.Join(s.dir, "lock"), os.O_RDONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o750)
	if err != nil {
		return nil, err
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", s.dir, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: another process still holds it: %w", s.dir, ctx.Err())
		case <-time.After(wait):
		}
	}
}

func (s *store) path(a netip.Addr) string { return filepath.Join(s.dir, a.String()) }

// reserve takes an address for an owner. It says false if somebody has it.
func (s *store) reserve(a netip.Addr, o owner) (ok bool, err error) {
	f, err := os.CreateTemp(s.dir, ".reserve-*")
	if err != nil {
		return false, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.WriteString(o.content()); err != nil {
		return false, err
	}
	if err := f.Sync(); err != nil {
		return false, err
	}
	err = os.Link(f.Name(), s.path(a))
	if errors.Is(err, fs.ErrExist) && s.abandoned(a) {
		if err := os.Remove(s.path(a)); err != nil {
			return false, err
		}
		err = os.Link(f.Name(), s.path(a))
	}
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	return err == nil, err
}

// abandoned says whether a reservation is the empty file that a write which failed has left.
func (s *store) abandoned(a netip.Addr) bool {
	info, err := os.Lstat(s.path(a))
	return err == nil && info.Mode().IsRegular() && info.Size() == 0
}

// release gives an address back.
func (s *store) release(a netip.Addr) error {
	err := os.Remove(s.path(a))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// sync makes what was reserved and released durable.
func (s *store) sync() error { return atomicfile.SyncDir(s.dir) }

// each calls f for every reservation. Anything else in the folder is passed over; links are not followed.
func (s *store) each(f func(a netip.Addr, content string) error) error {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		a, err := netip.ParseAddr(e.Name())
		if err != nil || !e.Type().IsRegular() {
			continue
		}
		content, err := os.ReadFile(s.path(a))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = f(a, string(content))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// of returns the addresses of an owner. A reservation with an interface name goes before those without.
func (s *store) of(o owner) (addrs []netip.Addr, err error) {
	var legacy []netip.Addr
	err = s.each(func(a netip.Addr, content string) error {
		switch content = strings.TrimSpace(content); {
		case content == o.content():
			addrs = append(addrs, a)
		case o.owns(content):
			legacy = append(legacy, a)
		}
		return nil
	})
	if len(addrs) == 0 {
		addrs = legacy
	}
	return addrs, err
}

func (s *store) cursorFile(setIndex int) string {
	return filepath.Join(s.dir, fmt.Sprintf("last_reserved_ip.%d", setIndex))
}

// cursor returns the address that was last given out of a set. One that can not be read is none: it only says where to
// go on looking.
func (s *store) cursor(setIndex int) netip.Addr {
	b, err := os.ReadFile(s.cursorFile(setIndex))
	if err != nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(strings.TrimSpace(string(b)))
	if err != nil {
		return netip.Addr{}
	}
	return a
}

func (s *store) setCursor(setIndex int, a netip.Addr) error {
	return os.WriteFile(s.cursorFile(setIndex), []byte(a.String()), 0o600)
}

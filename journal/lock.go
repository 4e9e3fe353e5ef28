package journal

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/plainfile"
)

// Lock serializes what is done for one container, across processes and goroutines, until unlock is called or the
// process dies. It waits for the lock until ctx ends.
//
// The specification (section 3): "The container runtime must not invoke parallel operations for the same container,
// but is allowed to invoke parallel operations for different containers." A runtime that gave up on an ADD and sends
// DEL while the ADD still runs does just that.
func (j *Journal) Lock(ctx context.Context, containerID string) (unlock func(), err error) {
	h := fnv.New64a()
	io.WriteString(h, containerID)
	own := flock(unix.F_WRLCK, int64(h.Sum64()>>2)+1, 1)
	return j.lock(ctx, "container "+containerID, func(f *os.File) error {
		if err := set(f, flock(unix.F_RDLCK, gate, 1)); err != nil {
			return err
		}
		return errors.Join(set(f, own), set(f, flock(unix.F_UNLCK, gate, 1)))
	})
}

// LockToRead is Lock for who changes nothing. Where nobody can, since the disk is read-only, it is not waited for.
func (j *Journal) LockToRead(ctx context.Context, containerID string) (unlock func(), err error) {
	unlock, err = j.Lock(ctx, containerID)
	if errors.Is(err, unix.EROFS) {
		return func() {}, nil
	}
	return unlock, err
}

// LockAll waits for every Lock to end and keeps others from beginning: as soon as it waits, so that it gets its turn on a
// node where there is always one. Having got it, it removes what killed processes have left of writing records.
//
// The specification (section 3): "The container runtime must ensure that no add or delete operations are in progress
// before executing gc, and must wait for gc to complete before issuing new add or delete commands."
func (j *Journal) LockAll(ctx context.Context) (unlock func(), err error) {
	unlock, err = j.lock(ctx, "all containers", func(f *os.File) error {
		if err := set(f, flock(unix.F_WRLCK, gate, 1)); err != nil {
			return err
		}
		return set(f, flock(unix.F_WRLCK, 0, 0))
	})
	if err == nil {
		_ = j.tidy(func(_, path string) error { return removeTorn(path) }) // they are in nobody's way
	}
	return unlock, err
}

// gate is the byte that each Lock has to pass, and that LockAll keeps while it waits for the others.
const gate = 0

// lock tries to take ranges of one file: a byte stands for a container (two whose hashes meet only wait for each other),
// the whole file for all. Ranges need no file for each container that would have to be removed without a race. Open file
// description locks belong to the descriptor, not to the process, so they hold between goroutines as well.
func (j *Journal) lock(ctx context.Context, what string, try func(*os.File) error) (unlock func(), err error) {
	f, err := plainfile.Open(filepath.Join(j.dir, "lock"), unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", what, err)
	}
	// F_OFD_SETLKW could not be ended by ctx, so ask again; somebody else at work on the same container is rare.
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		err := try(f)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", what, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: another operation still holds it: %w", what, ctx.Err())
		case <-time.After(wait):
		}
	}
}

func flock(kind int16, start, length int64) *unix.Flock_t {
	return &unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: start, Len: length}
}

// set takes or gives back a range, without waiting: to be interrupted is not that somebody else has it.
func set(f *os.File, lk *unix.Flock_t) (err error) {
	for err = unix.EINTR; err == unix.EINTR; {
		err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, lk)
	}
	return err
}

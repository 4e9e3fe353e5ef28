package store

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/flock"
)

// A process that stays, and serves one ADD after the other, can keep open what it has of a folder, with what it knows of the
// index: half of the system calls of an ADD are to open and close it. The lock is given back all the same. What is kept
// counts only if it is still true, which the time of the folder tells, see [index]: it changes when any name in the
// folder does, be it that of the lock.

// Bounds of what is kept: folders, pages of the index of each, and how long after its last use. See also [maxCursors].
const (
	maxKept   = 64
	maxPages  = 16
	keepQuiet = 10 * time.Second
)

// kept has the folders that are open, or in use, by their path.
var kept struct {
	sync.Mutex
	on     bool
	places map[string]*place
	timer  *time.Timer // while anything is kept
}

// A place is where a folder is kept. The goroutines of this process use it one after the other: they do not wait for each
// other in the kernel, which would take a thread each.
type place struct {
	path   string
	turn   chan struct{} // full while one of them uses it
	users  int           // that use it, or wait for it
	opened *opened       // nil if nothing is; of who has the turn
	last   time.Time     // when it was used
}

// Keep has folders kept open from now on, until stop is called.
func Keep() (stop func()) {
	kept.Lock()
	defer kept.Unlock()
	if kept.on = true; kept.places == nil {
		kept.places = map[string]*place{}
	}
	return func() {
		kept.Lock()
		defer kept.Unlock()
		kept.on = false
		tidy(time.Now())
	}
}

// enter returns the place of a folder when it is this goroutine's turn; nil if nothing is kept.
func enter(ctx context.Context, path string) (*place, error) {
	kept.Lock()
	if !kept.on {
		kept.Unlock()
		return nil, nil
	}
	p := kept.places[path]
	if p == nil {
		p = &place{path: path, turn: make(chan struct{}, 1)}
		kept.places[path] = p
	}
	p.users++
	kept.Unlock()
	select {
	case p.turn <- struct{}{}:
		return p, nil
	default:
	}
	select {
	case p.turn <- struct{}{}:
		return p, nil
	case <-ctx.Done():
		p.gone()
		return nil, folder{path: path}.failed("lock", lockName, context.Cause(ctx))
	}
}

// leave keeps what is open, if it is not nil, and lets the next one have its turn.
func (p *place) leave(o *opened) {
	if p == nil {
		return
	}
	if o != nil && len(o.index.cached) > maxPages {
		clear(o.index.cached)
	}
	p.opened = o
	<-p.turn
	p.gone()
}

func (p *place) gone() {
	kept.Lock()
	defer kept.Unlock()
	p.users--
	p.last = time.Now()
	if p.users > 0 {
		return
	}
	if p.opened == nil || !kept.on || len(kept.places) > maxKept {
		p.forget()
	} else if kept.timer == nil {
		kept.timer = time.AfterFunc(keepQuiet, func() {
			kept.Lock()
			defer kept.Unlock()
			tidy(time.Now().Add(-keepQuiet))
		})
	}
}

// tidy closes what nobody has used since.
func tidy(since time.Time) {
	for _, p := range kept.places {
		if p.users == 0 && !p.last.After(since) {
			p.forget()
		}
	}
	switch {
	case kept.timer == nil:
	case len(kept.places) == 0:
		kept.timer.Stop()
		kept.timer = nil
	default:
		kept.timer.Reset(keepQuiet)
	}
}

// forget closes what is kept. Nobody uses it.
func (p *place) forget() {
	if p.opened != nil {
		p.opened.close()
		p.opened = nil
	}
	delete(kept.places, p.path)
}

// reopen locks what is kept; it returns nil if there is nothing that is true.
func (p *place) reopen(ctx context.Context, path string, node Node) (*opened, error) {
	if p == nil || p.opened == nil {
		return nil, nil
	}
	o := p.opened
	p.opened = nil
	if o.node != node {
		o.close()
		return nil, nil
	}
	if err := flock.Lock(ctx, o.lock, unix.LOCK_EX); err != nil {
		o.lock = -1 // which is closed
		err := o.dir.failed("lock", lockName, err)
		o.close()
		return nil, err
	}
	if now, err := stampAt(path); err != nil || now != o.index.Folder {
		o.close()
		return nil, nil
	}
	return o, nil
}

// stampAt returns the state of the folder that a path leads to.
func stampAt(path string) (stamp, error) {
	var st unix.Stat_t
	err := unix.Fstatat(unix.AT_FDCWD, path, &st, unix.AT_SYMLINK_NOFOLLOW)
	return stampOf(&st), err
}

// nodesOwn are file systems that no other node writes to. Of others, NFS above all, what has been written may be seen by nobody
// else before the file is closed, and be written over what somebody else has written since; so there nothing is kept.
var nodesOwn = []int64{
	unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.OVERLAYFS_SUPER_MAGIC,
	0x2fc12fc1, // ZFS
	0xca451a4e, // bcachefs
}

// isNodesOwn says whether the folder is on such a file system.
func (d folder) isNodesOwn() bool {
	var st unix.Statfs_t
	return unix.Fstatfs(d.fd, &st) == nil && slices.Contains(nodesOwn, int64(st.Type))
}

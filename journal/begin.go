package journal

import (
	"errors"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/atomicfile"
	"github.com/braid-cni/braid/internal/plainfile"
)

// Begin writes the record of an ADD that has made nothing yet. A process that dies leaves it from now on. A loss of power
// does when durable has returned nil, for which nothing has to wait that is gone by then itself, as interfaces are: but
// all that is not, like what a plugin keeps on a disk, and the answer. What durable waits for has begun; it is to be
// called before the lock of the container, which the caller has, is given back.
func (j *Journal) Begin(r *Record) (durable func() error, err error) {
	b, err := r.document()
	if err != nil {
		return nil, err
	}
	f, err := create(j.path(r.ContainerID, r.IfName), b)
	if err != nil {
		return nil, err
	}
	synced := make(chan error, 1)
	go func() { synced <- j.settle(f) }()
	return sync.OnceValue(func() error { return <-synced }), nil
}

// The mode of a file says whether its content can be relied on: begun, a process that was killed, or a loss of power, may have
// left its name and not its content.
const (
	begun   = 0o400
	settled = 0o600
)

// create makes a file that has been begun. One that is there is lost: its ADD has been undone, or nothing had to be.
func create(path string, content []byte) (*os.File, error) {
	const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW
	f, err := plainfile.Open(path, flags, begun)
	if errors.Is(err, fs.ErrExist) {
		if err = remove(path); err == nil {
			f, err = plainfile.Open(path, flags, begun)
		}
	}
	if err != nil {
		return nil, err
	}
	if _, err := f.Write(content); err != nil {
		return nil, errors.Join(err, f.Close(), remove(path))
	}
	return f, nil
}

// settle makes a record that has been begun durable, its name with it.
func (j *Journal) settle(f *os.File) error {
	err := f.Sync()
	if err == nil {
		err = atomicfile.SyncDir(j.dir)
	}
	if err == nil {
		err = f.Chmod(settled)
	}
	return errors.Join(err, f.Close())
}

// isLost says of a file that holds no record whether it never held one that anything depended on: the process was killed
// while it wrote it, or the power went before it was settled. Nothing is left then of what its ADD had made.
func isLost(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode() == fs.FileMode(begun)
}

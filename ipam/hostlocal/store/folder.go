package store

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/atomicfile"
	"github.com/braid-cni/braid/internal/flock"
)

const (
	lockName    = "lock"
	privateName = ".braid" // never the name of an address; nobody looks for one in there
	pendingName = "reservation"
	maxContent  = 4096 // bytes of a reservation that are looked at
)

// A folder is a directory whose files are opened by name, never through a symbolic link: whoever can plant one must not
// choose what is read and written.
type folder struct {
	path string
	fd   int
}

func openFolder(path string) (folder, error) {
	return folder{fd: unix.AT_FDCWD}.folder(path)
}

// folder opens a folder in this one. If there is none the error wraps fs.ErrNotExist.
func (d folder) folder(name string) (folder, error) {
	fd, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		return folder{filepath.Join(d.path, name), fd}, nil
	}
	var st unix.Stat_t
	if unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK {
		err = errors.New("is a symbolic link; want the folder itself")
	}
	return folder{}, d.failed("open", name, err)
}

// cannotExist says that there is no such folder, and that there has never been one, if the path is a bad one.
func cannotExist(err error) bool {
	return slices.ContainsFunc([]error{unix.ENOENT, unix.ENOTDIR, unix.ENAMETOOLONG, unix.EINVAL, unix.ELOOP},
		func(e error) bool { return errors.Is(err, e) })
}

// makeFolder makes the folder and those above it, durably.
func makeFolder(path string) error {
	parent := filepath.Dir(path)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return err
	}
	err := os.Mkdir(path, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return atomicfile.SyncDir(parent)
}

// sub opens a folder in this one, making it if need be.
func (d folder) sub(name string) (folder, error) {
	f, err := d.folder(name)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := unix.Mkdirat(d.fd, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return folder{}, d.failed("make", name, err)
	}
	return d.folder(name)
}

func (d folder) close() { _ = unix.Close(d.fd) }

func (d folder) failed(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: filepath.Join(d.path, name), Err: err}
}

// open opens a file: to read and to write, or else without blocking, lest a pipe of that name waits for its other end.
// Reading it leaves no trace in its times, which would be written again with each ADD; only the owner of a file can have
// that.
func (d folder) open(name string, flags int) (*handle, error) {
	flags |= unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := openat(d.fd, name, flags|unix.O_NOATIME)
	if err == unix.EPERM {
		fd, err = openat(d.fd, name, flags)
	}
	if err != nil {
		return nil, d.failed("open", name, err)
	}
	return &handle{fd, d, name}, nil
}

func openat(dir int, name string, flags int) (fd int, err error) {
	for {
		if fd, err = unix.Openat(dir, name, flags, 0o600); err != unix.EINTR {
			return fd, err
		}
	}
}

// overwrite makes content the whole of a small file that has had a number of bytes. What is there already needs no more space on
// the disk: the old content goes only when the new one is in place.
func overwrite(f *handle, content string, had int64) error {
	if _, err := f.WriteAt([]byte(content), 0); err != nil || had <= int64(len(content)) {
		return err
	}
	return f.Truncate(int64(len(content)))
}

// A file is what a reservation's file was found to be.
type file struct {
	content string
	ino     uint64
	mtime   int64 // nanoseconds
	links   uint64
	size    int64
	regular bool
}

// read returns a file. One that is no regular file, or a link, has no content.
func (d folder) read(name string) (f file, err error) {
	h, err := d.open(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) { // a link, a socket
		return file{}, nil
	}
	if err != nil {
		return file{}, err
	}
	defer h.Close()
	return h.read()
}

// remove deletes a file; one that does not exist is no error.
func (d folder) remove(name string) error {
	if err := unix.Unlinkat(d.fd, name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return d.failed("remove", name, err)
	}
	return nil
}

// names lists the folder.
func (d folder) names() ([]string, error) {
	// Another open file: the position of a listing belongs to it.
	h, err := d.open(".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(h.fd), d.path)
	defer f.Close()
	return f.Readdirnames(-1)
}

// lock takes the lock that the reference plugin takes. It ends when the descriptor is closed.
func (d folder) lock(ctx context.Context) (fd int, err error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err = unix.Openat(d.fd, lockName, flags|unix.O_CREAT, 0o750)
	if errors.Is(err, unix.EISDIR) {
		fd, err = unix.Openat(d.fd, lockName, flags, 0) // a folder can be locked as well; the reference cannot use it at all
	}
	if err != nil {
		return -1, d.failed("open", lockName, err)
	}
	return fd, d.failed("lock", lockName, flock.Lock(ctx, fd, unix.LOCK_EX))
}

// nameOf is the name of the file that reserves an address.
func nameOf(a netip.Addr) string { return a.String() }

// addressOf is the inverse of nameOf. A name that is another spelling of an address reserves nothing.
func addressOf(name string) (a netip.Addr, ok bool) {
	a, err := netip.ParseAddr(name)
	return a, err == nil && a.Zone() == "" && a == a.Unmap() && nameOf(a) == name
}

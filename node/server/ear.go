package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/flock"
)

// An ear is a socket that is listened on, with the lock that goes with it.
type ear struct {
	*net.UnixListener
	path string
	lock *os.File // nil when given up
	own  os.FileInfo
}

// listen waits until no other daemon has the socket, or ctx ends, and then puts its own in the place of whatever socket
// is there.
func (s *Server) listen(ctx context.Context) (*ear, error) {
	if err := folder(filepath.Dir(s.Socket)); err != nil {
		return nil, err
	}
	lock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	e := &ear{path: s.Socket, lock: lock}
	if err := e.open(); err != nil {
		e.unlock()
		return nil, fmt.Errorf("listen on %s: %w", s.Socket, err)
	}
	return e, nil
}

// folder makes the folder of the socket, and refuses one in which others than root could put theirs.
func folder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the folder of the socket: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("look at the folder of the socket: %w", err)
	}
	if int(st.Uid) != os.Geteuid() || st.Mode&0o022 != 0 {
		return fmt.Errorf("the folder %s has owner %d and mode %04o: want %d, and that nobody else can write (0700 or 0755)",
			dir, st.Uid, st.Mode&0o7777, os.Geteuid())
	}
	return nil
}

func lockPath(socket string) string { return strings.TrimSuffix(socket, ".sock") + ".lock" }

// lock waits for the lock that only one daemon has.
func (s *Server) lock(ctx context.Context) (*os.File, error) {
	path := lockPath(s.Socket)
	for {
		f, err := tryLock(path)
		if errors.Is(err, unix.EWOULDBLOCK) {
			if s.State() != Standby {
				s.set(Standby)
				s.Log.Info("another daemon serves the socket: standing by", "socket", s.Socket)
			}
			f, err = waitForLock(ctx, path)
		}
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if is(path, f) {
			return f, nil
		}
		f.Close() // somebody has removed the file meanwhile
	}
}

func openLock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
}

func tryLock(path string) (*os.File, error) {
	f, err := openLock(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func waitForLock(ctx context.Context, path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := flock.Lock(ctx, fd, unix.LOCK_EX); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// is tells whether a path leads to an open file.
func is(path string, f *os.File) bool {
	info, err := f.Stat()
	return err == nil && leadsTo(path, info)
}

func leadsTo(path string, info os.FileInfo) bool {
	there, err := os.Lstat(path)
	return err == nil && os.SameFile(there, info)
}

// open makes a socket under another name, and renames it when it is listened on: whoever finds it is served. The name
// belongs to who has the lock, so what is there is of a daemon that was killed.
func (e *ear) open() error {
	switch info, err := os.Lstat(e.path); {
	case err == nil && info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("there is a file that is no socket (%s): remove it", info.Mode())
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	fresh := e.path + ".new"
	if len(fresh) > maxPath {
		return fmt.Errorf("the path has %d bytes: at most %d are possible", len(e.path), maxPath-len(".new"))
	}
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) (err error) {
		// Before it has a name, so that there is no moment in which others could connect.
		control := conn.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(control, err)
	}}
	l, err := config.Listen(context.Background(), "unix", fresh)
	if err != nil {
		return err
	}
	e.UnixListener = l.(*net.UnixListener)
	e.SetUnlinkOnClose(false)
	if e.own, err = os.Lstat(fresh); err == nil {
		err = os.Rename(fresh, e.path)
	}
	if err != nil {
		e.UnixListener.Close()
		os.Remove(fresh)
	}
	return err
}

// maxPath is the length that the address of a unix socket may have, its end excluded.
const maxPath = len(unix.RawSockaddrUnix{}.Path) - 1

// check fails if the path of the socket, or of the lock, does not lead to this one's any more.
func (e *ear) check() error {
	switch {
	case !is(lockPath(e.path), e.lock):
		return errors.New("somebody has removed or replaced " + lockPath(e.path))
	case !leadsTo(e.path, e.own):
		return errors.New("somebody has removed or replaced it")
	}
	return nil
}

const (
	// handOverTime is how long another daemon may take to get the lock.
	handOverTime = 200 * time.Millisecond
	// renameTime is how long one that has the lock may take to put its socket in the place of this one.
	renameTime = 5 * time.Second
	// backlogTime is how long the accepting of a connection that waits can take.
	backlogTime = 20 * time.Millisecond
)

// handOver lets another daemon take the socket's place, and removes the socket if none does.
func (e *ear) handOver() {
	e.unlock()
	start := time.Now()
	for leadsTo(e.path, e.own) && time.Since(start) < renameTime {
		time.Sleep(time.Millisecond)
		if time.Since(start) > handOverTime && e.remove() {
			return
		}
	}
}

// remove removes the socket, unless another daemon has the lock.
func (e *ear) remove() bool {
	lock, err := tryLock(lockPath(e.path))
	if err != nil {
		return false
	}
	defer lock.Close()
	if leadsTo(e.path, e.own) {
		_ = os.Remove(e.path)
	}
	return true
}

func (e *ear) unlock() {
	if e.lock != nil {
		e.lock.Close()
		e.lock = nil
	}
}

// wake ends an Accept that waits, as soon as the backlog is empty.
func (e *ear) wake() { _ = e.SetDeadline(time.Now().Add(backlogTime)) }

func (e *ear) close() {
	_ = e.UnixListener.Close()
	e.unlock()
}

package delegate

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/journal"
)

// initialPIDNamespace is the inode of the kernel's first one (PROC_PID_INIT_INO).
const initialPIDNamespace = 0xEFFFFFFC

// pidNamespace returns the inode of that of this process, 0 if it cannot be read.
func pidNamespace() uint64 {
	inode, _ := inodeOf("/proc/self/ns/pid") // a sweep will be the more careful
	return inode
}

// processes are those that /proc shows. The zero value reads it when it is asked first.
type processes struct {
	viewOnce sync.Once
	view     uint64 // the PID namespace of /proc; 0 if it cannot be told

	netsOnce sync.Once
	nets     map[uint64]int // a process in the network namespace of an inode
	err      error
}

// see says whether the processes of a record's container are among them: all that the runtime starts are in its own PID
// namespace, or below. Records of older versions do not name it.
func (p *processes) see(r *journal.Record) bool {
	p.viewOnce.Do(func() { p.view = procNamespace() })
	want := r.PIDNamespace
	if want == 0 {
		want = initialPIDNamespace
	}
	return p.view == want
}

// in returns the PID of a process in the network namespace of an inode, 0 if there is none.
func (p *processes) in(inode uint64) (pid int, err error) {
	p.netsOnce.Do(func() { p.nets, p.err = networkNamespaces() })
	return p.nets[inode], p.err
}

// procNamespace returns the inode of the PID namespace that /proc is of. It need not be that of this process, which can
// have been given the /proc of its host; but it is that of any process there that has one PID only.
func procNamespace() (inode uint64) {
	_ = eachPID("/proc", func(pid int) error {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return nil
		}
		_, rest, found := bytes.Cut(status, []byte("\nNSpid:"))
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		if !found || len(bytes.Fields(line)) != 1 {
			return nil
		}
		if inode, err = inodeOf(fmt.Sprintf("/proc/%d/ns/pid", pid)); err != nil {
			return nil // it has ended, or is out of reach
		}
		return errEnough
	})
	return inode
}

var errEnough = errors.New("enough")

// networkNamespaces returns the inodes of those that a process is in, threads by themselves included: the one that gave a
// process its PID may have ended.
func networkNamespaces() (map[uint64]int, error) {
	nets := make(map[uint64]int)
	err := eachPID("/proc", func(pid int) error {
		if pid == 1 {
			return nil // the node's own, which may be better protected than others
		}
		err := eachPID(fmt.Sprintf("/proc/%d/task", pid), func(tid int) error {
			inode, err := networkOf(fmt.Sprintf("/proc/%d/task/%d", pid, tid))
			if err == nil {
				nets[inode] = pid
			}
			return unlessEnded(err)
		})
		return unlessEnded(err)
	})
	return nets, err
}

// networkOf returns the inode of the network namespace that a thread is in.
func networkOf(thread string) (inode uint64, err error) {
	inode, err = inodeOf(thread + "/ns/net")
	if errors.Is(err, unix.EACCES) { // which the kernel says too of one that ends at this moment
		if _, err := os.Lstat(thread); unlessEnded(err) == nil && err != nil {
			return 0, err
		}
	}
	return inode, err
}

func unlessEnded(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// eachPID calls f with the numbers that a folder of /proc has for processes or threads, until it fails.
func eachPID(dir string, f func(pid int) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if err := f(pid); err != nil {
			return err
		}
	}
	return nil
}

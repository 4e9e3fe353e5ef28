package delegate

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/netdev"
)

// A judgement is a verdict with the reason for it.
type judgement struct {
	verdict, reason string
	certain         bool // no DEL can be on its way: there is no grace
}

func (j judgement) stale() bool { return j.verdict == Dead || j.verdict == PodGone }

// judge says whether the container of a record lives. What cannot be told for sure is left alone:
//
//   - What another boot made is dead.
//   - A namespace whose path is gone, or leads to another one, is dead; unless a process is still in it: somebody may have
//     unmounted the path of a pod that runs.
//   - A path that leads to something else than a namespace says nothing: where mounts of the host do not propagate, the
//     mount point of a namespace is an empty file. Nor does a path whose folder is not there.
//   - A namespace that exists is dead only if the API server has no such pod and no process is in it.
//   - Without a view on the processes that the runtime started, none of this can be said of a path in /proc, nor that
//     there is no process.
func (s *sweep) judge(r *journal.Record, at sight, procs *processes) judgement {
	if s.otherBoot(r) {
		return judgement{verdict: Dead, reason: "it is of another boot of the node", certain: true}
	}
	podGone := s.known(keyOf(r)).PodGone
	switch {
	case at.state == gone && podGone:
		return judgement{verdict: Dead, reason: at.reason + ", and the pod is gone"}
	case at.state == gone && r.NetnsInode != 0 && !s.claimed[r.NetnsInode] && procs.see(r):
		switch in, err := procs.in(r.NetnsInode); {
		case err != nil:
			return judgement{verdict: Unknown, reason: fmt.Sprintf("%s, but its processes cannot be told: %v", at.reason, err)}
		case in != 0 && mayBeOf(r, in):
			return judgement{verdict: Unknown, reason: fmt.Sprintf("%s, but process %d is in it", at.reason, in)}
		}
		fallthrough
	case at.state == gone:
		return judgement{verdict: Dead, reason: at.reason}
	case at.state == unclear:
		return judgement{verdict: Unknown, reason: at.reason}
	case !podGone:
		return judgement{verdict: Alive}
	case !procs.see(r):
		return judgement{verdict: Alive, reason: "the pod is gone, but the processes of its namespace cannot be seen from here"}
	}
	switch in, err := procs.in(r.NetnsInode); {
	case err != nil:
		return judgement{verdict: Alive, reason: fmt.Sprintf("the pod is gone, but its processes cannot be told: %v", err)}
	case in != 0:
		return judgement{verdict: Alive, reason: fmt.Sprintf("the pod is gone, but process %d is in its namespace", in)}
	}
	return judgement{verdict: PodGone, reason: "the pod is gone, and no process is in its namespace"}
}

// mayBeOf says whether a process with the right inode is in the namespace of a record: the kernel uses inodes again. If the cookie
// cannot tell, the interfaces of the record have to be there.
func mayBeOf(r *journal.Record, pid int) bool {
	ns, err := netdev.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if errors.Is(err, netdev.ErrGone) {
		return false // and so has the process
	}
	if err != nil {
		return true
	}
	defer ns.Close()
	if cookie := ns.Cookie(); cookie != 0 && r.NetnsCookie != 0 {
		return cookie == r.NetnsCookie
	}
	return slices.ContainsFunc(r.Attachments, func(a journal.Attachment) bool {
		link, err := ns.Link(a.IfName)
		if errors.Is(err, netdev.ErrNotFound) {
			return false
		}
		mac := macOf(&a)
		return err != nil || mac == "" || mac == link.Attrs().HardwareAddr.String()
	})
}

// macOf returns the address of the interface of an attachment, if its result says.
func macOf(a *journal.Attachment) string {
	if a.Result == nil {
		return ""
	}
	for _, i := range a.Result.Interfaces {
		if i.Sandbox != "" && i.Name == a.IfName {
			return strings.ToLower(i.Mac)
		}
	}
	return ""
}

// A sight is what there is at the path of a record's namespace.
type sight struct {
	state  int
	reason string // for all but there
}

const (
	unclear = iota
	there
	gone
)

func look(r *journal.Record) sight {
	if r.Netns == "" {
		return sight{gone, "its namespace was gone when it was last undone in part"}
	}
	var fs unix.Statfs_t
	switch err := unix.Statfs(r.Netns, &fs); {
	case errors.Is(err, unix.ENOENT):
		return missing(r)
	case err != nil:
		return sight{unclear, fmt.Sprintf("statfs %s: %v", r.Netns, err)}
	case fs.Type != unix.NSFS_MAGIC && fs.Type != unix.PROC_SUPER_MAGIC: // the latter before Linux 3.19
		return sight{unclear, fmt.Sprintf("%s is no namespace: mounts of the host may not be seen from here", r.Netns)}
	}
	switch here, err := isAt(r, r.Netns); {
	case errors.Is(err, unix.ENOENT):
		return missing(r)
	case err != nil:
		return sight{unclear, err.Error()}
	case r.NetnsInode == 0:
		return sight{unclear, "the record does not say which namespace was at " + r.Netns}
	case !here:
		return sight{gone, "another namespace is at " + r.Netns}
	}
	return sight{state: there}
}

// missing judges a path that is not there. It can be one that was never seen from here.
func missing(r *journal.Record) sight {
	if strings.HasPrefix(r.Netns, "/proc/") {
		if new(processes).see(r) {
			return sight{gone, r.Netns + " is gone"}
		}
		return sight{unclear, r.Netns + " is not there, in a /proc that does not have the runtime's processes"}
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Dir(r.Netns), &st); err != nil {
		return sight{unclear, r.Netns + " is not there, nor is its folder: the host may not be seen from here"}
	}
	return sight{gone, r.Netns + " is gone"}
}

package tracer

import (
	"golang.org/x/sys/unix"
)

// A Filter says which calls are of interest.
type Filter struct {
	calls map[int]*rule
}

// A rule narrows calls of one kind.
type rule struct {
	name string
	// If set, the call counts only if the argument has one of the bits of mask, or, with equal, is value under the mask.
	arg         int // number of the argument, from 1; 0 for none
	mask, value uint32
	equal       bool
	// takes looks closer than the kernel can; may be nil.
	takes func(*Call) bool
}

const writing = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC

// Changes are the calls that change something which outlives the program: files, what the kernel is asked by netlink, what
// other processes are told, locks; and its end.
func Changes() Filter {
	calls := map[int]*rule{
		unix.SYS_OPENAT:     {name: "openat", arg: 3, mask: writing, takes: notProcSelf},
		unix.SYS_OPEN:       {name: "open", arg: 2, mask: writing},
		unix.SYS_SENDTO:     {name: "sendto", takes: (*Call).changes},
		unix.SYS_SENDMSG:    {name: "sendmsg", takes: (*Call).changes},
		unix.SYS_FCNTL:      {name: "fcntl", arg: 2, mask: ^uint32(0), value: unix.F_OFD_SETLK, equal: true},
		unix.SYS_CLONE:      {name: "clone", arg: 1, mask: unix.CLONE_THREAD, value: 0, equal: true},
		unix.SYS_CLONE3:     {name: "clone3"},
		unix.SYS_IOCTL:      {name: "ioctl", arg: 2, mask: 0xff00, value: 0x8900, equal: true}, // of sockets
		unix.SYS_WRITE:      {name: "write", takes: (*Call).toOthers},
		unix.SYS_WRITEV:     {name: "writev", takes: (*Call).toOthers},
		unix.SYS_PWRITE64:   {name: "pwrite64"},
		unix.SYS_EXIT_GROUP: {name: "exit_group"},
	}
	for number, name := range map[int]string{
		unix.SYS_MKDIR: "mkdir", unix.SYS_MKDIRAT: "mkdirat", unix.SYS_UNLINK: "unlink", unix.SYS_UNLINKAT: "unlinkat",
		unix.SYS_RMDIR: "rmdir", unix.SYS_RENAME: "rename", unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2",
		unix.SYS_LINK: "link", unix.SYS_LINKAT: "linkat", unix.SYS_SYMLINK: "symlink", unix.SYS_SYMLINKAT: "symlinkat",
		unix.SYS_FSYNC: "fsync", unix.SYS_FDATASYNC: "fdatasync", unix.SYS_TRUNCATE: "truncate", unix.SYS_FTRUNCATE: "ftruncate",
		unix.SYS_FCHMOD: "fchmod", unix.SYS_FCHMODAT: "fchmodat", unix.SYS_UTIMENSAT: "utimensat", unix.SYS_FALLOCATE: "fallocate",
		unix.SYS_CONNECT: "connect", unix.SYS_FLOCK: "flock", unix.SYS_MOUNT: "mount", unix.SYS_UMOUNT2: "umount2",
		unix.SYS_UNSHARE: "unshare",
	} {
		calls[number] = &rule{name: name}
	}
	return Filter{calls}
}

// Failures are the calls that can fail, which are more: those that only read, and that get what is needed to act.
func Failures() Filter {
	f := Changes()
	delete(f.calls, unix.SYS_EXIT_GROUP)
	f.calls[unix.SYS_OPENAT] = &rule{name: "openat", takes: notRuntime}
	f.calls[unix.SYS_SENDTO] = &rule{name: "sendto"}
	f.calls[unix.SYS_SENDMSG] = &rule{name: "sendmsg"}
	f.calls[unix.SYS_READ] = &rule{name: "read", takes: func(c *Call) bool { return c.toOthers() && notRuntime(c) }}
	for number, name := range map[int]string{
		unix.SYS_SOCKET: "socket", unix.SYS_BIND: "bind", unix.SYS_SETSOCKOPT: "setsockopt", unix.SYS_RECVFROM: "recvfrom",
		unix.SYS_RECVMSG: "recvmsg", unix.SYS_SETNS: "setns", unix.SYS_FSTAT: "fstat", unix.SYS_NEWFSTATAT: "newfstatat",
		unix.SYS_STATFS: "statfs", unix.SYS_FSTATFS: "fstatfs", unix.SYS_READLINKAT: "readlinkat",
		unix.SYS_GETDENTS64: "getdents64", unix.SYS_PREAD64: "pread64", unix.SYS_PIPE2: "pipe2", unix.SYS_GETSOCKOPT: "getsockopt",
		unix.SYS_GETSOCKNAME: "getsockname",
	} {
		f.calls[number] = &rule{name: name}
	}
	f.calls[unix.SYS_IOCTL] = &rule{name: "ioctl"}
	return f
}

func (f Filter) takes(c *Call) bool {
	r := f.calls[c.Number]
	if r == nil {
		return false
	}
	c.Name = r.name
	return r.takes == nil || r.takes(c)
}

// program is the filter for the kernel.
func (f Filter) program() (p []unix.SockFilter) {
	const (
		number = 0 // offsets in struct seccomp_data
		args   = 16
		trace  = 0x7ff00000 // SECCOMP_RET_TRACE
		allow  = 0x7fff0000
	)
	load := func(at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}
	}
	ret := func(what uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: what} }
	jump := func(k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: k}
	}
	p = append(p, load(number))
	for nr, r := range f.calls {
		if r.arg == 0 {
			p = append(p, jump(uint32(nr), 0, 1), ret(trace))
			continue
		}
		yes, no := uint32(allow), uint32(trace) // of (argument & mask) == value
		if r.equal {
			yes, no = no, yes
		}
		p = append(p, jump(uint32(nr), 0, 5),
			load(uint32(args+8*(r.arg-1))),
			unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: r.mask},
			jump(r.value, 0, 1), ret(yes), ret(no))
	}
	return append(p, ret(allow))
}

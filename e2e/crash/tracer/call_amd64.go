package tracer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A Call is one that the program is about to make.
type Call struct {
	N      int    // which one of those that are watched, from 1
	Name   string // of the system call
	Number int
	Args   [6]uint64
	// Object is what the call is about, as far as it is known: a path, a kind of socket.
	Object string
	// Requests are those of a netlink message, by name.
	Requests []string

	process, thread int
	protocols       map[string]int
}

// String describes the call so that the next run can be found to have the same one.
func (c *Call) String() string {
	s := fmt.Sprintf("#%d %s %s", c.N, c.Name, c.Object)
	if len(c.Requests) > 0 {
		s += " " + strings.Join(c.Requests, "+")
	}
	return strings.TrimSpace(s)
}

// look finds out what the call is about.
func (c *Call) look() {
	switch c.Number {
	case unix.SYS_OPENAT, unix.SYS_MKDIRAT, unix.SYS_UNLINKAT, unix.SYS_FCHMODAT, unix.SYS_UTIMENSAT, unix.SYS_NEWFSTATAT, unix.SYS_READLINKAT:
		c.Object = c.path(c.Args[1])
	case unix.SYS_OPEN, unix.SYS_MKDIR, unix.SYS_UNLINK, unix.SYS_RMDIR, unix.SYS_STATFS:
		c.Object = c.path(c.Args[0])
	case unix.SYS_RENAME, unix.SYS_LINK, unix.SYS_SYMLINK:
		c.Object = c.path(c.Args[0]) + " " + c.path(c.Args[1])
	case unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT:
		c.Object = c.path(c.Args[1]) + " " + c.path(c.Args[3])
	case unix.SYS_CONNECT:
		c.Object = c.address(c.Args[1], c.Args[2])
	case unix.SYS_SENDTO:
		c.Object = c.file()
		c.netlink(c.Args[1], c.Args[2])
	case unix.SYS_SENDMSG:
		c.Object = c.file()
		c.message()
	case unix.SYS_SOCKET:
		c.Object = fmt.Sprintf("family %d protocol %d", c.Args[0], c.Args[2])
	case unix.SYS_EXIT_GROUP, unix.SYS_CLONE, unix.SYS_CLONE3, unix.SYS_PIPE2:
	default:
		c.Object = c.file()
	}
}

func (c *Call) read(at uint64, n int) []byte {
	b := make([]byte, n)
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(n)
	n, err := unix.ProcessVMReadv(c.thread, local, []unix.RemoteIovec{{Base: uintptr(at), Len: n}}, 0)
	if err != nil {
		return nil
	}
	return b[:n]
}

func (c *Call) path(at uint64) string {
	if at == 0 {
		return ""
	}
	// A string may end right before a page that is not there.
	b := c.read(at, int(4096-at%4096))
	if !bytes.Contains(b, []byte{0}) {
		b = append(b, c.read(at+uint64(len(b)), 4096)...)
	}
	name, _, _ := bytes.Cut(b, []byte{0})
	return string(name)
}

// file says what the first argument, a descriptor, is of.
func (c *Call) file() string {
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", c.process, int32(c.Args[0])))
	if err != nil {
		return ""
	}
	if !strings.HasPrefix(link, "socket:") {
		return link
	}
	protocol, ok := c.protocols[link]
	if !ok {
		protocol = c.protocol()
		c.protocols[link] = protocol
	}
	switch protocol {
	case unix.NETLINK_ROUTE:
		return "netlink-route"
	case unix.NETLINK_NETFILTER:
		return "netlink-netfilter"
	}
	return "socket"
}

// protocol returns that of a netlink socket; -1 for all others.
func (c *Call) protocol() int {
	pidfd, err := unix.PidfdOpen(c.process, 0)
	if err != nil {
		return -1
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, int(c.Args[0]), 0)
	if err != nil {
		return -1
	}
	defer unix.Close(fd)
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain != unix.AF_NETLINK {
		return -1
	}
	protocol, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil {
		return -1
	}
	return protocol
}

// message is a struct msghdr.
func (c *Call) message() {
	if at, size, ok := c.vector(); ok {
		c.netlink(at, size)
	}
}

// vector returns the first buffer of a struct msghdr.
func (c *Call) vector() (at, size uint64, ok bool) {
	header := c.read(c.Args[1], 56)
	if len(header) < 56 {
		return 0, 0, false
	}
	iov := c.read(binary.LittleEndian.Uint64(header[16:]), 16)
	if len(iov) < 16 {
		return 0, 0, false
	}
	return binary.LittleEndian.Uint64(iov), binary.LittleEndian.Uint64(iov[8:]), true
}

// buffer returns what a call sends from, or receives to.
func (c *Call) buffer() uint64 {
	if c.Number == unix.SYS_SENDTO || c.Number == unix.SYS_RECVFROM {
		return c.Args[1]
	}
	at, _, _ := c.vector()
	return at
}

// peeks says that a call leaves what it receives for the next one.
func (c *Call) peeks() bool {
	flags := c.Args[2]
	if c.Number == unix.SYS_RECVFROM {
		flags = c.Args[3]
	}
	return flags&unix.MSG_PEEK != 0
}

// spoil makes a request of a netlink message one of a type that does not exist.
func (c *Call) spoil(request int) error {
	at := c.buffer()
	for range request {
		header := c.read(at, 16)
		if len(header) < 16 {
			return unix.EFAULT
		}
		at += (uint64(binary.LittleEndian.Uint32(header)) + 3) &^ 3
	}
	kind := uint16(0x7fff)
	if c.Object == "netlink-netfilter" {
		kind = unix.NFNL_SUBSYS_NFTABLES<<8 | 0xff
	}
	var b [2]byte
	binary.LittleEndian.PutUint16(b[:], kind)
	_, err := unix.PtracePokeData(c.thread, uintptr(at+4), b[:])
	return err
}

// netlink names the requests of a message.
func (c *Call) netlink(at, size uint64) {
	if !strings.HasPrefix(c.Object, "netlink-") {
		return
	}
	b := c.read(at, int(min(size, 1<<16)))
	for len(b) >= 16 {
		n := (int(binary.LittleEndian.Uint32(b)) + 3) &^ 3
		c.Requests = append(c.Requests, requestName(c.Object, binary.LittleEndian.Uint16(b[4:])))
		if n < 16 || n > len(b) {
			break
		}
		b = b[n:]
	}
}

var routeRequests = map[uint16]string{
	16: "LINK", 20: "ADDR", 24: "ROUTE", 28: "NEIGH", 32: "RULE", 36: "QDISC", 64: "PREFIX", 80: "NETCONF", 84: "MDB", 88: "NSID",
}

func requestName(kind string, t uint16) string {
	if kind == "netlink-route" {
		return [...]string{"NEW", "DEL", "GET", "SET"}[t%4] + routeRequests[t&^3]
	}
	if t>>8 == unix.NFNL_SUBSYS_NFTABLES {
		names := []string{
			"NEWTABLE", "GETTABLE", "DELTABLE", "NEWCHAIN", "GETCHAIN", "DELCHAIN", "NEWRULE", "GETRULE", "DELRULE",
			"NEWSET", "GETSET", "DELSET", "NEWSETELEM", "GETSETELEM", "DELSETELEM", "NEWGEN", "GETGEN",
		}
		if i := int(t & 0xff); i < len(names) {
			return names[i]
		}
	}
	switch t {
	case 16:
		return "BEGIN"
	case 17:
		return "COMMIT"
	}
	return fmt.Sprint(t)
}

// changes says that a message changes something: it is no netlink request that only asks.
func (c *Call) changes() bool {
	for _, r := range c.Requests {
		if !strings.HasPrefix(r, "GET") {
			return true
		}
	}
	return len(c.Requests) == 0
}

// TakesSpace says that the call cannot be made on a file system that is full: it makes a file, a folder or a link, or a file
// longer.
func (c *Call) TakesSpace() bool {
	switch c.Number {
	case unix.SYS_OPENAT:
		return c.Args[2]&unix.O_CREAT != 0 && c.isMissing()
	case unix.SYS_MKDIRAT:
		return c.isMissing()
	case unix.SYS_LINKAT, unix.SYS_SYMLINKAT:
		return true
	case unix.SYS_WRITE:
		return strings.HasPrefix(c.Object, "/") && !strings.HasPrefix(c.Object, "/proc/") && !strings.HasPrefix(c.Object, "/memfd:")
	case unix.SYS_PWRITE64:
		info, err := os.Stat(fmt.Sprintf("/proc/%d/fd/%d", c.process, int32(c.Args[0])))
		return err == nil && int64(c.Args[3]+c.Args[2]) > info.Size()
	}
	return false
}

// isMissing says that there is nothing at the path that the call names.
func (c *Call) isMissing() bool {
	path := c.Object
	if !strings.HasPrefix(path, "/") {
		path = fmt.Sprintf("/proc/%d/fd/%d/%s", c.process, int32(c.Args[0]), path)
	}
	_, err := os.Lstat(path)
	return os.IsNotExist(err)
}

// toOthers says that a descriptor leads out of the program: it is no means of the runtime.
func (c *Call) toOthers() bool { return c.Object != "" && !strings.HasPrefix(c.Object, "anon_inode:") }

// notProcSelf leaves out that the Go runtime names its threads, and the like.
func notProcSelf(c *Call) bool { return !strings.HasPrefix(c.Object, "/proc/self/task/") }

// notRuntime leaves out what the Go runtime looks at for itself.
func notRuntime(c *Call) bool {
	for _, prefix := range []string{"/sys/kernel/mm/", "/sys/fs/cgroup/", "/proc/self/task/", "/proc/self/mountinfo", "/proc/self/cgroup"} {
		if strings.HasPrefix(c.Object, prefix) {
			return false
		}
	}
	return true
}

// address is a struct sockaddr.
func (c *Call) address(at, size uint64) string {
	b := c.read(at, int(min(size, 128)))
	if len(b) < 2 {
		return ""
	}
	family := binary.LittleEndian.Uint16(b)
	if family == unix.AF_UNIX {
		path, _, _ := bytes.Cut(b[2:], []byte{0})
		return string(path)
	}
	return fmt.Sprintf("family %d", family)
}

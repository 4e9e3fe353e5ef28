//go:build amd64 || arm64

package main

import (
	"bytes"
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/edge"
	"github.com/braid-cni/braid/worker/client"
	"github.com/braid-cni/braid/worker/protocol"
)

// A process of Go needs a millisecond, 160 page faults and four threads until main begins; a call that is handed over takes five. So
// what most calls are is done before, on the stack that the kernel gives: standard input is read, the worker gets the call, and what it
// answers is printed. Whatever is not as usual is left to main, which goes on from there, or begins anew: see begun.
//
// In this file there is no runtime: nothing may be allocated, nothing may panic, there is no goroutine, and so no defer and none of the
// packages that need one. The kernel is called by RawSyscall. Where there is no start_GOARCH.s, main does it all. The stack is read as far
// as the kernel has filled it: that has 6 MiB at most for arguments and environment, less than 2^20 of them.

// early does a call, or as much of it as goes without a runtime. Its argument is what the kernel has put on the stack: the number of
// arguments, those, nil, the environment, nil.
//
//lint:ignore U1000 start_GOARCH.s calls it
//go:norace
func early(stack *[1 << 20]*byte) {
	environ := 2 + int(uintptr(unsafe.Pointer(stack[0])))
	namespace, ok := usual(stack, environ)
	if !ok || !readStdin() {
		return
	}
	config := begun.message[stdinAt:][:begun.stdin]
	socket, ok := daemonSocket(config)
	if !ok || !place(namespace) || !addEnviron(stack, environ) {
		return
	}
	if !handOver(socket) || !receive() {
		return
	}
	if code, stdout, stderr, ok := answer(begun.answer[:begun.answered]); ok && printAnswer(stdout, stderr) {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, uintptr(code), 0, 0)
	}
}

// usual says whether this is a call that a worker does, and returns the path of its namespace, nil if there is none. Which call it is, and
// where, must not be there twice; of other variables the first one counts, with the worker as in a process of Go.
func usual(stack *[1 << 20]*byte, environ int) (namespace *byte, ok bool) {
	placed := false
	for i := environ; stack[i] != nil; i++ {
		name, value, variable := bytes.Cut(cString(stack[i]), []byte("="))
		if !variable { // nor is it one for a process of Go
			continue
		}
		switch string(name) {
		case "CNI_COMMAND":
			switch string(value) {
			case "ADD", "DEL", "CHECK":
			default:
				return nil, false
			}
			if ok {
				return nil, false
			}
			ok = true
		case "CNI_NETNS":
			if placed || len(value) > 0 && value[0] != '/' {
				return nil, false
			}
			placed = true
			if len(value) > 0 { // it is there
				namespace = unsafe.SliceData(value)
			}
		case "CNI_PATH":
			for part := value; ; {
				dir, rest, more := bytes.Cut(part, []byte(":"))
				if len(dir) == 0 || dir[0] != '/' {
					return nil, false
				}
				if part = rest; !more {
					break
				}
			}
		}
	}
	return namespace, ok
}

// cString returns a text that ends with a zero byte, without that.
func cString(text *byte) []byte {
	n := 0
	for ; *(*byte)(unsafe.Add(unsafe.Pointer(text), n)) != 0; n++ {
	}
	return unsafe.Slice(text, n)
}

// readStdin reads standard input to its end, to where it is in the message.
func readStdin() bool {
	for !begun.ended {
		if begun.stdin == maxStdin {
			return false
		}
		to := begun.message[stdinAt+begun.stdin : stdinAt+maxStdin]
		n, _, errno := syscall.RawSyscall(unix.SYS_READ, 0, address(to), uintptr(len(to)))
		if errno != 0 {
			return false
		}
		begun.stdin += int(n)
		begun.ended = n == 0
	}
	return true
}

const braidName = "braid\x00"

// place begins the message: with where this process is, and the length of what has been read. It is [protocol.Place].
func place(namespace *byte) bool {
	path := begun.answer[:unix.PathMax] // nobody has answered yet
	n, _, errno := syscall.RawSyscall6(unix.SYS_READLINKAT, 0, cAddress(protocol.Own+"\x00"), address(path), uintptr(len(path)), 0, 0)
	if errno != 0 || int(n) > len(path)-len(braidName) {
		return false
	}
	dir := bytes.LastIndexByte(path[:n], '/') + 1
	copy(path[dir:], braidName)
	b := begun.message[:]
	binary.BigEndian.PutUint32(b[4:], protocol.PlaceSize)
	binary.BigEndian.PutUint64(b[8:], protocol.Version)
	exists := stat(b[16:], address(path))
	stat(b[32:], cAddress("/\x00"))
	stat(b[48:], cAddress("/proc/thread-self/ns/net\x00"))
	stat(b[64:], cAddress("/proc/thread-self/ns/pid\x00"))
	if namespace != nil {
		stat(b[80:], uintptr(unsafe.Pointer(namespace)))
	}
	binary.BigEndian.PutUint32(b[stdinAt-4:], uint32(begun.stdin))
	begun.size = stdinAt + begun.stdin
	return exists
}

// stat notes which file is at a path.
func stat(to []byte, path uintptr) bool {
	var st unix.Stat_t
	at := unix.AT_FDCWD
	_, _, errno := syscall.RawSyscall6(unix.SYS_NEWFSTATAT, uintptr(at), path, uintptr(unsafe.Pointer(&st)), 0, 0, 0)
	if errno != 0 {
		return false
	}
	binary.BigEndian.PutUint64(to, st.Dev)
	binary.BigEndian.PutUint64(to[8:], st.Ino)
	return true
}

// addEnviron ends the message: with the variables that a call consists of, and its name.
func addEnviron(stack *[1 << 20]*byte, environ int) bool {
	for i := environ; stack[i] != nil; i++ {
		text := cString(stack[i])
		name, _, ok := bytes.Cut(text, []byte("="))
		if ok && string(name) != edge.CallEnv && client.IsPassed(unsafe.String(unsafe.SliceData(name), len(name))) && !add(text) {
			return false
		}
	}
	var random [nameSize / 2]byte
	n, _, errno := syscall.RawSyscall(unix.SYS_GETRANDOM, address(random[:]), uintptr(len(random)), unix.GRND_NONBLOCK)
	if errno != 0 || int(n) != len(random) {
		return false
	}
	at := copy(begun.name[:], edge.CallEnv+"=")
	for _, r := range random {
		begun.name[at], begun.name[at+1] = digits[r>>4], digits[r&0xf]
		at += 2
	}
	if !add(begun.name[:]) {
		return false
	}
	binary.BigEndian.PutUint32(begun.message[:], uint32(begun.size-4))
	return true
}

const digits = "0123456789abcdef"

// add appends a text to the message.
func add(text []byte) bool {
	if len(text)+4 > room-begun.size {
		return false
	}
	to := begun.message[begun.size:]
	binary.BigEndian.PutUint32(to, uint32(len(text)))
	begun.size += 4 + copy(to[4:], text)
	return true
}

// handOver sends the message to the worker beside a daemon.
func handOver(daemon []byte) bool {
	fd, _, errno := syscall.RawSyscall(unix.SYS_SOCKET, unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errno != 0 {
		return false
	}
	// Who has started the process may have closed its standard files: it is not the worker to whom the answer is printed. Of half a message
	// a worker does nothing.
	if fd <= 2 || !connect(fd, daemon) || !send(fd) {
		syscall.RawSyscall(unix.SYS_CLOSE, fd, 0, 0)
		return false
	}
	begun.conn = int(fd)
	return true
}

// connect waits for nobody, and wants nobody but root.
func connect(fd uintptr, daemon []byte) bool {
	to := unix.RawSockaddrUnix{Family: unix.AF_UNIX}
	path := unsafe.Slice((*byte)(unsafe.Pointer(&to.Path)), len(to.Path))
	base := bytes.TrimSuffix(daemon, []byte(protocol.DaemonEnd))
	if len(base)+len(protocol.WorkerEnd) >= len(path) {
		return false
	}
	copy(path[copy(path, base):], protocol.WorkerEnd)
	var peer unix.Ucred
	size := uint32(unsafe.Sizeof(peer))
	_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, fd, uintptr(unsafe.Pointer(&to)), unsafe.Sizeof(to))
	if errno == 0 {
		_, _, errno = syscall.RawSyscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERCRED,
			uintptr(unsafe.Pointer(&peer)), uintptr(unsafe.Pointer(&size)), 0)
	}
	return errno == 0 && peer.Uid == 0
}

func send(fd uintptr) bool {
	message := begun.message[:begun.size]
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, fd, address(message), uintptr(len(message)), unix.MSG_NOSIGNAL, 0, 0)
	return errno == 0 && int(n) == len(message)
}

// receive waits for the answer of the worker, and not for long: what takes seconds can wait for a runtime.
func receive() bool {
	fd := uintptr(begun.conn)
	for {
		wait := unix.PollFd{Fd: int32(begun.conn), Events: unix.POLLIN}
		n, _, errno := syscall.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&wait)), 1,
			uintptr(unsafe.Pointer(&unix.Timespec{Sec: patience})), 0, 0, 0)
		if errno != 0 || n == 0 {
			return false
		}
		to := begun.answer[begun.answered:]
		n, _, errno = syscall.RawSyscall6(unix.SYS_RECVFROM, fd, address(to), uintptr(len(to)), 0, 0, 0)
		if errno != 0 || n == 0 { // it is full, or the worker has ended
			return false
		}
		begun.answered += int(n)
		if isWhole(begun.answer[:begun.answered]) {
			return true
		}
	}
}

const patience = 2 // seconds, as in package client

func isWhole(message []byte) bool {
	return len(message) >= 4 && uint64(binary.BigEndian.Uint32(message)) <= uint64(len(message)-4)
}

// answer returns what the process is to leave, if that is what the worker says.
func answer(message []byte) (code uintptr, stdout, stderr []byte, ok bool) {
	message, more, ok0 := cutText(message)
	said, message, ok1 := cutText(message)
	number, message, ok2 := cutText(message)
	stdout, message, ok3 := cutText(message)
	stderr, message, ok4 := cutText(message)
	if !ok0 || !ok1 || !ok2 || !ok3 || !ok4 || len(more)+len(message) > 0 ||
		string(said) != protocol.Answered || len(number) != 1 || number[0] < '0' || number[0] > '9' {
		return 0, nil, nil, false
	}
	return uintptr(number[0] - '0'), stdout, stderr, true
}

func cutText(message []byte) (text, rest []byte, ok bool) {
	if !isWhole(message) {
		return nil, nil, false
	}
	end := 4 + int(binary.BigEndian.Uint32(message))
	return message[4:end], message[end:], true
}

// printAnswer prints it. That nobody reads it must not end the process: main has to undo it.
func printAnswer(stdout, stderr []byte) bool {
	ignore, before := sigaction{handler: sigIgn}, sigaction{}
	_, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGPIPE), uintptr(unsafe.Pointer(&ignore)), uintptr(unsafe.Pointer(&before)), 8, 0, 0)
	if errno != 0 {
		return false
	}
	begun.stderr = write(2, stderr)
	begun.stdout = write(1, stdout)
	if begun.stdout == len(stdout) && begun.stderr == len(stderr) {
		return true
	}
	syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGPIPE), uintptr(unsafe.Pointer(&before)), 0, 8, 0, 0)
	return false
}

// sigaction is what the kernel knows of the handling of a signal.
type sigaction struct{ handler, flags, restorer, mask uintptr }

const sigIgn = 1

// write returns how much could be written.
func write(fd uintptr, text []byte) (n int) {
	if len(text) == 0 {
		return 0
	}
	written, _, errno := syscall.RawSyscall(unix.SYS_WRITE, fd, address(text), uintptr(len(text)))
	if errno != 0 {
		return 0
	}
	return int(written)
}

// address is for the kernel. What has it stays where it is: there is nobody who moves anything.
func address(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// cAddress is that of a text that ends with a zero byte.
func cAddress(text string) uintptr { return uintptr(unsafe.Pointer(unsafe.StringData(text))) }

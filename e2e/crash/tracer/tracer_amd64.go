// Package tracer runs a program and stops it at each of its system calls that are of interest: to count them, to kill the
// program right there, or to have a call fail that would have succeeded. The program needs to know nothing of it.
//
// A seccomp filter, which is put into the program before its first instruction, stops it at these calls alone, so that all
// others cost nothing. Calls of all its threads count; those of processes that it starts do not.
package tracer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is to be done about a call.
const (
	Continue = iota
	KillAtEntry
	KillAtExit
	Fail   // the call is not made, and returns an error
	Refuse // the kernel takes a netlink request for one that it does not know, and its answer is the error
)

// An Action is what becomes of a call.
type Action struct {
	Do    int
	Errno unix.Errno // of Fail and Refuse
	// Request is the one of a netlink message that is refused, counted from 0.
	Request int
	// Also says of the calls that follow whether they Fail in the same way; nil if none does.
	Also func(*Call) bool
}

// A Command is a program to be run.
type Command struct {
	Path    string
	Args    []string // without the name of the program
	Env     []string
	Stdin   []byte
	Timeout time.Duration // after which the program is killed
	Watch   Filter
	// At is asked about each call that Watch lets through; nil only counts them. It may look at what the program has done
	// so far: the call waits for it, though the other threads of the program do not.
	At func(*Call) Action
	// Started is told the process before it makes its first call; may be nil.
	Started func(pid int)
}

// A Result is what became of a command.
type Result struct {
	Stdout, Stderr []byte
	Status         unix.WaitStatus
	Calls          int   // that were watched
	Hit            *Call // the one that something was done about; nil if the program did not get there
	TimedOut       bool
	Left           int // processes that it has started and that did not end with it
	Took           time.Duration
}

// Killed says that the program was killed where it was to be.
func (r *Result) Killed() bool { return r.Hit != nil && r.Status.Signaled() && !r.TimedOut }

// leftTime is how long processes that the program has started may outlive it.
const leftTime = 5 * time.Second

// Run runs the command to its end. The calling goroutine is held to its thread meanwhile, and the program starts in the
// namespaces of that thread.
func Run(c *Command) (*Result, error) {
	runtime.LockOSThread() // ptrace is between threads
	defer runtime.UnlockOSThread()
	t := &tracing{Command: c, threads: make(map[int]*thread), ends: make(map[int]bool), protocols: make(map[string]int)}
	files, err := t.start()
	if err != nil {
		return nil, fmt.Errorf("trace %s: %w", c.Path, err)
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	begin := time.Now()
	var over atomic.Bool
	timer := time.AfterFunc(c.Timeout, func() {
		over.Store(true)
		_ = unix.Kill(t.pid, unix.SIGKILL)
	})
	defer timer.Stop()
	if err := t.loop(); err != nil {
		return nil, errors.Join(fmt.Errorf("trace %s: %w", c.Path, err), unix.Kill(t.pid, unix.SIGKILL))
	}
	r := &Result{Status: t.status, Calls: t.calls, Hit: t.hit, TimedOut: over.Load(), Left: int(t.left.Load()), Took: t.ended.Sub(begin)}
	for i, into := range []*[]byte{&r.Stdout, &r.Stderr} {
		if *into, err = contents(files[i+1]); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func contents(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, min(info.Size(), 1<<20))
	_, err = f.ReadAt(b, 0)
	return b, err
}

// A tracing is one run.
type tracing struct {
	*Command
	pid       int
	threads   map[int]*thread
	forks     int            // that are under way
	ends      map[int]bool   // threads that have ended: the news of the begin of one may come last
	protocols map[string]int // of sockets
	calls     int
	hit       *Call
	action    Action // of hit
	refused   uint64 // the descriptor that the answer to a refused request comes from, and 1
	status    unix.WaitStatus
	ended     time.Time
	left      atomic.Int32
}

// A thread is one of the program, or of a process that it has started.
type thread struct {
	process int
	begins  bool // its first stop is still to come
	// killAtExit says that the call which is under way is to be the last.
	killAtExit bool
	// answer is the buffer that the call which is under way has the kernel write an answer to.
	answer uint64
	peeks  bool // the answer stays there, for another call to take it
}

// start starts the program, and stops it before its first instruction, with the filter in place.
func (t *tracing) start() (files []*os.File, err error) {
	for _, name := range []string{"stdin", "stdout", "stderr"} {
		fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
		if err != nil {
			return nil, err
		}
		files = append(files, os.NewFile(uintptr(fd), name))
	}
	if _, err = files[0].Write(t.Stdin); err == nil {
		_, err = files[0].Seek(0, 0)
	}
	if err != nil {
		return nil, err
	}
	t.pid, err = syscall.ForkExec(t.Path, append([]string{t.Path}, t.Args...), &syscall.ProcAttr{
		Env: t.Env, Files: []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()}, Sys: &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return nil, err
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(t.pid, &status, 0, nil); err != nil || !status.Stopped() {
		return nil, fmt.Errorf("it does not stop: %v, %#x", err, status)
	}
	const options = unix.PTRACE_O_TRACESECCOMP | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK |
		unix.PTRACE_O_TRACEEXEC | unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_EXITKILL
	err = errors.Join(unix.PtraceSetOptions(t.pid, options), t.install())
	if err == nil {
		t.threads[t.pid] = &thread{process: t.pid}
		if t.Started != nil {
			t.Started(t.pid)
		}
		err = unix.PtraceCont(t.pid, 0)
	}
	if err != nil {
		_ = unix.Kill(t.pid, unix.SIGKILL)
		_, _ = unix.Wait4(t.pid, &status, 0, nil)
	}
	return files, err
}

// install has the stopped program make the system call that sets the filter, with a borrowed stack and instruction.
func (t *tracing) install() error {
	var before unix.PtraceRegs
	if err := unix.PtraceGetRegs(t.pid, &before); err != nil {
		return err
	}
	filter := t.Watch.program()
	code := unsafe.Slice((*byte)(unsafe.Pointer(&filter[0])), len(filter)*int(unsafe.Sizeof(filter[0])))
	at := (before.Rsp - 4096 - uint64(len(code))) &^ 15
	var prog [16]byte
	*(*uint16)(unsafe.Pointer(&prog[0])) = uint16(len(filter))
	*(*uint64)(unsafe.Pointer(&prog[8])) = at + 16
	var text [8]byte
	if _, err := unix.PtracePeekText(t.pid, uintptr(before.Rip), text[:]); err != nil {
		return err
	}
	syscallInstruction := append([]byte{0x0f, 0x05}, text[2:]...)
	for _, poke := range []struct {
		at   uint64
		data []byte
	}{{at, append(prog[:], code...)}, {before.Rip, syscallInstruction}} {
		if _, err := unix.PtracePokeData(t.pid, uintptr(poke.at), poke.data); err != nil {
			return fmt.Errorf("poke: %w", err)
		}
	}
	regs := before
	regs.Rax, regs.Orig_rax = unix.SYS_SECCOMP, ^uint64(0)
	regs.Rdi, regs.Rsi, regs.Rdx = 1, 0, at // SECCOMP_SET_MODE_FILTER
	if err := unix.PtraceSetRegs(t.pid, &regs); err != nil {
		return err
	}
	if err := unix.PtraceSingleStep(t.pid); err != nil {
		return err
	}
	var status unix.WaitStatus
	if _, err := unix.Wait4(t.pid, &status, 0, nil); err != nil {
		return err
	}
	if err := unix.PtraceGetRegs(t.pid, &regs); err != nil {
		return err
	}
	if regs.Rax != 0 {
		return fmt.Errorf("set the seccomp filter: %w", unix.Errno(-int64(regs.Rax)))
	}
	_, err := unix.PtracePokeText(t.pid, uintptr(before.Rip), text[:])
	return errors.Join(err, unix.PtraceSetRegs(t.pid, &before))
}

// loop waits for whatever of the program stops next, until nothing of it is left. The thread may have other children: it
// waits for those that it traces only, as far as it knows them.
func (t *tracing) loop() error {
	for t.ended.IsZero() || len(t.threads) > 0 || t.expects() {
		options := unix.WALL | unix.WNOTHREAD
		if len(t.threads) == 0 {
			options |= unix.WNOHANG
		}
		var status unix.WaitStatus
		tid, err := unix.Wait4(-1, &status, options, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if tid == 0 && err == nil {
			time.Sleep(time.Millisecond)
			continue
		}
		if errors.Is(err, unix.ECHILD) && !t.ended.IsZero() { // the news of the begin of a thread came after that of its end
			return nil
		}
		if err != nil {
			return err
		}
		if status.Exited() || status.Signaled() {
			delete(t.threads, tid)
			t.ends[tid] = true
			if tid == t.pid {
				t.status, t.ended = status, time.Now()
				defer t.endOthers().Stop()
			}
			continue
		}
		if err := t.stopped(tid, status); err != nil && !errors.Is(err, unix.ESRCH) { // it was killed meanwhile
			return err
		}
	}
	return nil
}

// expects says that the program may have started a process of which nobody has heard yet.
func (t *tracing) expects() bool { return t.forks > 0 && time.Since(t.ended) < 100*time.Millisecond }

// endOthers kills the processes that do not end by themselves. Their threads are reaped by the loop.
func (t *tracing) endOthers() *time.Timer {
	processes := make(map[int]bool)
	for _, th := range t.threads {
		processes[th.process] = true
	}
	return time.AfterFunc(leftTime, func() {
		for p := range processes {
			if unix.Kill(p, unix.SIGKILL) == nil {
				t.left.Add(1)
			}
		}
	})
}

func (t *tracing) stopped(tid int, status unix.WaitStatus) error {
	th := t.threads[tid]
	if th == nil {
		th = &thread{process: processOf(tid), begins: true}
		t.threads[tid] = th
	}
	signal := status.StopSignal()
	switch {
	case th.begins && signal == unix.SIGSTOP:
		th.begins = false
	case signal == unix.SIGTRAP|0x80: // the exit of a call
		if th.killAtExit {
			return unix.Kill(t.pid, unix.SIGKILL)
		}
		if err := t.answered(tid, th); err != nil {
			return err
		}
	case signal == unix.SIGTRAP && status.TrapCause() == unix.PTRACE_EVENT_SECCOMP:
		return t.called(tid, th)
	case signal == unix.SIGTRAP && status.TrapCause() == unix.PTRACE_EVENT_EXEC:
	case signal == unix.SIGTRAP && status.TrapCause() > 0: // a thread or a process begins
		if status.TrapCause() != unix.PTRACE_EVENT_CLONE {
			t.forks--
		}
		if child, err := unix.PtraceGetEventMsg(tid); err == nil && t.threads[int(child)] == nil && !t.ends[int(child)] {
			t.threads[int(child)] = &thread{process: processOf(int(child)), begins: true}
		}
	case signal != unix.SIGTRAP:
		return th.resume(tid, int(signal))
	}
	return th.resume(tid, 0)
}

// resume has a thread go on, up to the exit of the call that is under way if that matters.
func (th *thread) resume(tid, signal int) error {
	if th.killAtExit || th.answer != 0 {
		return unix.PtraceSyscall(tid, signal)
	}
	return unix.PtraceCont(tid, signal)
}

// called is about a call that is about to be made.
func (t *tracing) called(tid int, th *thread) error {
	if th.process != t.pid {
		return unix.PtraceCont(tid, 0)
	}
	var regs unix.PtraceRegs
	if err := unix.PtraceGetRegs(tid, &regs); err != nil {
		return err
	}
	call := &Call{
		Number: int(regs.Orig_rax), Args: [6]uint64{regs.Rdi, regs.Rsi, regs.Rdx, regs.R10, regs.R8, regs.R9},
		process: t.pid, thread: tid, protocols: t.protocols,
	}
	call.look()
	if call.Number == unix.SYS_CLONE {
		t.forks++
	}
	if !t.Watch.takes(call) {
		return unix.PtraceCont(tid, 0)
	}
	if t.refused == call.Args[0]+1 && (call.Number == unix.SYS_RECVFROM || call.Number == unix.SYS_RECVMSG) {
		th.answer, th.peeks = call.buffer(), call.peeks()
		return th.resume(tid, 0)
	}
	t.calls++
	call.N = t.calls
	var action Action
	switch {
	case t.hit == nil && t.At != nil:
		if action = t.At(call); action.Do != Continue {
			t.hit, t.action = call, action
		}
	case t.hit != nil && t.action.Also != nil && t.action.Also(call):
		action = Action{Do: Fail, Errno: t.action.Errno}
	}
	switch action.Do {
	case KillAtEntry:
		return unix.Kill(t.pid, unix.SIGKILL)
	case KillAtExit:
		th.killAtExit = true
	case Refuse:
		if err := call.spoil(action.Request); err != nil {
			return err
		}
		t.refused = call.Args[0] + 1
	case Fail:
		regs.Orig_rax, regs.Rax = ^uint64(0), uint64(-int64(action.Errno))
		if err := unix.PtraceSetRegs(tid, &regs); err != nil {
			return err
		}
	}
	return th.resume(tid, 0)
}

// answered puts the error that is wanted in the place of the kernel's own. There may be several looks at one answer.
func (t *tracing) answered(tid int, th *thread) error {
	at := th.answer
	th.answer = 0
	var regs unix.PtraceRegs
	if at == 0 || unix.PtraceGetRegs(tid, &regs) != nil || int64(regs.Rax) < 20 {
		return nil
	}
	header := make([]byte, 20) // struct nlmsghdr, error
	if _, err := unix.PtracePeekData(tid, uintptr(at), header); err != nil {
		return err
	}
	if binary.LittleEndian.Uint16(header[4:]) != unix.NLMSG_ERROR {
		return nil
	}
	var errno [4]byte
	binary.LittleEndian.PutUint32(errno[:], uint32(-int32(t.action.Errno)))
	if !th.peeks {
		t.refused = 0
	}
	_, err := unix.PtracePokeData(tid, uintptr(at+16), errno[:])
	return err
}

// processOf returns the process of a thread.
func processOf(tid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return tid
	}
	var process int
	for len(b) > 0 {
		if n, _ := fmt.Sscanf(string(b[:min(len(b), 32)]), "Tgid:\t%d", &process); n == 1 {
			return process
		}
		i := 0
		for i < len(b) && b[i] != '\n' {
			i++
		}
		b = b[min(i+1, len(b)):]
	}
	return tid
}

// Command launch runs a program and writes its peak memory in KiB to a file: launch FILE PROGRAM. It is as small as can
// be, since the kernel counts what a process was before it became another program: the benchmarks' own driver, which is
// many times the size of what it measures, can not ask itself.
package main

import (
	"os"
	"strconv"
	"syscall"
)

const prSetChildSubreaper = 36

func main() {
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, prSetChildSubreaper, 1, 0)
	pid, err := syscall.ForkExec(os.Args[2], os.Args[2:], &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(127)
	}
	var peak int64
	var exit int
	for { // until what the program has left behind has ended too
		var status syscall.WaitStatus
		var usage syscall.Rusage
		ended, err := syscall.Wait4(-1, &status, 0, &usage)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			break
		}
		if ended == pid {
			exit = status.ExitStatus()
		}
		peak = max(peak, usage.Maxrss)
	}
	_ = os.WriteFile(os.Args[1], strconv.AppendInt(nil, peak, 10), 0o600)
	os.Exit(exit)
}

// Command launch runs a program and writes its peak memory in KiB to a file: launch FILE PROGRAM. It is as small as can
// be, since the kernel counts what a process was before it became another program: the benchmarks' own driver, which is
// many times the size of what it measures, can not ask itself.
package main

import (
	"os"
	"strconv"
	"syscall"
)

func main() {
	pid, err := syscall.ForkExec(os.Args[2], os.Args[2:], &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(127)
	}
	var status syscall.WaitStatus
	var usage syscall.Rusage
	for {
		if _, err = syscall.Wait4(pid, &status, 0, &usage); err != syscall.EINTR {
			break
		}
	}
	_ = os.WriteFile(os.Args[1], strconv.AppendInt(nil, usage.Maxrss, 10), 0o600)
	os.Exit(status.ExitStatus())
}

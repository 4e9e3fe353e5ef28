// Package hostexec runs programs of the host, which may see another file system than the daemon does.
package hostexec

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// stopTime is how long a program has between SIGTERM and SIGKILL, unless its WaitDelay is set otherwise.
const stopTime = 10 * time.Second

// Command is a program that gets SIGTERM when ctx ends, and SIGKILL if it has not ended a while later, or this process ends.
// Root is where the file system of the host is to be seen, for a chroot; empty if this process sees it as its own. Path is
// within Root, and absolute. To be run by [Run].
func Command(ctx context.Context, root, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopTime
	return cmd
}

// Run runs a command on a thread that does nothing else: the kernel sends Pdeathsig when the thread ends that started the
// process. Started, if it is not nil, is called when the process is there.
func Run(cmd *exec.Cmd, started func(*os.Process)) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			if started != nil {
				started(cmd.Process)
			}
			err = cmd.Wait()
		}
		done <- err
	}()
	return <-done
}

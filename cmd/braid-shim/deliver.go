package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/edge"
	"github.com/braid-cni/braid/worker/client"
)

// deliver prints what a worker has answered, and returns the exit code. A result that nobody takes is undone, by braid.
func deliver(a client.Answer, braid string, stdin []byte) (exitCode int) {
	_ = printAll(2, a.Stderr)
	err := printAll(1, a.Stdout)
	if err == nil || a.ExitCode != 0 || os.Getenv("CNI_COMMAND") != "ADD" {
		return a.ExitCode
	}
	_ = printAll(2, "write the result to standard output: "+err.Error()+"; it is undone\n")
	del := exec.Command(braid)
	del.Env = with(with(os.Environ(), "CNI_COMMAND", "DEL"), edge.CallEnv, "")
	del.Stdin, del.Stderr = bytes.NewReader(stdin), os.Stderr
	if err := del.Run(); err != nil {
		_ = printAll(2, braid+": DEL: "+err.Error()+"\n")
	}
	return 1
}

// printAll writes to a file of the process. Not by package os, which would end the process when nobody reads.
func printAll(fd int, text string) error {
	for b := []byte(text); len(b) > 0; {
		n, err := unix.Write(fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN): // whoever made the pipe has it so
			_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
			continue
		case err != nil:
			return err
		}
		b = b[n:]
	}
	return nil
}

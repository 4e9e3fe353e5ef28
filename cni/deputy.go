package cni

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// A Deputy does a call of the runtime in place of a plugin process: another process that is there already. It gets the environment
// and standard input. False means that it does nothing more: the plugin process does the call then, and undoes what the deputy
// may have left, which has the name of the call; see [CallID].
type Deputy func(environ []string, stdin []byte) (a Answer, done bool)

// An Answer is what a plugin process leaves.
type Answer struct {
	ExitCode       int
	Stdout, Stderr string
}

// ErrElsewhere is the error of a plugin that is a deputy's, about a call that only the plugin process can do. Nothing has been
// done.
var ErrElsewhere = errors.New("only a plugin process can do this")

// print prints what a deputy has answered, and returns the exit code. A result that nobody takes is undone, as by [Run].
func (a Answer) print(plugin func() Plugin, about string, stdin []byte) (exitCode int) {
	signal.Ignore(syscall.SIGPIPE) // cheaper than what follows
	_, _ = os.Stderr.WriteString(a.Stderr)
	_, err := os.Stdout.WriteString(a.Stdout)
	if err == nil || a.ExitCode != 0 || os.Getenv("CNI_COMMAND") != "ADD" {
		return a.ExitCode
	}
	surviveReader()
	fmt.Fprintln(os.Stderr, err)
	del := func(name string) string {
		if name == "CNI_COMMAND" {
			return "DEL"
		}
		return os.Getenv(name)
	}
	Run(context.Background(), plugin(), about, Process{Env: del, Stdin: bytes.NewReader(stdin), Stdout: io.Discard, Stderr: os.Stderr})
	return 1
}

package sweep

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"time"

	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/node/hostexec"
)

// A Command is how `braidd sweep` is run.
type Command struct {
	// Root is where the host's file system is to be seen, for a chroot; empty if this process sees it as its own.
	Root string
	// Path of braidd, absolute, within Root.
	Path string
	// Args come after "sweep --json --known - --grace ...": --config or --conf-dir, within Root.
	Args []string
	// Env is the environment; nil means that of this process.
	Env []string
}

const (
	maxLine  = 1 << 20 // bytes that a finding may have
	maxLines = 100_000 // findings of one sweep
)

// run sweeps in a child process, and returns what it found: with an error too, if it did not come to its end.
func (c *Command) run(
	ctx context.Context, grace time.Duration, repair bool, known []delegate.Known, stderr io.Writer,
) ([]delegate.Finding, error) {
	stdin, err := json.Marshal(known)
	if err != nil {
		return nil, err
	}
	out := &findings{}
	args := append([]string{"sweep", "--json", "--known", "-", "--grace", grace.String()}, c.Args...)
	if repair {
		args = append(args, "--repair")
	}
	// A child that has been told to stop lets the plugin that is at work go, and notes in the journal what is left. One that
	// does not is killed, and so are the plugins it runs, as they are if this process is.
	cmd := hostexec.Command(ctx, c.Root, c.Path, args...)
	cmd.Env = c.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), out, stderr
	err = hostexec.Run(cmd, nil)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	} else if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == 1 && out.failed {
		err = nil // it says so of records, whose errors are in the findings
	}
	if err != nil {
		err = fmt.Errorf("%s sweep: %w", c.Path, err)
	}
	return out.list, errors.Join(err, out.err)
}

// findings decodes the lines that are written to it. It takes all, so that the child never waits for its reader.
type findings struct {
	list   []delegate.Finding
	failed bool // some could not be undone or repaired
	rest   []byte
	err    error // the first
}

func (f *findings) Write(b []byte) (int, error) {
	if f.err != nil {
		return len(b), nil
	}
	f.rest = append(f.rest, b...)
	for {
		n, line, _ := bufio.ScanLines(f.rest, false)
		switch {
		case n == 0 && len(f.rest) > maxLine:
			f.err = fmt.Errorf("more than %d bytes in a line", maxLine)
			return len(b), nil
		case n == 0:
			return len(b), nil
		case len(f.list) == maxLines:
			f.err = fmt.Errorf("more than %d findings", maxLines)
			return len(b), nil
		}
		var found delegate.Finding
		if err := json.Unmarshal(line, &found); err != nil {
			f.err = fmt.Errorf("found %q, want a finding: %w", line, err)
			return len(b), nil
		}
		f.list = append(f.list, found)
		f.failed = f.failed || found.Action == delegate.Failed || found.Action == delegate.Unrepaired
		f.rest = f.rest[n:]
	}
}

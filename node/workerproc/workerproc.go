// Package workerproc is the daemon's part in the worker, which does the calls of plugin processes: it runs it, as a child that
// sees the file system of the host as plugin processes do, and again whenever it ends. What a worker is, package worker says.
package workerproc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/braid-cni/braid/node/hostexec"
	"github.com/braid-cni/braid/worker/client"
)

// A Process is the worker of a daemon.
type Process struct {
	// Root is where the host's file system is to be seen, for a chroot; empty if this process sees it as its own.
	Root string
	// Path returns where the plugin binary is installed, absolute, within Root; empty if it is not (yet).
	Path func() (string, error)
	// Socket is where the worker listens, within Root.
	Socket string
	// Stderr gets what the worker logs.
	Stderr io.Writer

	LookInterval time.Duration // between two looks for a binary that is not there; default 5 s
	PingInterval time.Duration // between two questions whether the worker answers; default 10 s
}

// drainTime is more than a server takes, at most, to end the calls that are under way.
const drainTime = 20 * time.Second

// maxUnheard is how many questions a worker may leave without an answer.
const maxUnheard = 3

// Run runs a worker until ctx ends. One that ends by itself without an error does so because the binary is another one by now:
// that is run then. Any other end is an error, also that of a binary which knows of no worker: it has nothing to do, and ends.
func (p *Process) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		path, binary, err := p.look()
		if err != nil {
			return err
		}
		if binary == nil {
			select {
			case <-ctx.Done():
			case <-time.After(cmp.Or(p.LookInterval, 5*time.Second)):
			}
			continue
		}
		err = p.once(ctx, path)
		if _, now, lookErr := p.look(); err == nil && lookErr == nil && now != nil && os.SameFile(binary, now) {
			err = errors.New("it has ended, and its binary is the same")
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("%s worker: %w", path, err)
		}
	}
	return nil
}

// once runs a worker until it ends, or has to be killed since it does not answer: what it holds keeps others from their work.
func (p *Process) once(ctx context.Context, path string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := hostexec.Command(ctx, p.Root, path, "worker", p.Socket)
	cmd.Stderr, cmd.WaitDelay = p.Stderr, drainTime
	return hostexec.Run(cmd, func(process *os.Process) { go p.watch(ctx, process) })
}

// watch kills a worker that was heard of, and answers no more.
func (p *Process) watch(ctx context.Context, process *os.Process) {
	heard, unheard := false, 0
	for unheard < maxUnheard {
		select {
		case <-ctx.Done():
			return
		case <-time.After(cmp.Or(p.PingInterval, 10*time.Second)):
		}
		if err := (&client.Client{Socket: filepath.Join(p.Root, p.Socket)}).Ping(); err == nil {
			heard, unheard = true, 0
		} else if heard {
			unheard++
		}
	}
	_ = process.Kill()
}

// look returns where the binary is installed, and what is there: nil if nothing is.
func (p *Process) look() (path string, binary fs.FileInfo, err error) {
	if path, err = p.Path(); err != nil || path == "" {
		return "", nil, err
	}
	if binary, err = os.Stat(filepath.Join(p.Root, path)); errors.Is(err, fs.ErrNotExist) {
		return path, nil, nil
	}
	return path, binary, err
}

// Package workerproc is the daemon's part in the worker, which does the calls of plugin processes: it runs it, as a child that
// sees the file system of the host as plugin processes do, and again whenever it ends. What a worker is, package worker says.
package workerproc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/braid-cni/braid/node/hostexec"
	"github.com/braid-cni/braid/worker"
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
}

const (
	lookInterval = 5 * time.Second  // between two looks for a binary that is not there
	pingInterval = 10 * time.Second // between two questions whether the worker answers
	maxUnheard   = 3                // questions that it may leave without an answer
)

// Run runs a worker until ctx ends. One that ends by itself without an error does so because the binary is another one by now:
// that is run then. Any other end is an error.
func (p *Process) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		path, err := p.path()
		if err != nil {
			return err
		}
		if path == "" {
			select {
			case <-ctx.Done():
			case <-time.After(lookInterval):
			}
			continue
		}
		if err := p.once(ctx, path); err != nil && ctx.Err() == nil {
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
	cmd.Stderr = p.Stderr
	return hostexec.Run(cmd, func(process *os.Process) { go p.watch(ctx, process) })
}

// watch kills a worker that was heard of, and answers no more.
func (p *Process) watch(ctx context.Context, process *os.Process) {
	heard, unheard := false, 0
	for unheard < maxUnheard {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pingInterval):
		}
		if err := worker.Ping(filepath.Join(p.Root, p.Socket)); err == nil {
			heard, unheard = true, 0
		} else if heard {
			unheard++
		}
	}
	_ = process.Kill()
}

func (p *Process) path() (string, error) {
	path, err := p.Path()
	if err != nil || path == "" {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(p.Root, path)); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return path, nil
}

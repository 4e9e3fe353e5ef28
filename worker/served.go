package worker

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"sync"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
)

// What is handed over at most: a message has room for both.
const (
	maxStdout = 16 << 20 // bytes
	maxStderr = 1 << 20
)

// A served call is the plugin as [cni.Run] calls it, and its standard output.
type served struct {
	cni.Plugin
	conn   *net.UnixConn
	stdout bytes.Buffer
	stderr text
	adds   bool
	undoes bool
	err    error // of the command; or why it has to be done elsewhere
}

// waits is for [Caller]. What can not be handed over is undone whoever waits.
func (s *served) waits() error {
	if s.undoes {
		return nil
	}
	return waits(s.conn)
}

// Write fails when nobody waits to print it, which makes [cni.Run] undo an ADD.
func (s *served) Write(b []byte) (int, error) {
	if err := waits(s.conn); err != nil {
		return 0, err
	}
	if s.stdout.Len()+len(b) > maxStdout {
		s.err = fmt.Errorf("%w: it has a result of %d bytes, and at most %d are handed over", cni.ErrElsewhere, len(b), maxStdout)
		return 0, s.err
	}
	return s.stdout.Write(b)
}

// Add implements [cni.Plugin].
func (s *served) Add(ctx context.Context, req *cni.Request) (res *types100.Result, err error) {
	s.adds = true
	res, s.err = s.Plugin.Add(ctx, req)
	return res, s.err
}

// Del implements [cni.Plugin]. After an ADD it undoes that.
func (s *served) Del(ctx context.Context, req *cni.Request) error {
	s.undoes = s.adds
	err := s.Plugin.Del(ctx, req)
	if !s.adds || s.err == nil {
		s.err = err
	}
	return err
}

// Check implements [cni.Plugin].
func (s *served) Check(ctx context.Context, req *cni.Request) error {
	s.err = s.Plugin.Check(ctx, req)
	return s.err
}

// A text is standard error, of which the beginning is kept. Several goroutines write to it, some of them when the call is over.
type text struct {
	mu sync.Mutex
	b  []byte
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p[:min(len(p), maxStderr-len(t.b))]...)
	return len(p), nil
}

func (t *text) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}

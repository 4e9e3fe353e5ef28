package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/braid-cni/braid/cni"
)

// An executor has the plugin process at the other end of a connection execute plugins of others.
type executor struct {
	conn *net.UnixConn
	end  context.CancelCauseFunc // of the call
	del  bool                    // which comes to its end without the plugin process: there is nothing to undo

	mu       sync.Mutex    // for one at a time
	executed chan []string // what came of it
	gone     chan struct{} // closed when the plugin process has ended
}

func newExecutor(conn *net.UnixConn, end context.CancelCauseFunc) *executor {
	return &executor{conn: conn, end: end, executed: make(chan []string, 1), gone: make(chan struct{})}
}

// listen takes what the plugin process says until it ends, and ends the call then.
func (x *executor) listen() {
	defer close(x.gone)
	for {
		m, err := receive(patient{x.conn})
		switch {
		case err != nil || len(m) == 0:
			if !x.del {
				x.end(errGone)
			}
			return
		case m[0] == stop:
			x.end(errStopped)
		case m[0] == executed:
			select {
			case x.executed <- m[1:]:
			default: // nobody has asked
			}
		}
	}
}

// run is a [cni.Executor].
func (x *executor) run(ctx context.Context, e cni.Exec, command string, req *cni.Request) ([]byte, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, stopped(ctx, e, command)
	}
	if err := send(x.conn, encodeExecution(ctx, e, command, req)...); err != nil {
		return nil, fmt.Errorf("plugin %s: %w: %w", e.Type, errGone, err)
	}
	select {
	case m := <-x.executed:
		return decodeExecuted(e, req, m)
	case <-x.gone:
		return nil, fmt.Errorf("plugin %s: %w", e.Type, errGone)
	case <-ctx.Done():
	}
	if err := send(x.conn, kill); err == nil {
		select {
		case <-x.executed:
		case <-x.gone:
		}
	}
	return nil, stopped(ctx, e, command)
}

func stopped(ctx context.Context, e cni.Exec, command string) error {
	return fmt.Errorf("plugin %s: stopped during %s: %w", e.Type, command, context.Cause(ctx))
}

// errStopped is why a call ends that the runtime has told the plugin process to end.
var errStopped = errors.New("the plugin process was told to end")

// patient reads on after the deadline that a server sets which ends: it waits for the calls that are under way.
type patient struct{ *net.UnixConn }

func (p patient) Read(b []byte) (int, error) {
	for {
		n, err := p.UnixConn.Read(b)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		if err := p.SetReadDeadline(time.Time{}); err != nil {
			return 0, err
		}
	}
}

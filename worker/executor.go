package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/braid-cni/braid/internal/program"
	"github.com/braid-cni/braid/worker/protocol"
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
		m, err := protocol.Receive(patient{x.conn})
		switch {
		case err != nil || len(m) == 0:
			if !x.del {
				x.end(errGone)
			}
			return
		case m[0] == protocol.Stop:
			x.end(errStopped)
		case m[0] == protocol.Executed:
			select {
			case x.executed <- m:
			default: // nobody has asked
			}
		}
	}
}

// run is a [program.Runner].
func (x *executor) run(ctx context.Context, p *program.Program) ([]byte, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, &program.StoppedError{Cause: context.Cause(ctx)}
	}
	if err := protocol.Send(x.conn, protocol.EncodeProgram(p)...); err != nil {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	select {
	case m := <-x.executed:
		return protocol.DecodeExecuted(m)
	case <-x.gone:
		return nil, errGone
	case <-ctx.Done():
	}
	if err := protocol.Send(x.conn, protocol.Kill); err == nil {
		select {
		case <-x.executed:
		case <-x.gone:
		}
	}
	return nil, &program.StoppedError{Cause: context.Cause(ctx)}
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

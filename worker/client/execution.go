package client

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/program"
	"github.com/braid-cni/braid/worker/protocol"
)

// endTime is how long a signal may take to end the process, before it is taken for one that is ignored.
const endTime = time.Second

// An execution is the plugin of somebody else that a plugin process runs for the worker.
//
// Until the first one a signal ends the process, which makes the worker undo the call. From then on what the worker undoes takes
// this process: the signal is passed on.
type execution struct {
	conn *os.File

	signals context.Context // ends with a signal; nil before the first one
	unheed  func()          // of signals
	cancel  context.CancelFunc
	running sync.WaitGroup
	writing sync.Mutex
}

// begin executes what a message asks for, and tells the worker what came of it.
func (x *execution) begin(m []string) error {
	p, err := protocol.DecodeProgram(m)
	if err != nil {
		return err
	}
	if x.signals == nil {
		// It has accepted the call: half of a message, since it was slow, would have both wait for the other for ever.
		if err := unix.SetsockoptTimeval(int(x.conn.Fd()), unix.SOL_SOCKET, unix.SO_SNDTIMEO, new(unix.Timeval)); err != nil {
			return err
		}
		x.heed()
	}
	x.kill()
	var ctx context.Context
	ctx, x.cancel = context.WithCancel(context.Background())
	x.running.Go(func() { _ = x.send(protocol.EncodeExecuted(program.Run(ctx, p))...) })
	return nil
}

// heed has the first signal end the call, rather than this process. And what plugins log to nobody must not end it: not by
// signal.Ignore, which they would inherit.
func (x *execution) heed() {
	ctx, unheed := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	forget := context.AfterFunc(ctx, func() {
		unheed()
		_ = x.send(protocol.Stop)
	})
	unread := make(chan os.Signal, 1)
	signal.Notify(unread, syscall.SIGPIPE)
	x.signals, x.unheed = ctx, func() { forget(); unheed(); signal.Stop(unread) }
}

// kill ends what is being executed.
func (x *execution) kill() {
	if x.cancel != nil {
		x.cancel()
		x.running.Wait()
	}
}

// end leaves nothing behind that is being executed. A process that was told to end, and whose call is not done, does so.
func (x *execution) end(done bool) {
	x.kill()
	if x.signals == nil {
		return
	}
	told := x.signals.Err() != nil
	x.unheed()
	if told && !done {
		_ = unix.Kill(os.Getpid(), unix.SIGTERM)
		time.Sleep(endTime) // it is another thread that gets the signal
	}
}

func (x *execution) send(texts ...string) error {
	x.writing.Lock()
	defer x.writing.Unlock()
	return protocol.Send(x.conn, texts...)
}

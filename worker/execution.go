package worker

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
)

// encodeExecution is what a worker asks for.
func encodeExecution(ctx context.Context, e cni.Exec, command string, req *cni.Request) []string {
	trace := ""
	if t, ok := cni.TraceParentOf(ctx); ok {
		trace = t.String()
	}
	return append([]string{
		execute, e.Type, strconv.FormatInt(int64(e.Timeout), 10), command, req.ContainerID, req.Netns, req.IfName, req.Args,
		string(req.Config), trace,
	}, req.Path...)
}

func decodeExecution(m []string) (ctx context.Context, e cni.Exec, command string, req *cni.Request, err error) {
	const fixed = 9
	if len(m) < fixed {
		return nil, e, "", nil, errMessage
	}
	timeout, err := strconv.ParseInt(m[1], 10, 64)
	ctx = context.Background()
	if t, ok := cni.ParseTraceParent(m[8]); ok {
		ctx = cni.WithTraceParent(ctx, t)
	}
	at := cni.Attachment{ContainerID: m[3], Netns: m[4], IfName: m[5], Args: m[6]}
	return ctx, cni.Exec{Type: m[0], Timeout: time.Duration(timeout)}, m[2],
		&cni.Request{Attachment: at, Path: m[fixed:], Config: []byte(m[7])}, err
}

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
	ctx, e, command, req, err := decodeExecution(m)
	if err != nil {
		return err
	}
	if x.signals == nil {
		x.heed()
	}
	x.kill()
	ctx, x.cancel = context.WithCancel(ctx)
	x.running.Go(func() {
		stdout, err := e.Run(ctx, command, req)
		_ = x.send(append([]string{executed, string(stdout)}, encodeError(err)...)...)
	})
	return nil
}

// heed has the first signal end the call, rather than this process.
func (x *execution) heed() {
	ctx, unheed := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	forget := context.AfterFunc(ctx, func() {
		unheed()
		_ = x.send(stop)
	})
	x.signals, x.unheed = ctx, func() { forget(); unheed() }
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
	}
}

func (x *execution) send(texts ...string) error {
	x.writing.Lock()
	defer x.writing.Unlock()
	return send(x.conn, texts...)
}

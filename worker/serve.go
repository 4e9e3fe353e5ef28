package worker

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/program"
	"github.com/braid-cni/braid/internal/roomy"
	"github.com/braid-cni/braid/worker/protocol"
)

// A Worker serves plugin processes. It is safe for concurrent use.
type Worker struct {
	// Plugin returns what does one call for a caller. What only the process itself can do fails with
	// [cni.ErrElsewhere], before anything is changed. Required.
	Plugin func(Caller) cni.Plugin
	// About is that of [cni.Run].
	About string
	// Outdated is called when a caller has shown that this binary is no longer where it was started from; it may be nil.
	Outdated func()
}

// A Caller is the plugin process that waits for a call.
type Caller struct {
	Stderr io.Writer // what goes there is printed with the answer
	// Waits fails if the process has ended, or no longer waits, and does the call itself. If it does not fail while the lock of
	// the container is held, nobody else does the call before that is released.
	Waits func() error
	// Execute has the process run the plugin of somebody else, which fails if that has ended.
	Execute program.Runner
}

// requestTime is how long a call may take to be read.
const requestTime = 10 * time.Second

// Serve does the one call that a connection brings. When the caller ends before, so does the context of the plugin, which undoes
// an ADD; a DEL goes on.
func (w *Worker) Serve(ctx context.Context, conn *net.UnixConn) error {
	roomy.Stack()
	if err := conn.SetReadDeadline(time.Now().Add(requestTime)); err != nil {
		return err
	}
	texts, err := protocol.Receive(conn)
	if err != nil {
		return err
	}
	env, stdin, ok := call(texts)
	if !ok {
		if w.Outdated != nil && isOutdated() {
			w.Outdated()
		}
		return protocol.Send(conn, protocol.Elsewhere)
	}
	if err := errors.Join(waits(conn), conn.SetReadDeadline(time.Time{})); err != nil {
		return err
	}
	working, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	x := newExecutor(conn, cancel)
	x.del = env("CNI_COMMAND") == "DEL"
	go x.listen()
	s := &served{conn: conn}
	s.Plugin = w.Plugin(Caller{Stderr: &s.stderr, Waits: s.waits, Execute: x.run})
	code := cni.Run(working, s, w.About, cni.Process{Env: env, Stdin: strings.NewReader(stdin), Stdout: s, Stderr: &s.stderr})
	if errors.Is(s.err, cni.ErrElsewhere) {
		return protocol.Send(conn, protocol.Elsewhere)
	}
	if code != 0 && ctx.Err() != nil {
		return protocol.Send(conn, protocol.Elsewhere) // a plugin process has the time that this one has not any more
	}
	return protocol.Send(conn, protocol.Answered, strconv.Itoa(code), s.stdout.String(), s.stderr.String())
}

// call returns the environment and the standard input of a call, if it is one for this worker.
func call(texts []string) (env func(string) string, stdin string, ok bool) {
	if len(texts) < 2 {
		return nil, "", false
	}
	table := make(map[string]string)
	for _, e := range texts[2:] {
		name, value, ok := strings.Cut(e, "=")
		if _, again := table[name]; ok && !again { // as in a process of Go
			table[name] = value
		}
	}
	env = func(name string) string { return table[name] }
	switch env("CNI_COMMAND") {
	case "ADD", "DEL", "CHECK":
		return env, texts[1], texts[0] == protocol.Place(protocol.Own, env("CNI_NETNS"))
	default:
		return nil, "", false
	}
}

// isOutdated says whether there is another binary where this one was started from.
func isOutdated() bool {
	path, err := os.Executable()
	if err != nil {
		return false
	}
	var there, own unix.Stat_t
	return unix.Stat(path, &there) == nil && unix.Stat(protocol.Own, &own) == nil && (there.Dev != own.Dev || there.Ino != own.Ino)
}

// errGone is why a call is not done whose caller has ended.
var errGone = errors.New("the plugin process has ended")

// waits fails if the other end of a connection is closed. It looks now, and does not wait for the news of it to be read.
func waits(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	ended := false
	control := raw.Control(func(fd uintptr) { ended, err = protocol.Poll(int(fd), unix.POLLRDHUP, 0) })
	if err := errors.Join(control, err); err != nil {
		return err
	}
	if ended {
		return errGone
	}
	return nil
}

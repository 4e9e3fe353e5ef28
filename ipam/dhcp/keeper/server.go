package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/peercred"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

const (
	maxRequests = 1024             // at a time
	requestTime = 10 * time.Second // for a plugin to say what it wants, and for it to take the answer
)

// Serve answers plugins until the context ends, and then ends the keeper. The leases stay; the next keeper takes them
// up.
func (k *Keeper) Serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		k.stop(errShutdown) // ends the requests that wait for a server
		_ = k.listener.Close()
	})()
	var requests sync.WaitGroup
	requests.Go(func() { k.sweep(k.ctx) })
	slots := make(chan struct{}, maxRequests)
	for {
		slots <- struct{}{}
		conn, err := k.listener.Accept()
		if err != nil && ctx.Err() == nil {
			// Out of descriptors, for instance. It passes.
			k.Log.Error("accept a request", "error", err)
			sleep(ctx, 100*time.Millisecond)
			<-slots
			continue
		}
		if err != nil {
			break
		}
		requests.Go(func() {
			defer func() { <-slots }()
			defer conn.Close()
			if err := k.serve(conn.(*net.UnixConn)); err != nil {
				k.Log.Warn("serve a request", "error", err)
			}
		})
	}
	requests.Wait()
	return k.close()
}

// serve answers one request.
func (k *Keeper) serve(conn *net.UnixConn) error {
	// The second line of defence, after the mode of the socket.
	if err := peercred.Root(conn); err != nil {
		return fmt.Errorf("refuse a request: %w", err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(requestTime)); err != nil {
		return err
	}
	var req lease.Request
	if err := lease.Read(conn, &req); err != nil {
		return fmt.Errorf("read a request: %w", err)
	}
	if err := conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	go func() {
		// The plugin says no more. When it closes, it has gone.
		_, _ = conn.Read(make([]byte, 1))
		cancel(errAbandoned)
	}()
	answer := k.answer(ctx, &req)
	if err := conn.SetWriteDeadline(time.Now().Add(requestTime)); err != nil {
		return err
	}
	return json.NewEncoder(conn).Encode(answer)
}

func (k *Keeper) answer(ctx context.Context, req *lease.Request) *lease.Response {
	res := &lease.Response{Version: lease.ProtocolVersion}
	held, err := k.do(ctx, req)
	if err != nil {
		res.Error = coded(err)
		if k.ctx.Err() != nil {
			res.Error.Details = lease.DetailsEnding
		}
		return res
	}
	res.Held = held
	return res
}

// guard makes an error of a panic, so that it ends what it happened in and nothing else: the leases of all pods depend
// on this process. Defer it.
func (k *Keeper) guard(err *error) {
	if p := recover(); p != nil {
		k.Log.Error("panic", "value", p, "stack", string(debug.Stack()))
		*err = fmt.Errorf("panic: %v", p)
	}
}

func (k *Keeper) do(ctx context.Context, req *lease.Request) (held lease.Held, err error) {
	defer k.guard(&err)
	if req.Version != lease.ProtocolVersion {
		return held, fmt.Errorf("the lease keeper speaks version %d of the protocol, the plugin %d",
			lease.ProtocolVersion, req.Version)
	}
	switch req.Verb {
	case lease.VerbAdd:
		if err := req.Spec.Validate(); err != nil {
			return held, err
		}
		return k.add(ctx, &req.Spec)
	case lease.VerbCheck:
		return k.check(ctx, req.Spec.Key)
	case lease.VerbDel:
		return held, k.del(ctx, req.Spec.Key)
	case lease.VerbGC:
		return held, k.gc(ctx, req.Spec.Network, req.Valid)
	case lease.VerbStatus:
		return held, nil
	}
	return held, fmt.Errorf("the lease keeper does not know the verb %q", req.Verb)
}

// coded keeps the code of an error, and all of its message.
func coded(err error) *types.Error {
	code := types.ErrInternal
	var e *types.Error
	if errors.As(err, &e) {
		code = e.Code
	}
	return types.NewError(code, err.Error(), "")
}

// listen opens the socket, in place of one that nobody listens on any more.
func listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if conn, err := net.Dial("unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listen on %s: another process does, perhaps the daemon of the reference dhcp plugin", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) (err error) {
		// Before it has a name, so that there is no moment in which others could connect.
		control := conn.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(control, err)
	}}
	return l.Listen(context.Background(), "unix", path)
}

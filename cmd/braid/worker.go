package main

import (
	"context"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/memo"
	"github.com/braid-cni/braid/ipam/hostlocal"
	"github.com/braid-cni/braid/netdev"
	"github.com/braid-cni/braid/node/server"
	"github.com/braid-cni/braid/worker"
)

// workerSocket returns where a worker is to listen, if that is what arguments ask for: "worker SOCKET". Whoever asks for help, as
// --help, gets no worker.
func workerSocket(args []string) (socket string, ok bool) {
	if len(args) != 3 || args[1] != "worker" || strings.HasPrefix(args[2], "-") {
		return "", false
	}
	return args[2], true
}

// work makes this process the worker that listens at a socket, until it gets SIGTERM or the binary is replaced.
func work(socket, about string) error {
	debug.SetGCPercent(200) // it lives longer than a call; and many may be at work at once, who need the CPU
	debug.SetMemoryLimit(math.MaxInt64)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	host, err := netdev.Host() // which every call would open anew otherwise
	if err != nil {
		return err
	}
	defer host.Close()
	memory := new(memo.Memory) // of what is the same in one call as in the next
	defer hostlocal.Keep()()
	w := &worker.Worker{About: about, Outdated: stop, Plugin: func(c worker.Caller) cni.Plugin {
		d := delegator(c.Stderr)
		d.Caller, d.Executor = c.Waits, c.Execute
		d.Memory = memory
		d.Later = func(do func()) { go do() }
		return d
	}}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("part", "worker")
	return server.New(server.Options{Socket: socket, Handle: newRest(debug.FreeOSMemory).between(w.Serve), Log: log}).Run(ctx)
}

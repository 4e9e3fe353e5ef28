// Package node is the node daemon: what `braidd daemon` runs on each node, as a composition of parts. It knows the
// cluster, and writes to it, for the plugin, which acts on the node. The plugin works without it too, only slower.
package node

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/braid-cni/braid/ipam/dhcp/keeper"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/node/leases"
	"github.com/braid-cni/braid/node/server"
	"github.com/braid-cni/braid/node/status"
	"github.com/braid-cni/braid/resolve"
)

// Options say what a daemon is made of. What is not needed is left zero.
type Options struct {
	CNIDir string        // the plugin's cniDir
	Source Source        // of pods and networks
	Writer status.Writer // of network-status and events
	Log    *slog.Logger  // default slog.Default()

	Server server.Options // its Resolver is the daemon's own, its Log that of these options
	Status status.Options // its Journal, Writer and Log are those of these options
	DHCP   keeper.Options // its Log is that of these options, its Changed the daemon's own
	NoDHCP bool           // no lease keeper

	// LeaseChanged is told of leases that are no longer what their ADDs returned. It may be nil, and must not block.
	LeaseChanged func(keeper.Change)

	// Observe gets what plugins tell of their calls, besides what the daemon itself does about it. It may be nil, and must
	// not block.
	Observe func(*resolve.Observation)
}

// A Node is a daemon. Its parts are there for others to ask; they run while [Node.Run] does.
type Node struct {
	Journal *journal.Journal
	Server  *server.Server
	Status  *status.Queue
	Leases  *leases.Part // nil without a lease keeper

	log    *slog.Logger
	status *supervised
	parts  []*supervised // all others
}

// New returns a daemon that does nothing yet.
func New(o Options) (*Node, error) {
	if o.Source == nil || o.Writer == nil {
		return nil, errors.New("a daemon needs a source of pods and networks, and a writer of status")
	}
	n := &Node{log: cmp.Or(o.Log, slog.Default())}
	dir := filepath.Join(o.CNIDir, "attachments")
	var err error
	if n.Journal, err = journal.Open(dir); err != nil {
		return nil, err
	}
	o.Status.Journal, o.Status.Writer, o.Status.Log = n.Journal, o.Writer, n.log
	n.Status = status.New(o.Status)
	n.status = n.supervise(Part{Name: "status", Run: n.Status.Run})

	o.Server.Resolver = &resolver{source: o.Source, queue: n.Status, journal: dir}
	o.Server.Observe = n.observe(o.Observe)
	o.Server.Log = n.log
	n.Server = server.New(o.Server)
	n.Add(Part{Name: "socket", Run: n.Server.Run, Ready: n.Server.Ready})

	if !o.NoDHCP {
		o.DHCP.Log = n.log
		recorder := leases.NewRecorder(n.Journal, n.log)
		o.DHCP.Changed = func(c keeper.Change) {
			recorder.Changed(c)
			if o.LeaseChanged != nil {
				o.LeaseChanged(c)
			}
		}
		n.Leases = leases.New(o.DHCP)
		n.Add(Part{Name: "dhcp", Run: n.Leases.Run})
	}
	return n, nil
}

// observe writes the events of an observation, and hands it on.
func (n *Node) observe(next func(*resolve.Observation)) func(*resolve.Observation) {
	return func(o *resolve.Observation) {
		n.Status.Events(o.Pod, o.Events)
		if next != nil {
			next(o)
		}
	}
}

// Add adds a part. It is for the time before Run.
func (n *Node) Add(p Part) { n.parts = append(n.parts, n.supervise(p)) }

func (n *Node) supervise(p Part) *supervised {
	return &supervised{Part: p, log: n.log.With("part", p.Name)}
}

// Run runs all parts until ctx ends. They end at the same time, but for the status queue: it takes what is reported until the
// server has answered its last request.
func (n *Node) Run(ctx context.Context) {
	queue, endQueue := context.WithCancel(context.WithoutCancel(ctx))
	defer endQueue()
	var last, others sync.WaitGroup
	last.Go(func() { n.status.run(queue) })
	for _, p := range n.parts {
		others.Go(func() { p.run(ctx) })
	}
	<-ctx.Done()
	n.log.Info("ending", "cause", context.Cause(ctx))
	others.Wait()
	endQueue()
	last.Wait()
}

// Ready says of each part why it is not ready; nil if it is.
func (n *Node) Ready() map[string]error {
	ready := map[string]error{n.status.Name: n.status.ready()}
	for _, p := range n.parts {
		ready[p.Name] = p.ready()
	}
	return ready
}

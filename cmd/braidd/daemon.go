package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/internal/buildinfo"
	"github.com/braid-cni/braid/ipam/dhcp/keeper"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
	"github.com/braid-cni/braid/kube"
	"github.com/braid-cni/braid/kube/cache"
	"github.com/braid-cni/braid/kube/devices"
	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/node"
	"github.com/braid-cni/braid/node/health"
	"github.com/braid-cni/braid/node/install"
	"github.com/braid-cni/braid/node/metrics"
	"github.com/braid-cni/braid/node/server"
	"github.com/braid-cni/braid/node/status"
	"github.com/braid-cni/braid/node/sweep"
	"github.com/braid-cni/braid/node/tracing"
	"github.com/braid-cni/braid/node/workerproc"
	"github.com/braid-cni/braid/resolve"
	"github.com/braid-cni/braid/worker/protocol"
)

const (
	lookupsAtOnce  = 32   // of the API server
	lookupsWaiting = 2048 // beyond those: a node full of pods that start at once, with several networks each
)

// daemonFlags are those of `braidd daemon`.
type daemonFlags struct {
	node.Options
	kube     kube.Options
	nodeName string
	level    slog.Level
	health   health.Options
	tracing  tracing.Options
	sweep    sweep.Options
	hostRoot string
	work     bool // in place of plugin processes
	// podResources is the socket of the kubelet.
	podResources string
}

// daemonCommand runs what a node of a cluster needs of Braid besides the plugin.
func daemonCommand() *cobra.Command {
	var f daemonFlags
	cmd := &cobra.Command{
		Use:   "daemon",
		Short: "serve the plugin on a node of a cluster",
		Long: "Answers the plugin's questions on a unix socket, writes network-status and events, keeps DHCP leases, undoes what\n" +
			"is left of containers that are gone, and keeps the installation as it should be, until it is stopped. A child of it,\n" +
			"the worker, does calls in place of plugin processes. The plugin works without both, only slower. Two on one node take\n" +
			"turns: the second one serves when the first is stopped, so that an upgrade leaves no gap.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context(), cmd.ErrOrStderr()) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.Server.Socket, "socket", server.DefaultSocket, "unix socket to listen on")
	flags.StringVar(&f.kube.Kubeconfig, "kubeconfig", "", "how the API server is reached (default: the service account of the pod)")
	flags.StringVar(&f.nodeName, "node-name", "", "name of this node in the cluster (default $NODE_NAME, else the host name)")
	flags.StringVar(&f.podResources, "pod-resources", devices.DefaultSocket, "socket on which the kubelet tells the devices of pods")
	flags.StringVar(&f.CNIDir, "cni-dir", "/var/lib/cni/braid", "the plugin's cniDir, whose journal has what is to be written")
	flags.StringVar(&f.DHCP.Socket, "dhcp-socket", lease.DefaultSocket,
		"unix socket of the DHCP lease keeper; the leases are kept beside it, in a folder that ends in .leases. Empty for no keeper")
	flags.BoolVar(&f.kube.Condition, "pod-condition", false, "write the condition "+string(kube.NetworksAttached)+" of pods too")
	flags.StringVar(&f.health.Listen, "listen", health.DefaultListen, "address of /healthz, /readyz and /metrics")
	flags.BoolVar(&f.health.Pprof, "pprof", false, "serve /debug/pprof/ at the same address")
	flags.StringVar(&f.tracing.Endpoint, "otlp-endpoint", "", "URL of an OTLP collector for traces (default: OTEL_EXPORTER_OTLP_ENDPOINT)")
	flags.StringVar(&f.hostRoot, "host-root", "", "where the file system of the host is to be seen, if it is not this process's own")
	flags.BoolVar(&f.work, "worker", true, "run a worker: braid as a process that stays, and does the calls of plugin processes faster than they do")
	flags.DurationVar(&f.sweep.Interval, "sweep-interval", sweep.DefaultInterval, "how often attachments of containers that are gone are looked for")
	flags.DurationVar(&f.sweep.Grace, "sweep-grace", sweep.DefaultGrace, "how long a container must be gone before its attachments are undone")
	flags.BoolVar(&f.sweep.Repair, "repair", false, "make again, every --sweep-interval, what running pods have lost on the node: bridges that were deleted, ports taken out of them, rules that were flushed")
	flags.TextVar(&f.level, "log-level", slog.LevelInfo, "the least `level` that is logged: debug, info, warn or error")
	return cmd
}

func (f *daemonFlags) run(ctx context.Context, stderr io.Writer) error {
	f.Log = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: f.level}))
	name, err := nodeName(f.nodeName)
	if err != nil {
		return err
	}
	m := metrics.New(buildinfo.Version)
	f.kube.Log, f.kube.Daemon, f.kube.Node = f.Log, true, name
	f.kube.Observe = func(r kube.Request) { m.APIRequest(r.Verb, r.Resource, code(r.Code), r.Took) }
	api, err := kube.New(f.kube)
	if err != nil {
		return err
	}
	known, err := cache.New(api, cache.Options{
		Node: name, Log: f.Log, Ask: asked{node.Limit(api, lookupsAtOnce, lookupsWaiting)},
		Count: func(_, origin string) {
			if origin == string(lookup.Disputed) {
				m.AnnotationMismatch()
			}
		},
	})
	if err != nil {
		return err
	}
	f.tracing.Getenv, f.tracing.Version, f.tracing.Node, f.tracing.Log = os.Getenv, buildinfo.Version, name, f.Log
	spans, err := tracing.New(f.tracing)
	if err != nil {
		return err
	}
	f.Source = &devices.Resolver{Resolver: counted{known, m}, Socket: f.podResources}
	f.Writer, f.NoDHCP = api, f.DHCP.Socket == ""
	f.Observe = func(o *resolve.Observation) { m.Observe(o); spans.Observe(o) }
	f.LeaseChanged = func(c keeper.Change) { m.DHCPLeaseChanged(c.Err != nil) }
	f.Status.Tried = func(t status.Try) {
		if t.What == "status" {
			m.ReportTried(t.Outcome != resolve.Success)
			if t.Outcome == resolve.Success {
				m.ReportWritten(t.Age)
			}
		}
	}
	f.Server.Refused = func(error) { m.Refused() }
	n, err := node.New(f.Options)
	if err != nil {
		return err
	}
	f.watch(m, n, known, spans)
	n.Add(node.Part{Name: "cache", Run: func(ctx context.Context) error { known.Run(ctx); return nil }, Ready: synced(known)})
	n.Add(node.Part{Name: "traces", Run: func(ctx context.Context) error { spans.Run(ctx); return nil }})
	n.Add(node.Part{Name: "sweep", Run: func(ctx context.Context) error { return f.runSweeper(ctx, m, n, known) }})
	if f.work {
		n.Add(node.Part{Name: "worker", Run: f.worker(stderr).Run})
	}
	n.Add(node.Part{Name: "credentials", Run: func(ctx context.Context) error {
		return install.KeepCredentials(ctx, f.CNIDir, f.Log)
	}})
	guard := install.NewGuard(f.CNIDir, f.Log, func(notice install.Notice) { noticed(m, n, notice) })
	n.Add(node.Part{Name: "configuration", Run: guard.Run, Ready: guard.Ready})
	n.Add(node.Part{Name: "health", Run: func(ctx context.Context) error { return f.serveHealth(ctx, m, n) }})
	f.Log.Info("daemon started", "node", name, "version", buildinfo.Version)
	n.Run(ctx)
	return nil
}

// watch lets metrics ask the parts.
func (f *daemonFlags) watch(m *metrics.Metrics, n *node.Node, known *cache.Source, spans *tracing.Exporter) {
	m.Connections(func() float64 { return float64(n.Server.Connections()) })
	m.Reports(func() float64 { records, _ := n.Status.Len(); return float64(records) }, n.Status.OldestAge)
	m.Informer("pods", func() float64 { pods, _ := known.Len(); return float64(pods) }, known.Synced)
	m.Informer("network-attachment-definitions", func() float64 { _, networks := known.Len(); return float64(networks) }, known.Synced)
	if n.Leases != nil {
		m.DHCPLeases(func() float64 { attachments, _ := n.Leases.State(); return float64(attachments) })
	}
	m.Spans(spans.Exported, spans.Dropped)
	m.Journal(n.Journal, f.hostRoot)
	m.Ready(func() bool { return firstError(n.Ready()) == nil })
}

func firstError(checks map[string]error) error {
	for _, err := range checks {
		if err != nil {
			return err
		}
	}
	return nil
}

func synced(known *cache.Source) func() error {
	return func() error {
		if !known.Synced() {
			return errors.New("not all pods and networks are known yet: the API server is asked for each")
		}
		return nil
	}
}

// runSweeper undoes what is left of containers that are gone, with the binaries that are installed on the node.
func (f *daemonFlags) runSweeper(ctx context.Context, m *metrics.Metrics, n *node.Node, known *cache.Source) error {
	o := f.sweep
	self, err := os.Executable()
	if err != nil {
		return err
	}
	o.Command = sweep.Command{Root: f.hostRoot, Path: self, Args: []string{"--cni-dir", f.CNIDir}}
	if at, err := install.Installed(f.CNIDir); err == nil {
		o.Command.Path = filepath.Join(at.BinDir, "braidd")
		o.Command.Args = append(o.Command.Args, "--conf-dir", at.ConfDir)
	} else if !errors.Is(err, install.ErrNotInstalled) {
		return err
	}
	o.Pods, o.Log = known, f.Log
	o.Cached = known.HasPod
	o.Done = func(s sweep.Summary) {
		m.Swept(s.Actions[delegate.Undone], s.Actions[delegate.Failed], s.Err)
		m.Repaired(s.Actions[delegate.Repaired], s.Actions[delegate.Unrepaired])
	}
	o.Event = func(pod resolve.Pod, e resolve.Event) { n.Status.Events(pod, []resolve.Event{e}) }
	return sweep.New(o).Run(ctx)
}

// worker does the calls of plugin processes.
func (f *daemonFlags) worker(stderr io.Writer) *workerproc.Process {
	return &workerproc.Process{
		Root: f.hostRoot, Socket: protocol.SocketOf(f.Server.Socket), Stderr: stderr,
		Path: func() (string, error) {
			switch at, err := install.Installed(f.CNIDir); {
			case err == nil:
				return filepath.Join(at.BinDir, "braid"), nil
			case !errors.Is(err, install.ErrNotInstalled):
				return "", err
			case f.hostRoot != "":
				return "", nil // it will be
			}
			self, err := os.Executable()
			return filepath.Join(filepath.Dir(self), "braid"), err
		},
	}
}

// noticed tells what has become of the installation: metrics, and whoever looks at the events of the node.
func noticed(m *metrics.Metrics, n *node.Node, notice install.Notice) {
	if notice.Mended {
		m.ConfigurationRepaired(map[string]string{
			install.ConfMissing: metrics.Missing, install.ConfAltered: metrics.Changed, install.ConfShadowed: metrics.Shadowed,
		}[notice.Reason])
	}
	n.Status.Events(resolve.Pod{}, []resolve.Event{{Type: "Warning", Reason: notice.Reason, Message: notice.Message}})
}

// counted counts what is resolved. Whether the API server had to be asked, asked says by way of the context.
type counted struct {
	*cache.Source
	metrics *metrics.Metrics
}

func (c counted) Resolve(ctx context.Context, q *resolve.Query) (*resolve.Answer, error) {
	start, live := time.Now(), new(atomic.Bool)
	a, err := c.Source.Resolve(context.WithValue(ctx, liveKey{}, live), q)
	source := metrics.Cache
	if live.Load() {
		source = metrics.Live
	}
	c.metrics.Resolved(source, err, time.Since(start))
	return a, err
}

type liveKey struct{}

type asked struct{ lookup.Source }

func (a asked) Pod(ctx context.Context, pod resolve.Pod) (*lookup.Pod, error) {
	note(ctx)
	return a.Source.Pod(ctx, pod)
}

func (a asked) Network(ctx context.Context, name resolve.NetworkName) (*resolve.Network, error) {
	note(ctx)
	return a.Source.Network(ctx, name)
}

func note(ctx context.Context) {
	if live, ok := ctx.Value(liveKey{}).(*atomic.Bool); ok {
		live.Store(true)
	}
}

// serveHealth listens anew whenever it failed: the daemon before this one may still have the address.
func (f *daemonFlags) serveHealth(ctx context.Context, m *metrics.Metrics, n *node.Node) error {
	o := f.health
	o.Metrics, o.Log = m.Handler(), f.Log
	s, err := health.New(o)
	if err != nil {
		return err
	}
	s.Live("socket", n.Server.Live)
	s.Live("status", func() error { n.Status.Len(); return nil }) // its lock can be had
	for name := range n.Ready() {
		if name != "health" {
			s.Ready(name, func() error { return n.Ready()[name] })
		}
	}
	return s.Serve(ctx)
}

// code is the HTTP status of an answer, for metrics.
func code(status int) string {
	if status == 0 {
		return metrics.NoAnswer
	}
	return strconv.Itoa(status)
}

// nodeName returns the name that the flag gives, or the pod's environment, or the host.
func nodeName(flag string) (string, error) {
	if name := cmp.Or(flag, os.Getenv("NODE_NAME")); name != "" {
		return name, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("no --node-name, no NODE_NAME, and no host name: %w", err)
	}
	return name, nil
}

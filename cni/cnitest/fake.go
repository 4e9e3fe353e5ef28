package cnitest

import (
	"context"
	"fmt"
	"hash/fnv"
	"net"
	"slices"
	"sync"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
)

// A Fake is a plugin that touches nothing and records what it is asked, for tests of what calls plugins. The zero
// value succeeds: its ADD returns prevResult with the requested interface added to it. Safe for concurrent use.
type Fake struct {
	// Name says which plugin this is in a list of calls that several write to.
	Name string

	// Result of ADD instead of the default one.
	Result *types100.Result

	// On, if not nil, runs in every call after it was recorded. An error that it returns is the answer. It may wait
	// for the context, or panic.
	On func(ctx context.Context, command string, req *cni.Request) error

	// MACs gives each interface that a result of the plugin's own making has an address that no other has.
	MACs bool

	// Log, if not nil, gets the calls of this plugin among those of others, in the order in which they began.
	Log *Log

	own Log
}

var _ cni.Plugin = (*Fake)(nil)

// A Call is what a Fake was asked.
type Call struct {
	Plugin  string // Fake.Name
	Command string // ADD, DEL, CHECK, GC or STATUS
	Request *cni.Request
}

func (c Call) String() string {
	s := c.Command
	if c.Plugin != "" {
		s = c.Plugin + " " + s
	}
	if c.Request.IfName != "" {
		s += " " + c.Request.IfName
	}
	return s
}

// A Log is a list of calls. The zero value is empty; it is safe for concurrent use.
type Log struct {
	mu    sync.Mutex
	calls []Call
}

// Calls returns what was called so far.
func (l *Log) Calls() []Call {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls)
}

// Strings returns the calls as "plugin COMMAND interface".
func (l *Log) Strings() []string {
	lines := []string{}
	for _, c := range l.Calls() {
		lines = append(lines, c.String())
	}
	return lines
}

func (l *Log) add(c Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, c)
}

// Calls returns what this plugin was called for so far.
func (f *Fake) Calls() []Call { return f.own.Calls() }

func (f *Fake) call(ctx context.Context, command string, req *cni.Request) error {
	c := Call{Plugin: f.Name, Command: command, Request: copyOf(req)}
	f.own.add(c)
	if f.Log != nil {
		f.Log.add(c)
	}
	if f.On != nil {
		return f.On(ctx, command, req)
	}
	return nil
}

// Add implements [cni.Plugin].
func (f *Fake) Add(ctx context.Context, req *cni.Request) (*types100.Result, error) {
	if err := f.call(ctx, "ADD", req); err != nil {
		return nil, err
	}
	if f.Result != nil {
		return f.Result, nil
	}
	res, err := cni.PrevResult(req.Config)
	if err != nil {
		return nil, err
	}
	if res == nil {
		res = &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	}
	made := func(i *types100.Interface) bool { return i.Name == req.IfName && i.Sandbox == req.Netns }
	if !slices.ContainsFunc(res.Interfaces, made) {
		res.Interfaces = append(res.Interfaces, &types100.Interface{Name: req.IfName, Mac: f.macOf(req), Sandbox: req.Netns})
	}
	return res, nil
}

func (f *Fake) macOf(req *cni.Request) string {
	if !f.MACs {
		return ""
	}
	h := fnv.New32a()
	fmt.Fprintln(h, req.Netns, req.IfName)
	return net.HardwareAddr(h.Sum([]byte{0x02, 0xfa})).String()
}

// Del implements [cni.Plugin].
func (f *Fake) Del(ctx context.Context, req *cni.Request) error { return f.call(ctx, "DEL", req) }

// Check implements [cni.Plugin].
func (f *Fake) Check(ctx context.Context, req *cni.Request) error { return f.call(ctx, "CHECK", req) }

// GC implements [cni.Plugin].
func (f *Fake) GC(ctx context.Context, req *cni.Request) error { return f.call(ctx, "GC", req) }

// Status implements [cni.Plugin].
func (f *Fake) Status(ctx context.Context, req *cni.Request) error { return f.call(ctx, "STATUS", req) }

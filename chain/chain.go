// Package chain runs the plugins of one network for one attachment: it derives the request of each from the network
// configuration, runs them in the order of the verb, and undoes them when one fails.
//
// It plays the part that the CNI specification gives to the container runtime (section 3), and does what the
// specification asks of runtimes where their common library does not: a failed ADD is followed by DEL, configuration
// values are passed on byte for byte, and a failing DEL does not keep the rest of the chain from being undone.
package chain

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/internal/memo"
	"github.com/braid-cni/braid/internal/undo"
)

// A Chain is a network with its plugins. It holds no state but a memory, and is safe for concurrent use.
type Chain struct {
	network *conf.Network
	version string // the CNI version that the plugins are spoken to in
	path    []string
	links   []link
	memory  *memo.Memory // nil remembers nothing
}

type link struct {
	conf   *conf.Plugin
	plugin cni.Plugin
	ipam   cni.Plugin // the address plugin that an own plugin will look up; nil if it has none
}

// binary returns what a link executes: its plugin, or the address plugin of an own one.
func (l *link) binary() (binary cni.Exec, own bool) {
	binary, ok := l.plugin.(cni.Exec)
	if !ok {
		binary, ok = l.ipam.(cni.Exec)
	}
	return binary, !ok
}

// didNotRun says that it is an error of a binary that was never executed.
func (l *link) didNotRun(err error) bool {
	if _, ok := l.plugin.(cni.Exec); !ok {
		return false // its address plugin, perhaps
	}
	_, missing := errors.AsType[*cni.NotFoundError](err)
	_, broken := errors.AsType[*cni.NotStartedError](err)
	return missing || broken
}

// New finds the plugins of a network, and the address plugins of those that run in-process; nothing is run. The error
// tells the first plugin whose binary does not exist in path. Chains for DEL are made all the same with [Lenient]: a missing binary is an error of that plugin's DEL only.
func New(network *conf.Network, path []string, find cni.Lookup) (*Chain, error) {
	c := Lenient(network, path, find)
	for i, l := range c.links {
		binary, own := l.binary()
		if own {
			continue
		}
		if _, err := binary.Find(path); err != nil {
			return nil, c.failed(i, err)
		}
	}
	return c, nil
}

// Lenient is New without looking for binaries.
func Lenient(network *conf.Network, path []string, find cni.Lookup) *Chain {
	c := &Chain{network: network, version: network.CNIVersion, path: path}
	own := true
	for i := range network.Plugins {
		p := &network.Plugins[i]
		l := link{conf: p, plugin: find(p.Type)}
		if p.IPAM != "" {
			l.ipam = find(p.IPAM)
		}
		c.links = append(c.links, l)
		_, binary := l.plugin.(cni.Exec)
		own = own && !binary
	}
	// Own plugins speak every version, whatever the configuration says. 0.4.0 is the first that can check an
	// attachment and pass the result of one without addresses.
	if old, _ := version.GreaterThan("0.4.0", c.version); old && own {
		c.version = "0.4.0"
	}
	return c
}

// With sets the memory of the chain, for the configurations that its plugins get and for what they decode of them, and returns
// the chain.
func (c *Chain) With(m *memo.Memory) *Chain {
	c.memory = m
	return c
}

// InProcess says whether all plugins of the chain run in this process, their address plugins included.
func (c *Chain) InProcess() bool {
	return !slices.ContainsFunc(c.links, func(l link) bool {
		_, own := l.binary()
		return !own
	})
}

// Add runs the chain and returns the result of its last plugin. If a plugin fails, it and those before it are undone
// and the error is returned; that of an incomplete undo is joined to it and is an *UndoError.
//
// The specification (section 3): "For all additional plugins, the previous result is the result of the previous
// plugins. If the plugin returns an error, halt execution and return the error to the caller."
func (c *Chain) Add(ctx context.Context, at cni.Attachment, capabilities map[string]any) (*types100.Result, error) {
	var prev *types100.Result
	for i := range c.links {
		res, err := c.add(ctx, i, at, capabilities, prev)
		if err != nil {
			last := i
			if c.links[i].didNotRun(err) { // and would not for DEL
				last--
			}
			return nil, errors.Join(err, c.undo(ctx, last, at, capabilities, prev))
		}
		prev = res
	}
	return prev, nil
}

func (c *Chain) add(ctx context.Context, i int, at cni.Attachment, capabilities map[string]any, prev *types100.Result) (*types100.Result, error) {
	req, err := c.request(i, at, capabilities, prev)
	if err != nil {
		return nil, err
	}
	var res *types100.Result
	err = c.call(ctx, i, "ADD", at.IfName, func(ctx context.Context) (err error) {
		res, err = c.links[i].plugin.Add(ctx, req)
		return err
	})
	return res, err
}

// undo runs DEL from plugin i back to the first one. The specification (section 3): "A delete must still be executed
// even if the add fails", and the plugin that failed may have failed halfway.
func (c *Chain) undo(ctx context.Context, i int, at cni.Attachment, capabilities map[string]any, prev *types100.Result) error {
	ctx, cancel := undo.Time(ctx, undo.Limit)
	defer cancel()
	if err := c.del(ctx, i, at, capabilities, prev); err != nil {
		return &UndoError{err}
	}
	return nil
}

// An UndoError says that something of a failed ADD may still exist.
type UndoError struct{ Err error }

func (e *UndoError) Error() string { return "undo: " + e.Err.Error() }
func (e *UndoError) Unwrap() error { return e.Err }

// Del undoes an attachment, whatever of it exists. It runs all plugins, last one first, and joins their errors.
// Prev is the result of Add, nil if Add did not come to its end.
//
// The specification (section 3): "The list of plugins is executed in reverse order", and "the previous result provided
// is always the final result of the add operation".
func (c *Chain) Del(ctx context.Context, at cni.Attachment, capabilities map[string]any, prev *types100.Result) error {
	return c.del(ctx, len(c.links)-1, at, capabilities, prev)
}

func (c *Chain) del(ctx context.Context, from int, at cni.Attachment, capabilities map[string]any, prev *types100.Result) error {
	var errs []error
	for i := from; i >= 0; i-- {
		req, err := c.request(i, at, capabilities, prev)
		if err != nil { // a result that the version cannot express; DEL works without
			req, err = c.request(i, at, capabilities, nil)
		}
		if err == nil {
			err = c.call(ctx, i, "DEL", at.IfName, func(ctx context.Context) error { return c.links[i].plugin.Del(ctx, req) })
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Check runs the chain forward and stops at the first error. Prev is the result of Add.
//
// The specification (section 3): "If the network configuration defines disableCheck, then always return success to
// the caller."
func (c *Chain) Check(ctx context.Context, at cni.Attachment, capabilities map[string]any, prev *types100.Result) error {
	if c.network.DisableCheck {
		return nil
	}
	for i := range c.links {
		req, err := c.request(i, at, capabilities, prev)
		if err != nil {
			return err
		}
		if err := c.call(ctx, i, "CHECK", at.IfName, func(ctx context.Context) error { return c.links[i].plugin.Check(ctx, req) }); err != nil {
			return err
		}
	}
	return nil
}

// GC tells every plugin which attachments of the network are valid. It runs all of them and joins their errors.
//
// The specification (section 3): "If the plugin returns an error, continue with execution, returning all errors to the
// caller."
func (c *Chain) GC(ctx context.Context, valid []types.GCAttachment) error {
	if c.network.DisableGC {
		return nil
	}
	if valid == nil {
		valid = []types.GCAttachment{} // an empty list, not the null that nobody may take for one
	}
	var errs []error
	for i, l := range c.links {
		// The current name of the key and the one that plugins built with an older library read.
		config, err := c.derive(i, map[string]any{"cni.dev/valid-attachments": valid, "cni.dev/attachments": valid})
		if err == nil {
			req := &cni.Request{Path: c.path, Config: config}
			err = c.call(ctx, i, "GC", "", func(ctx context.Context) error { return l.plugin.GC(ctx, req) })
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Status asks the plugins in turn and returns the first error.
func (c *Chain) Status(ctx context.Context) error {
	for i, l := range c.links {
		config, err := c.common(i)
		if err != nil {
			return err
		}
		req := &cni.Request{Path: c.path, Config: []byte(config), Common: cni.Common{Text: config, Memory: c.memory}}
		if err := c.call(ctx, i, "STATUS", "", func(ctx context.Context) error { return l.plugin.Status(ctx, req) }); err != nil {
			return err
		}
	}
	return nil
}

// failed names the plugin whose error it is. A binary does so itself.
func (c *Chain) failed(i int, err error) error {
	if _, named := c.links[i].plugin.(cni.Exec); err == nil || named {
		return err
	}
	return fmt.Errorf("plugin %s: %w", c.links[i].conf.Type, err)
}

// Package cni is the vocabulary of Braid: what a CNI plugin is asked ([Request]) and what it is ([Plugin]).
//
// Everything that attaches a pod to a network is a Plugin: Braid's own bridge, macvlan and IPAM plugins, a third-party
// binary ([Exec]), and the delegator that is made of other plugins. [Main] turns any of them into a CNI binary. The
// configuration of a request stays bytes, so that a plugin called in-process sees exactly what a binary would read
// from its standard input: one protocol with two transports.
//
// Inside Braid there is one result type, that of CNI 1.0 and later; results are converted only where they cross a
// process edge, in Exec and in Main.
package cni

import (
	"context"
	"strings"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// A Plugin serves the verbs of the CNI specification. Implementations are safe for concurrent use by requests of
// different attachments.
//
// An error that wraps a [github.com/containernetworking/cni/pkg/types.Error] keeps its code up to the runtime; any
// other error is reported with code 999.
type Plugin interface {
	// Add makes the attachment and says what it made. When it fails it leaves nothing behind. It refuses an
	// interface name that exists already, and leaves that interface alone.
	Add(ctx context.Context, req *Request) (*types100.Result, error)

	// Del undoes Add. It succeeds if there is nothing to undo, if the namespace is gone (Netns may be empty) and if
	// the configuration has no prevResult. After an error it goes on with what it still can undo.
	Del(ctx context.Context, req *Request) error

	// Check fails if the attachment is no longer what prevResult of the configuration says it is.
	Check(ctx context.Context, req *Request) error

	// GC removes what belongs to attachments that "cni.dev/valid-attachments" of the configuration does not list.
	// Of the request it uses Path and Config only.
	GC(ctx context.Context, req *Request) error

	// Status fails, with code 50 or 51, if Add could not be served now. Of the request it uses Path and Config only.
	Status(ctx context.Context, req *Request) error
}

// An Attachment identifies one interface of one container: the parameters that the specification wants unchanged
// from ADD to CHECK and DEL.
type Attachment struct {
	ContainerID string // CNI_CONTAINERID
	Netns       string // CNI_NETNS: a path, or empty when the namespace is gone (DEL only)
	IfName      string // CNI_IFNAME
	Args        string // CNI_ARGS as received, "FOO=BAR;ABC=123"
}

// Arg returns the value of a key of CNI_ARGS. The last of several pairs with the same key wins.
func (a Attachment) Arg(key string) (value string, ok bool) {
	for pair := range strings.SplitSeq(a.Args, ";") {
		if k, v, found := strings.Cut(pair, "="); found && k == key {
			value, ok = v, true
		}
	}
	return value, ok
}

// A Request is one call of a plugin. Plugins do not change it.
type Request struct {
	Attachment
	Path   []string // CNI_PATH, split: where delegated plugins are looked up
	Config []byte   // what a binary reads from standard input, prevResult included
	Common Common   // what of Config other requests have too
}

// A Lookup finds the plugin of a type: one of Braid's own, or [Exec] for a binary. It never returns nil.
type Lookup func(pluginType string) Plugin

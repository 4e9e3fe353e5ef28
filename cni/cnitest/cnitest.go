// Package cnitest tests that a [cni.Plugin] keeps the promises of the CNI specification and of that interface. Any
// implementation can be put to it: an own plugin, a binary by way of [cni.Exec], a plugin made of other plugins.
//
//	func TestConformance(t *testing.T) {
//		cnitest.Run(t, func(t *testing.T) *cnitest.Subject {
//			return &cnitest.Subject{Plugin: bridge.Plugin{}, Config: []byte(`{"name": "blue", ...}`)}
//		})
//	}
//
// The cases make network namespaces and need root. They judge what the kernel has, not what the plugin says it did.
//
// The package also has a [Fake], a plugin that only records, for tests of what calls plugins.
package cnitest

import (
	"slices"
	"testing"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
)

// A Subject is a plugin to be tested, in surroundings that no other case has used.
type Subject struct {
	Plugin cni.Plugin

	// Config is what a runtime would send with the first ADD: a name, a type and the plugin's own keys, but no
	// prevResult. The cases set cniVersion.
	Config []byte

	// Second is what a second attachment of the same pod is made with, if Config has routes that a pod cannot have
	// twice. Empty means Config.
	Second []byte

	// Path and Args of every request.
	Path []string
	Args string

	// IfName of the first interface of a container; empty means net1.
	IfName string

	// IPAM tells that the plugin makes no interfaces, only addresses: what another plugin delegates to.
	IPAM bool

	// Layer2 tells that attachments get no addresses.
	Layer2 bool

	// Shared are links of the node that all attachments have in common, such as a bridge. They may stay when the
	// last attachment goes; whoever makes the Subject removes them with t.Cleanup.
	Shared []string

	// Failing are configurations with which ADD must fail, by the reason, best as late as possible: a route whose
	// gateway cannot be reached.
	Failing map[string][]byte

	// Leaked returns an error if anything is left of any attachment that is not a link: a reservation, a rule, a
	// record. It is called whenever no attachment is supposed to exist. May be nil.
	Leaked func() error

	// Deviations are cases that are known not to hold, with the reason. They are skipped.
	Deviations map[string]string
}

// Run runs every case on a Subject of its own. The cases do not run in parallel to each other.
func Run(t *testing.T, newSubject func(t *testing.T) *Subject) {
	nettest.NeedRoot(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			nettest.LeakCheck(t)
			r := &run{T: t, Subject: newSubject(t)}
			if reason, known := r.Deviations[c.name]; known {
				t.Skip("known deviation: " + reason)
			}
			if reason := c.not.applies(r.Subject); reason != "" {
				t.Skip(reason)
			}
			if r.IfName == "" {
				r.IfName = "net1"
			}
			r.node = nettest.Node(t)
			r.nodeLinks = append(r.node.Links(t), r.Shared...)
			// Not by t.Cleanup: the namespaces would be gone before.
			defer func() {
				r.deleteAll()
				if t.Failed() {
					t.Logf("the promise: %s", c.promise)
				}
			}()
			c.run(r)
		})
	}
}

// A testCase is one promise.
type testCase struct {
	name    string
	promise string // a sentence of the CNI specification, or of cni.Plugin
	not     exemption
	run     func(*run)
}

// An exemption lists kinds of plugins that a case says nothing about.
type exemption []string

const (
	ipam    = "an IPAM plugin makes no interface"
	notIPAM = "this is about IPAM plugins"
	layer2  = "there are no addresses"
)

func (e exemption) applies(s *Subject) (reason string) {
	if !s.IPAM && slices.Contains(e, notIPAM) {
		return notIPAM
	}
	if s.IPAM && slices.Contains(e, ipam) {
		return ipam
	}
	if s.Layer2 && slices.Contains(e, layer2) {
		return layer2
	}
	return ""
}

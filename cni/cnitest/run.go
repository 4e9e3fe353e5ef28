package cnitest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
)

const (
	latest   = "1.1.0"
	patience = 30 * time.Second // with one call
)

// A run is one case on one subject.
type run struct {
	*testing.T
	*Subject
	node      *nettest.NS
	nodeLinks []string // of before, and shared ones
	pods      []*pod
}

// A pod is a container, with a namespace, and its attachment.
type pod struct {
	*run
	ns     *nettest.NS
	links  []string         // of others, in the namespace
	req    *cni.Request     // as for ADD
	result *types100.Result // nil before ADD
	gone   bool             // the namespace is
}

// pod makes a namespace.
func (r *run) pod() *pod {
	r.Helper()
	ns := nettest.NewNS(r)
	p := &pod{run: r, ns: ns, req: &cni.Request{
		Attachment: cni.Attachment{ContainerID: nettest.Name("pod-"), Netns: ns.Path(), IfName: r.IfName, Args: r.Args},
		Path:       r.Path,
		Config:     with(r, r.Config, keys{"cniVersion": latest}),
	}}
	r.pods = append(r.pods, p)
	return p
}

// attached makes a pod and attaches it.
func (r *run) attached() *pod {
	r.Helper()
	p := r.pod()
	p.mustAdd()
	return p
}

// second returns another attachment of the same pod.
func (p *pod) second() *pod {
	other := &pod{run: p.run, ns: p.ns, req: copyOf(p.req)}
	other.req.IfName = "second0"
	if p.Second != nil {
		other.req.Config = with(p, p.Second, keys{"cniVersion": latest})
	}
	p.pods = append(p.pods, other)
	return other
}

func (p *pod) add(ctx context.Context) (err error) {
	p.Helper()
	defer p.unchanged(p.req)()
	p.result, err = p.Plugin.Add(ctx, p.req)
	if err == nil && p.result == nil {
		return errors.New("neither a result nor an error")
	}
	return err
}

func (p *pod) addSoon() error {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.add(ctx)
}

func (p *pod) mustAdd() {
	p.Helper()
	if err := p.addSoon(); err != nil {
		p.Fatalf("ADD: %v", err)
	}
}

// removeNamespace is what a runtime does when the container has ended.
func (p *pod) removeNamespace() {
	p.Helper()
	p.ns.Remove(p)
	p.gone = true
}

// del deletes as a runtime that still has everything does.
func (p *pod) del() error {
	p.Helper()
	return p.delete(p.later())
}

func (p *pod) delete(req *cni.Request) error {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer p.unchanged(req)()
	return p.Plugin.Del(ctx, req)
}

func (p *pod) mustDelete(req *cni.Request) {
	p.Helper()
	if err := p.delete(req); err != nil {
		p.Errorf("DEL: %v", err)
	}
}

func (p *pod) check() error {
	p.Helper()
	return p.checkWith(p.later())
}

func (p *pod) checkWith(req *cni.Request) error {
	p.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer p.unchanged(req)()
	return p.Plugin.Check(ctx, req)
}

// mustNotice says that CHECK must have found out.
func (p *pod) mustNotice(what string) {
	p.Helper()
	if p.check() == nil {
		p.Errorf("CHECK passes although %s", what)
	}
}

// later returns the request of a CHECK or a DEL: that of the ADD with its result.
func (p *pod) later() *cni.Request {
	p.Helper()
	if p.result == nil {
		return copyOf(p.req)
	}
	return p.withPrevResult(p.result)
}

func (p *pod) withPrevResult(prev *types100.Result) *cni.Request {
	p.Helper()
	if p.IPAM && len(prev.Interfaces) == 0 {
		prev = p.completed(prev)
	}
	var conf struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(p.req.Config, &conf); err != nil {
		p.Fatal(err)
	}
	doc, err := cni.MarshalResult(prev, conf.CNIVersion)
	if err != nil {
		p.Fatalf("marshal prevResult: %v", err)
	}
	return p.withKeys(keys{"prevResult": json.RawMessage(doc)})
}

// completed returns what the plugin that delegates would make of a result of an IPAM plugin.
func (p *pod) completed(res *types100.Result) *types100.Result {
	whole := *res
	whole.Interfaces = []*types100.Interface{{Name: p.req.IfName, Sandbox: p.req.Netns}}
	whole.IPs = nil
	for _, ip := range res.IPs {
		ip = ip.Copy()
		ip.Interface = types100.Int(0)
		whole.IPs = append(whole.IPs, ip)
	}
	return &whole
}

func (p *pod) withKeys(set keys) *cni.Request {
	req := copyOf(p.req)
	req.Config = with(p.run, req.Config, set)
	return req
}

// gc collects as a runtime does that knows of these attachments.
func (r *run) gc(valid ...*pod) {
	r.Helper()
	list := []types.GCAttachment{}
	for _, p := range valid {
		list = append(list, types.GCAttachment{ContainerID: p.req.ContainerID, IfName: p.req.IfName})
	}
	req := &cni.Request{Path: r.Path, Config: with(r, r.Config, keys{
		"cniVersion":                latest,
		"cni.dev/valid-attachments": list,
		"cni.dev/attachments":       list,
	})}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer r.unchanged(req)()
	if err := r.Plugin.GC(ctx, req); err != nil {
		r.Errorf("GC: %v", err)
	}
}

// deleteAll deletes what the case has attached, and looks for what is left then.
func (r *run) deleteAll() {
	for _, p := range r.pods {
		p.mustDelete(p.later())
	}
	r.nothingLeft("after the last DEL")
}

// nothingLeft fails the test if there is anything of an attachment.
func (r *run) nothingLeft(when string) {
	r.Helper()
	anyGone := false
	for _, p := range r.pods {
		if anyGone = anyGone || p.gone; p.gone {
			continue
		}
		for _, name := range without(p.ns.Links(r), p.links) {
			r.Errorf("%s: the pod still has the link %s", when, name)
		}
	}
	// Links that end in a namespace vanish some time after it.
	if !anyGone {
		for _, name := range without(r.node.Links(r), r.nodeLinks) {
			r.Errorf("%s: the node still has the link %s", when, name)
		}
	}
	if r.Leaked != nil {
		if err := r.Leaked(); err != nil {
			r.Errorf("%s: %v", when, err)
		}
	}
}

func without(names, exempt []string) []string {
	return slices.DeleteFunc(names, func(name string) bool { return slices.Contains(exempt, name) })
}

// unchanged holds a plugin to "Plugins do not change it".
func (r *run) unchanged(req *cni.Request) (verify func()) {
	before := copyOf(req)
	return func() {
		r.Helper()
		if diff := cmp.Diff(before, req); diff != "" {
			r.Errorf("the plugin has changed its request (-before +after):\n%s", diff)
		}
	}
}

func copyOf(req *cni.Request) *cni.Request {
	c := *req
	c.Path = slices.Clone(req.Path)
	c.Config = bytes.Clone(req.Config)
	return &c
}

type keys map[string]any

// with returns a configuration with some keys set.
func with(t testing.TB, config []byte, set keys) []byte {
	t.Helper()
	var conf map[string]json.RawMessage
	if err := json.Unmarshal(config, &conf); err != nil {
		t.Fatalf("configuration of the subject: %v", err)
	}
	for key, value := range set {
		raw, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		conf[key] = raw
	}
	out, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

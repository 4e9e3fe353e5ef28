package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/journal"
)

// record is the path of what the journal has of the pod.
func (p *pod) record() string {
	return filepath.Join(p.dir, "braid", "attachments", "c-"+p.name+":eth0.json")
}

// edit changes the record of the pod, as another version of Braid might have written it, and returns its text.
func (p *pod) edit(change func(record map[string]any, attachments []map[string]any)) string {
	p.t.Helper()
	j, err := journal.Open(filepath.Dir(p.record()))
	if err != nil {
		p.t.Fatal(err)
	}
	whole, err := j.Get("c-"+p.name, "eth0")
	if err == nil {
		err = j.Put(whole) // as one document
	}
	if err != nil {
		p.t.Fatal(err)
	}
	b, err := os.ReadFile(p.record())
	if err != nil {
		p.t.Fatal(err)
	}
	var r map[string]any
	if err := json.Unmarshal(b, &r); err != nil {
		p.t.Fatal(err)
	}
	var attachments []map[string]any
	for _, a := range r["attachments"].([]any) {
		attachments = append(attachments, a.(map[string]any))
	}
	change(r, attachments)
	if b, err = json.Marshal(r); err == nil {
		err = os.WriteFile(p.record(), b, 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// gc is that of a runtime whose attachments are those of the pods.
func (n *node) gc(pods ...*pod) error {
	args := &libcni.GCArgs{}
	for _, p := range pods {
		args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: "c-" + p.name, IfName: "eth0"})
	}
	// With an empty cache libcni deletes nothing itself.
	return libcni.NewCNIConfigWithCacheDir(n.path, n.t.TempDir(), nil).GCNetworkList(n.t.Context(), n.network("1.1.0"), args)
}

func wantError(t *testing.T, what string, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s succeeds", what)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: found %q, want %q in it", what, err, word)
		}
	}
}

// TestNewerRecord: what a newer version has written with a higher version of the format is checked and added to by nobody,
// is never rewritten, and DEL undoes of it what it can.
func TestNewerRecord(t *testing.T) {
	n := newSweptNode(t)
	p, other := n.pod("web", "storage,lan"), n.pod("other", "storage")
	p.mustAdd()
	other.mustAdd()
	text := p.edit(func(r map[string]any, attachments []map[string]any) {
		r["version"], r["done"] = 7, map[string]any{"phase": "three"} // what was a boolean is none any more
		attachments[1]["network2"] = map[string]any{"by": "reference"}
	})
	unchanged := func(after string) {
		t.Helper()
		if b, err := os.ReadFile(p.record()); err != nil || string(b) != text {
			t.Errorf("after %s the record is another: %v %s", after, err, b)
		}
	}
	_, err := p.add()
	wantError(t, "ADD", err, "newer Braid", "version 7", "DEL it first")
	wantError(t, "CHECK", p.check(), "newer Braid", "version 7")
	if err := p.cni().GetStatusNetworkList(t.Context(), n.network("1.1.0")); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	unchanged("ADD, CHECK and STATUS")
	wantAction(t, n.sweep(nil), "c-web", delegate.Unreadable, delegate.Kept)
	unchanged("a sweep")
	if err := n.gc(p, other); err == nil || !strings.Contains(err.Error(), "newer Braid") {
		t.Errorf("GC with the pod among the valid ones: %v", err)
	}
	unchanged("GC")
	for _, q := range []*pod{p, other} {
		if links := q.ns.Links(t); len(links) == 0 {
			t.Errorf("pod %s has lost its interfaces", q.name)
		}
	}
	if err := other.check(); err != nil {
		t.Errorf("CHECK of another pod: %v", err)
	}

	p.mustDel()
	for _, address := range []string{"10.244.0.2", "10.10.0.2", "10.30.0.2", "fd00:244::2"} {
		if left := n.has(address); len(left) > 0 {
			t.Errorf("left of %s: %q", address, left)
		}
	}
	if b, err := os.ReadFile(p.record() + ".newer"); err != nil || string(b) != text {
		t.Errorf("the record was not kept beside: %v %s", err, b)
	}
	p.mustDel()
	p.mustAdd() // by the same name
	if err := p.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	p.mustDel()
	if err := n.gc(other); err != nil {
		t.Errorf("GC: %v", err)
	}
	other.mustDel()
	n.left()
}

// TestGCOfNewerRecord: the runtime says that the container is gone.
func TestGCOfNewerRecord(t *testing.T) {
	n := newSweptNode(t)
	p, other := n.pod("web", "storage,lan"), n.pod("other", "storage")
	p.mustAdd()
	other.mustAdd()
	p.edit(func(r map[string]any, _ []map[string]any) { r["version"] = 7 })
	p.ns.Remove(t)
	wantError(t, "GC", n.gc(other), "newer Braid") // once: what is not known of it may be in use
	if err := n.gc(other); err != nil {
		t.Errorf("GC: %v", err)
	}
	if left := n.has("10.244.0.2"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if err := other.check(); err != nil {
		t.Errorf("CHECK of another pod: %v", err)
	}
	other.mustDel()
	n.left()
}

// TestUnreadableNewerRecord: of a record that has nothing where this version looks, the operator's networks are undone.
func TestUnreadableNewerRecord(t *testing.T) {
	n := newSweptNode(t)
	p := n.pod("web", "")
	p.mustAdd()
	p.edit(func(r map[string]any, attachments []map[string]any) {
		r["version"], r["attachments"] = 7, map[string]any{"eth0": attachments[0]}
	})
	p.mustDel()
	n.left()
}

// TestUnknownKeysOfRecord: a later version may add keys. This one, in the middle of an upgrade, keeps them whenever it
// writes a record.
func TestUnknownKeysOfRecord(t *testing.T) {
	n := newSweptNode(t)
	p := n.pod("web", "storage,lan")
	p.mustAdd()
	p.edit(func(r map[string]any, attachments []map[string]any) {
		r["trace"], attachments[1]["lease"] = []any{"a<b", 9007199254740993.0}, map[string]any{"server": "10.0.0.1"}
		// A DEL that cannot undo this network writes the record again.
		network := attachments[1]["network"].(map[string]any)
		network["plugins"] = append(network["plugins"].([]any), map[string]any{"type": "not-installed"})
	})
	wantError(t, "DEL", p.del(), "not-installed")
	b, err := os.ReadFile(p.record())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{`"trace":["a`, `"lease":{"server":"10.0.0.1"}`} {
		if !strings.Contains(string(b), key) {
			t.Errorf("lost %s: %s", key, b)
		}
	}
	p.edit(func(_ map[string]any, attachments []map[string]any) {
		network := attachments[0]["network"].(map[string]any)
		network["plugins"] = network["plugins"].([]any)[:1]
	})
	p.mustDel()
	n.left()
}

// TestEarlyRecord: records of the first versions did not say which namespace they are of, nor who the pod is.
func TestEarlyRecord(t *testing.T) {
	n := newSweptNode(t)
	p := n.pod("web", "storage,lan")
	p.mustAdd()
	early := func(r map[string]any, _ []map[string]any) {
		for _, key := range []string{"netnsInode", "netnsCookie", "podUID", "pidNamespace", "pending"} {
			delete(r, key)
		}
	}
	p.edit(early)
	if err := p.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	wantAction(t, n.sweep(nil), "c-web", delegate.Unknown, delegate.Kept)
	if err := n.gc(p); err != nil {
		t.Errorf("GC: %v", err)
	}
	if err := p.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	_, err := p.add()
	wantError(t, "ADD", err, "DEL it first")
	p.mustDel()
	n.left()
}

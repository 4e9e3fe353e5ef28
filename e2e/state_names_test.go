package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/e2e/figures"
	"github.com/braid-cni/braid/internal/nettest"
)

// portNames are the names that the port of the pod on the cluster's bridge can have.
func (p *pod) portNames() (names []string) {
	for n := range 3 {
		sum := sha256.Sum256(fmt.Appendf(nil, "cluster:c-%s:eth0#%d", p.name, n))
		names = append(names, "veth"+hex.EncodeToString(sum[:])[:11])
	}
	return names
}

// foreign is what the node has that is none of Braid's.
func (n *node) foreign(names ...string) string {
	n.t.Helper()
	var all strings.Builder
	for _, name := range names {
		out, err := exec.Command("ip", "-o", "link", "show", "dev", name).CombinedOutput()
		if err != nil {
			n.t.Errorf("%s is gone: %s", name, out)
		}
		all.Write(out)
	}
	return all.String()
}

// everyVerb has whatever could delete something that is left of a pod do so.
func (p *pod) everyVerb() {
	p.t.Helper()
	if err := p.gc(); err != nil {
		p.t.Errorf("GC: %v", err)
	}
	known := []delegate.Known{}
	for _, f := range p.sweep(nil) {
		known = append(known, delegate.Known{RecordKey: f.RecordKey, StaleSeconds: 600, PodGone: true})
	}
	p.sweep(known)
	if err := p.del(); err != nil {
		p.t.Errorf("DEL: %v", err)
	}
}

// TestPortNameTaken: an ADD takes another name, or says that there is none; what has the name is left alone by every verb.
func TestPortNameTaken(t *testing.T) {
	n := newNode(t)
	t.Cleanup(n.removeBridges)
	p := n.pod("web", "")
	names := p.portNames()
	make := func(name string, state string) {
		n.shell("ip link add " + name + " type veth peer name x" + name[5:] + "; ip link set " + name + state)
	}
	make(names[0], " up")
	make(names[1], " alias mine")
	before := n.foreign(names[:2]...)
	p.mustAdd()
	if port := p.port("eth0"); port != names[2] {
		t.Errorf("the port is %s, want %s", port, names[2])
	}
	if err := p.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	p.mustDel()
	make(names[2], " up")
	_, err := p.add()
	wantError(t, "ADD", err, "all of its 3 names are taken")
	n.left()
	p.everyVerb()
	if after := n.foreign(names[:2]...); after != before {
		t.Errorf("before:\n%safter:\n%s", before, after)
	}
	n.foreign(names[2])
	for _, name := range names {
		n.shell("ip link del " + name)
	}
}

// TestNamesTakenOver: what a record names is gone, and others have got its names.
func TestNamesTakenOver(t *testing.T) {
	verbs := map[string]func(*testing.T, *pod){
		"DEL": func(_ *testing.T, p *pod) { p.mustDel() },
		"GC": func(t *testing.T, p *pod) {
			if err := p.gc(); err != nil {
				t.Errorf("GC: %v", err)
			}
		},
		"sweep": func(t *testing.T, p *pod) {
			p.ns.Remove(t)
			p.everyVerb()
		},
		"ADD": func(t *testing.T, p *pod) { // of a container whose namespace is another one now
			p.ns.Remove(t)
			p.ns = nettest.NewNS(t)
			p.mustAdd()
			p.mustDel()
		},
	}
	for verb, do := range verbs {
		t.Run(verb, func(t *testing.T) {
			n := newSweptNode(t)
			t.Cleanup(func() { _ = exec.Command("sh", "-c", "ip link del mine0; ip link del mine1").Run() })
			p := n.pod("web", "lan")
			p.mustAdd()
			port := p.port("eth0")
			n.shell("ip link del " + port + "; ip link del cluster0; nft delete table inet braid")
			others := []string{port}
			n.shell("ip link add " + port + " type veth peer name mine0; ip link set " + port + " up")
			if verb != "ADD" { // for which there has to be a bridge
				n.shell("ip link add cluster0 type veth peer name mine1; ip link set cluster0 up")
				others = append(others, "cluster0")
			}
			n.shell("nft add table inet braid; nft add chain inet braid mine; nft add rule inet braid mine counter drop")
			before := n.foreign(others...)
			do(t, p)
			n.left()
			if after := n.foreign(others...); after != before {
				t.Errorf("before:\n%safter:\n%s", before, after)
			}
			if out, err := exec.Command("nft", "list", "chain", "inet", "braid", "mine").CombinedOutput(); err != nil || !strings.Contains(string(out), "drop") {
				t.Errorf("the rule of another is gone: %s", out)
			}
			n.shell("nft delete table inet braid")
		})
	}
	figures.Note(t, "test", "verbs after which what had taken a name was still there", len(verbs))
}

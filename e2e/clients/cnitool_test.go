package clients

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// cnitool runs a verb of the command for a pod and returns what it prints.
func (n *node) cnitool(verb string, p *pod, env ...string) (string, error) {
	cmd := exec.CommandContext(n.t.Context(), filepath.Join(os.Getenv(dirEnv), "cnitool"), verb, "pods", p.ns.Path())
	cmd.Env = append(os.Environ(), append([]string{"CNI_PATH=" + binaries(), "NETCONFPATH=" + n.conf,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=" + p.name + ";K8S_POD_UID=uid-" + p.name}, env...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestCNITool(t *testing.T) {
	for _, version := range []string{"0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			n := newNode(t)
			n.nad("storage", storage)
			n.load("00-braid.conflist", n.list(entry{version: version}))
			p := n.pod("web", "storage")
			must := func(verb string) string {
				out, err := n.cnitool(verb, p)
				if err != nil {
					t.Fatalf("cnitool %s: %v: %s", verb, err, out)
				}
				return out
			}
			must("status")
			result := must("add")
			if version == "1.1.0" {
				var res types100.Result
				if err := json.Unmarshal([]byte(result), &res); err != nil || len(res.IPs) != 3 {
					t.Errorf("the result has %d addresses, %v: %s", len(res.IPs), err, result)
				}
			}
			must("check")
			if err := p.ns.Handle().LinkSetDown(p.ns.Link(t, "net1")); err != nil {
				t.Fatal(err)
			}
			if out, err := n.cnitool("check", p); err == nil || !strings.Contains(out, "net1 is down") {
				t.Errorf("cnitool check with net1 down: %v: %s", err, out)
			}
			must("del")
			must("del")
			n.nothingLeft()
		})
	}
}

// TestCNIToolGC: cnitool deletes what it knows itself, and sends GC without the list of valid attachments, which the
// specification demands. To Braid that is an error and not an empty list.
func TestCNIToolGC(t *testing.T) {
	n := newNode(t)
	n.nad("storage", storage)
	n.load("00-braid.conflist", n.list(entry{}))
	p, foreign := n.pod("web", "storage"), n.pod("foreign", "")
	for _, p := range []*pod{p, foreign} {
		if out, err := n.cnitool("add", p); err != nil {
			t.Fatalf("cnitool add: %v: %s", err, out)
		}
	}
	// Not in the cache any more: only GC of the plugin itself could find it.
	cached, err := filepath.Glob("/var/lib/cni/results/pods-*-eth0")
	if err != nil || len(cached) != 2 {
		t.Fatalf("cache of libcni: %q, %v", cached, err)
	}
	for _, file := range cached {
		if b, err := os.ReadFile(file); err != nil {
			t.Fatal(err)
		} else if strings.Contains(string(b), foreign.ns.Path()) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, err := n.cnitool("gc", p)
	if err == nil || !strings.Contains(out, `missing key "cni.dev/valid-attachments"`) {
		t.Errorf("cnitool gc: %v: %s", err, out)
	}
	if n.records() != 1 || len(foreign.ns.Links(t)) != 1 || len(p.ns.Links(t)) != 0 {
		t.Errorf("after cnitool gc: %d records, links %q and %q", n.records(), foreign.ns.Links(t), p.ns.Links(t))
	}
	if out, err := n.cnitool("del", foreign); err != nil {
		t.Errorf("cnitool del: %v: %s", err, out)
	}
	n.nothingLeft()
}

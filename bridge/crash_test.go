package bridge_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
)

// The test binary is the plugin binary too, if it is called so.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "bridge" {
		cni.Main(plugin, "CNI plugin bridge of the tests")
	}
	os.Exit(nettest.Main(m))
}

func binary(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	path := filepath.Join(t.TempDir(), "bridge")
	must(t, os.Symlink(self, path))
	return path
}

// addIn has a process of its own do the ADD, and kills it after a while.
func (p *pod) addIn(binary string, life time.Duration) (killed bool) {
	p.Helper()
	cmd := exec.Command(binary)
	cmd.Args[0] = binary
	cmd.Env = append(os.Environ(), "CNI_COMMAND=ADD", "CNI_CONTAINERID="+p.req.ContainerID, "CNI_NETNS="+p.req.Netns,
		"CNI_IFNAME="+p.req.IfName, "CNI_PATH="+strings.Join(p.req.Path, ":"))
	cmd.Stdin = bytes.NewReader(p.req.Config)
	must(p, cmd.Start())
	timer := time.AfterFunc(life, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	return !timer.Stop() && !cmd.ProcessState.Success()
}

// An ADD that is killed, wherever that may be, leaves nothing that DEL does not find, with no namespace and no
// result to look at.
func TestKilledAdd(t *testing.T) {
	w := newWorld(t)
	plugin := binary(t)
	const keys = dual + `"macspoofchk": true, `
	completed := 0
	for life := 4 * time.Millisecond; completed < 3; life += life / 15 {
		p := w.pod(keys + hostLocal(subnet4, subnet6))
		if !p.addIn(plugin, life) {
			completed++
		}
		req := *p.req
		req.Netns = ""
		must(t, w.plugin.Del(t.Context(), &req))
		w.nothingOf(p, life)
		must(t, p.add())
		must(t, p.check())
		must(t, p.del())
		w.nothingOf(p, life)
		if t.Failed() {
			return
		}
	}
}

func (w *world) nothingOf(p *pod, life time.Duration) {
	w.Helper()
	if links := p.ns.Links(w); len(links) != 0 {
		w.Errorf("killed after %v: the pod has %v", life, links)
	}
	for _, name := range w.node.Links(w) {
		if strings.HasPrefix(name, "veth") {
			w.Errorf("killed after %v: the node has %s", life, name)
		}
	}
	if left := w.reservations(); len(left) != 0 {
		w.Errorf("killed after %v: reserved: %v", life, left)
	}
	w.noRules()
}

// GC finds what a killed ADD left of a container that has gone meanwhile.
func TestGCAfterKilledAdd(t *testing.T) {
	w := newWorld(t)
	plugin := binary(t)
	for life := 5 * time.Millisecond; life < 40*time.Millisecond; life += 5 * time.Millisecond {
		p := w.pod(dual + `"macspoofchk": true, ` + hostLocal(subnet4))
		p.addIn(plugin, life)
		p.ns.Remove(t)
	}
	must(t, w.plugin.GC(t.Context(), &cni.Request{
		Config: w.config(dual + hostLocal(subnet4) + `, "cni.dev/valid-attachments": []`)}))
	w.noRules()
	if left := w.reservations(); len(left) != 0 {
		t.Errorf("reserved: %v", left)
	}
	deadline := time.Now().Add(5 * time.Second) // the kernel takes a moment to end a namespace
	for ports := []string{""}; len(ports) > 0; time.Sleep(10 * time.Millisecond) {
		ports = nil
		for _, name := range w.node.Links(t) {
			if strings.HasPrefix(name, "veth") {
				ports = append(ports, name)
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the node has %v", ports)
		}
	}
}

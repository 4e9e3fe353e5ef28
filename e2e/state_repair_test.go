package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"

	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/e2e/figures"
	"github.com/braid-cni/braid/internal/nettest"
)

// repair runs `braidd repair`, and returns what it found by container.
func (n *node) repair(args ...string) (found map[string]delegate.Finding, err error) {
	n.t.Helper()
	cmd := exec.Command(filepath.Join(binaries(), "braidd"),
		append([]string{"repair", "--json", "--conf-dir", filepath.Dir(n.conflist())}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	found = make(map[string]delegate.Finding)
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var f delegate.Finding
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			n.t.Fatalf("%v: %s", err, lines.Bytes())
		}
		found[f.ContainerID] = f
	}
	if err != nil && len(found) == 0 {
		n.t.Fatalf("braidd repair: %v\n%s", err, stderr.Bytes())
	}
	return found, err
}

// shell runs a command on the node.
func (n *node) shell(command string) {
	n.t.Helper()
	if out, err := exec.Command("sh", "-ec", command).CombinedOutput(); err != nil {
		n.t.Fatalf("%s: %v: %s", command, err, out)
	}
}

// port is the name of the port of a pod on the bridge that eth0 is connected to.
func (p *pod) port(ifName string) string {
	p.t.Helper()
	link, err := p.node.ns.Handle().LinkByIndex(p.ns.Link(p.t, ifName).Attrs().ParentIndex)
	if err != nil {
		p.t.Fatal(err)
	}
	return link.Attrs().Name
}

const guarded = `{"cniVersion": "1.1.0", "type": "bridge", "bridge": "guarded0", "isGateway": true, "macspoofchk": true, "hairpinMode": true,
	"ipMasq": true, "ipam": {"type": "host-local", "dataDir": "$DIR", "subnet": "10.10.7.0/24"}}`

// TestRepair: whatever somebody takes from running pods on the node, CHECK says what it is, `braidd repair` makes it again,
// and the pods reach each other and their gateway as before, without anything having been done to them.
func TestRepair(t *testing.T) {
	damages := []struct {
		name      string
		do        func(n *node, web *pod)
		complaint string // what CHECK says of it
		pods      int    // that are affected
	}{
		{"bridge deleted", func(n *node, _ *pod) { n.shell("ip link del cluster0") }, "cluster0", 2},
		{"bridge deleted and made by hand", func(n *node, _ *pod) {
			n.shell("ip link del cluster0; ip link add cluster0 type bridge; ip link set cluster0 up")
		}, "cluster0", 2},
		{"all bridges deleted and the rules flushed", func(n *node, _ *pod) {
			n.shell("ip link del cluster0; ip link del guarded0; nft flush ruleset")
		}, "guarded0", 2},
		{"port taken out", func(n *node, web *pod) { n.shell("ip link set " + web.port("eth0") + " nomaster") }, "is not connected to bridge cluster0", 1},
		{"port in another bridge", func(n *node, web *pod) {
			n.shell("ip link add other0 type bridge; ip link set " + web.port("eth0") + " master other0")
		}, "is not connected to bridge cluster0", 1},
		{"port down", func(n *node, web *pod) { n.shell("ip link set " + web.port("eth0") + " down") }, "is down", 1},
		{"bridge down", func(n *node, _ *pod) { n.shell("ip link set cluster0 down") }, "bridge cluster0 is down", 2},
		{"gateway addresses deleted", func(n *node, _ *pod) { n.shell("ip addr flush dev cluster0 scope global") }, "lacks the gateway address 10.244.0.1/24", 2},
		{"rules flushed", func(n *node, _ *pod) { n.shell("nft flush ruleset") }, "masquerade", 2},
		{"rules flushed, tables kept", func(n *node, _ *pod) { n.shell("nft flush table inet braid; nft flush table bridge braid") }, "masquerade", 2},
		{"table of the spoof check deleted", func(n *node, _ *pod) { n.shell("nft delete table bridge braid") }, "net1", 2},
		{"hairpin mode off", func(n *node, web *pod) { n.shell("bridge link set dev " + web.port("net1") + " hairpin off") }, "hairpin mode false, want true", 1},
	}
	n := newNode(t)
	t.Cleanup(n.removeBridges)
	n.nad("blue", "guarded", guarded)
	web, db := n.pod("web", "guarded"), n.pod("db", "guarded")
	res := web.mustAdd()
	db.mustAdd()
	before := [][]string{web.ns.Links(t), db.ns.Links(t)}
	for _, d := range damages { // one after the other, to the same pods
		t.Run(d.name, func(t *testing.T) {
			d.do(n, web)
			wantError(t, "CHECK", web.check(), d.complaint)
			found, err := n.repair("--dry-run")
			if err != nil || len(found) != d.pods || found["c-web"].Verdict != delegate.Broken || found["c-web"].Action != delegate.Would {
				t.Errorf("dry run: found %+v, %v", found, err)
			}
			wantError(t, "CHECK after a dry run", web.check(), d.complaint)

			// Pods are looked at at the same time: what they share may be whole again for the one when it was made for the other.
			found, err = n.repair()
			_, ofWeb := found["c-web"]
			if err != nil || len(found) == 0 || d.pods == 1 && !ofWeb {
				t.Fatalf("repair: found %+v, %v", found, err)
			}
			for id, f := range found {
				if f.Action != delegate.Repaired {
					t.Fatalf("repair of %s: found %+v", id, f)
				}
			}
			for i, p := range []*pod{web, db} {
				if err := p.check(); err != nil {
					t.Errorf("CHECK of %s: %v", p.name, err)
				}
				if links := p.ns.Links(t); strings.Join(links, " ") != strings.Join(before[i], " ") {
					t.Errorf("links of %s: found %q, want %q", p.name, links, before[i])
				}
			}
			for _, to := range []string{"10.244.0.3", "fd00:244::3", "10.10.7.3"} {
				nettest.Reach(t, web.ns, db.ns, to)
			}
			for _, to := range []string{"10.244.0.1", "fd00:244::1", "10.10.7.1"} {
				nettest.Reach(t, db.ns, n.ns, to)
			}
			if mac := n.ns.Link(t, "cluster0").Attrs().HardwareAddr.String(); mac != res.Interfaces[0].Mac {
				t.Errorf("the bridge has MAC %s, pods know %s", mac, res.Interfaces[0].Mac)
			}
			if found, err := n.repair(); err != nil || len(found) != 0 {
				t.Errorf("what is as it should be is repaired: %+v, %v", found, err)
			}
		})
	}
	web.mustDel()
	db.mustDel()
	n.left()
	figures.Note(t, "test", "kinds of damage on the node that pods were repaired of", len(damages))
}

// TestRepairAfterADD: an ADD makes the bridge again with the MAC address that it had, and pods that were there before
// are repaired to it.
func TestRepairAfterADD(t *testing.T) {
	n := newNode(t)
	t.Cleanup(n.removeBridges)
	web, db := n.pod("web", ""), n.pod("db", "")
	web.mustAdd()
	n.shell("ip link del cluster0")
	db.mustAdd()
	wantError(t, "CHECK", web.check(), "is not connected to bridge cluster0")
	if err := db.check(); err != nil {
		t.Errorf("CHECK of the new pod: %v", err)
	}
	if found, err := n.repair(); err != nil || len(found) != 1 || found["c-web"].Action != delegate.Repaired {
		t.Errorf("repair: found %+v, %v", found, err)
	}
	for _, p := range []*pod{web, db} {
		if err := p.check(); err != nil {
			t.Errorf("CHECK of %s: %v", p.name, err)
		}
	}
	nettest.Reach(t, web.ns, db.ns, "10.244.0.3")
	web.mustDel()
	db.mustDel()
	n.left()
}

// TestRepairSays what it cannot make again, and does the rest.
func TestRepairSays(t *testing.T) {
	n := newNode(t)
	t.Cleanup(n.removeBridges)
	web, db, taken := n.pod("web", ""), n.pod("db", ""), n.pod("taken", "")
	web.mustAdd()
	db.mustAdd()
	n.shell("ip link del " + web.port("eth0") + "; ip link set " + db.port("eth0") + " nomaster")
	found, err := n.repair()
	if err == nil || found["c-db"].Action != delegate.Repaired || found["c-web"].Action != delegate.Unrepaired ||
		!strings.Contains(found["c-web"].Error, "only a new pod gets another") {
		t.Errorf("found %+v, %v", found, err)
	}
	if err := db.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	web.mustDel()

	// The name of the bridge is taken by something else: that is not touched.
	n.shell("ip link del cluster0; ip link add cluster0 type veth peer name peer0")
	found, err = n.repair()
	if err == nil || !strings.Contains(found["c-db"].Error, "type veth") {
		t.Errorf("found %+v, %v", found, err)
	}
	if link := n.ns.Link(t, "cluster0"); link.Type() != "veth" {
		t.Errorf("cluster0 is a %s", link.Type())
	}
	_, err = taken.add()
	wantError(t, "ADD", err, "type veth")
	n.shell("ip link del cluster0; ip link add cluster0 address 02:00:00:00:00:09 type bridge; ip link set cluster0 up; ip addr add 10.99.0.1/24 dev cluster0")
	found, err = n.repair()
	if err == nil || !strings.Contains(found["c-db"].Error, "10.99.0.1/24") {
		t.Errorf("found %+v, %v: want the address that is in the way", found, err)
	}
	n.shell("ip link del cluster0")
	db.mustDel()
	n.left()
}

// TestRepairBySweep is what the daemon does. The pod that is gone is swept, the other one is repaired.
func TestRepairBySweep(t *testing.T) {
	n := newNode(t)
	t.Cleanup(n.removeBridges)
	web, gone := n.pod("web", ""), n.pod("gone", "")
	web.mustAdd()
	gone.mustAdd()
	n.shell("ip link del cluster0")
	gone.ns.Remove(t)
	known := []delegate.Known{}
	for _, f := range n.sweep(nil) {
		known = append(known, delegate.Known{RecordKey: f.RecordKey, StaleSeconds: 600})
	}
	wantError(t, "CHECK after a sweep without --repair", web.check(), "cluster0")
	found := n.sweep(known, "--repair")
	wantAction(t, found, "c-web", delegate.Broken, delegate.Repaired)
	wantAction(t, found, "c-gone", delegate.Dead, delegate.Undone)
	wantAction(t, n.sweep(nil, "--repair"), "c-web", delegate.Alive, delegate.Kept)
	if err := web.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	web.mustDel()
	n.left()
}

// TestRepairKeepsMAC: a bridge that an operator has made has its own address, and others know it by that.
func TestRepairKeepsMAC(t *testing.T) {
	n := newNode(t)
	t.Cleanup(n.removeBridges)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 9}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = "cluster0", mac
	if err := n.ns.Handle().LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		t.Fatal(err)
	}
	web := n.pod("web", "")
	web.mustAdd()
	n.shell("ip link del cluster0")
	if found, err := n.repair(); err != nil {
		t.Errorf("found %+v, %v", found, err)
	}
	if have := n.ns.Link(t, "cluster0").Attrs().HardwareAddr; have.String() != mac.String() {
		t.Errorf("the bridge has MAC %s, the pod knows %s", have, mac)
	}
	if err := web.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	web.mustDel()
	n.left()
}

// TestRepairByDaemon: a daemon that is told to makes a bridge again that was deleted, by itself, and says so in an event of
// each pod.
func TestRepairByDaemon(t *testing.T) {
	n, server := apiNode(t)
	t.Cleanup(n.removeBridges)
	web := n.pod("web", "")
	web.mustAdd()
	n.shell("ip link del cluster0; ip link del storage0; nft flush ruleset")
	wantError(t, "CHECK", web.check(), "cluster0")
	daemon := exec.Command(filepath.Join(binaries(), "braidd"), "daemon", "--kubeconfig", server.Kubeconfig(), "--node-name", "node-1",
		"--cni-dir", filepath.Join(n.dir, "braid"), "--socket", filepath.Join(n.dir, "d.sock"), "--dhcp-socket", "", "--listen", "127.0.0.1:0",
		"--sweep-interval", "1s", "--repair")
	var log bytes.Buffer
	daemon.Stderr = &log
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end := func() {
		if !ended {
			ended = true
			_ = daemon.Process.Signal(syscall.SIGTERM)
			_ = daemon.Wait()
		}
	}
	defer end()
	var err error
	told := func() bool {
		return slices.ContainsFunc(server.Events(), func(e corev1.Event) bool {
			return e.Reason == "RepairedAttachment" && e.InvolvedObject.Name == "web" && strings.Contains(e.Message, "cluster0")
		})
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if err = web.check(); err == nil && told() {
			break
		}
		if time.Now().After(deadline) {
			end()
			t.Fatalf("CHECK: %v, events: %v, the daemon says:\n%s", err, server.Events(), log.String())
		}
	}
	nettest.Reach(t, web.ns, n.ns, "10.244.0.1")
	end()
	web.mustDel()
	n.left()
}

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"

	"github.com/braid-cni/braid/internal/nettest"
)

const (
	storage = `{"cniVersion": "1.1.0", "type": "bridge", "bridge": "storage0", "ipam": {"type": "host-local", "dataDir": "$DIR", "subnet": "10.10.0.0/24"}}`
	lan     = `{"cniVersion": "1.0.0", "type": "macvlan", "master": "$NIC", "capabilities": {"ips": true, "mac": true}, "ipam": {"type": "static"}}`
	both    = `[{"name": "storage"}, {"name": "lan", "interface": "lan0", "ips": ["192.0.2.%d/24", "2001:db8::%d/64"]}]`
)

// TestPodGetsAllItsNetworks is the main job.
func TestPodGetsAllItsNetworks(t *testing.T) {
	n := newNode(t)
	n.nad("blue", "storage", storage)
	n.nad("blue", "lan", lan)
	web, db := n.pod("web", fmt.Sprintf(both, 10, 10)), n.pod("db", fmt.Sprintf(both, 11, 11))
	res := web.mustAdd()
	other := db.mustAdd()

	want := map[string][]string{
		"eth0": {"10.244.0.2/24", "fd00:244::2/64"},
		"net1": {"10.10.0.2/24"},
		"lan0": {"192.0.2.10/24", "2001:db8::10/64"},
	}
	if diff := cmp.Diff(want, addresses(t, res)); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if len(other.IPs) != 5 {
		t.Errorf("addresses of the other pod: %v", other.IPs)
	}
	if res.Interfaces[*res.IPs[0].Interface].Name != "eth0" {
		t.Error("the default network does not come first")
	}
	wantStatus(t, n, "web", "cluster eth0 10.244.0.2 fd00:244::2 default", "blue/storage net1 10.10.0.2", "blue/lan lan0 192.0.2.10 2001:db8::10")
	for _, to := range []string{"10.244.0.3", "fd00:244::3", "10.10.0.3", "192.0.2.11", "2001:db8::11"} {
		nettest.Reach(t, web.ns, db.ns, to)
	}
	if rules, err := exec.Command("nft", "list", "ruleset").Output(); err != nil || !strings.Contains(string(rules), "10.244.0.2") {
		t.Errorf("no rule masquerades the pod: %v, %s", err, rules)
	}
	if err := web.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if err := web.ns.Handle().LinkSetDown(web.ns.Link(t, "lan0")); err != nil {
		t.Fatal(err)
	}
	if err := web.check(); err == nil || !strings.Contains(err.Error(), "lan0") {
		t.Errorf("CHECK with lan0 down: %v", err)
	}
	web.mustDel()
	db.mustDel()
	n.left()
	n.removeBridges()
}

// wantStatus compares network-status, as "name interface ips… [default]".
func wantStatus(t *testing.T, n *node, podName string, want ...string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(n.dir, "braid", "status", "blue_"+podName+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Status []struct {
			Name, Interface string
			IPs             []string
			MAC             string
			Default         *bool
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	var got []string
	for _, s := range file.Status {
		line := strings.Join(append([]string{s.Name, s.Interface}, s.IPs...), " ")
		if s.Default == nil {
			t.Errorf("%s: no key default", s.Name)
		} else if *s.Default {
			line += " default"
		}
		if s.MAC == "" {
			t.Errorf("%s: no mac", s.Name)
		}
		got = append(got, line)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("network-status (-want +got):\n%s", diff)
	}
}

// TestEveryVersion: "The same version supplied on input", with delegates of other versions.
func TestEveryVersion(t *testing.T) {
	for _, version := range []string{"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			n := newNode(t)
			n.nad("blue", "old", strings.Replace(storage, "1.1.0", "0.2.0", 1))
			p := n.pod("web", "old")
			res, err := p.addVersion(version)
			if err != nil {
				t.Fatal(err)
			}
			if len(res.IPs) == 0 || res.IPs[0].Address.String() != "10.244.0.2/24" {
				t.Errorf("addresses: %v", res.IPs)
			}
			p.mustDel()
			n.left()
			n.removeBridges()
		})
	}
}

// TestDefaultRoute reads the routing table back: the key has been without effect in a peer for a year.
func TestDefaultRoute(t *testing.T) {
	const gateway = `{"cniVersion": "1.1.0", "type": "bridge", "bridge": "gw0", "isGateway": true, "ipam": {"type": "host-local", "dataDir": "$DIR",
		"ranges": [[{"subnet": "10.20.0.0/24"}], [{"subnet": "fd00:20::/64"}]] %s}}`
	for _, tt := range []struct{ name, routes, key, v4, v6 string }{
		{"no key", "", ``, "via 10.244.0.1 dev eth0", "via fd00:244::1 dev eth0"},
		{"IPv4 only", "", `,"default-route":["10.20.0.1"]`, "via 10.20.0.1 dev net1", "via fd00:244::1 dev eth0"},
		{"both", "", `,"default-route":["10.20.0.1","fd00:20::1"]`, "via 10.20.0.1 dev net1", "via fd00:20::1 dev net1"},
		{"its own", `,"routes":[{"dst":"0.0.0.0/0"}]`, `,"default-route":[]`, "via 10.20.0.1 dev net1", "via fd00:244::1 dev eth0"},
		{"its own, without any", "", `,"default-route":[]`, "via 10.244.0.1 dev eth0", "via fd00:244::1 dev eth0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			n.nad("blue", "gw", fmt.Sprintf(gateway, tt.routes))
			p := n.pod("web", `[{"name":"gw"`+tt.key+`}]`)
			res := p.mustAdd()
			if got := p.defaultRoutes(netlink.FAMILY_V4); !slices.Equal(got, []string{tt.v4}) {
				t.Errorf("IPv4 default routes: %q, want %q", got, tt.v4)
			}
			if got := p.defaultRoutes(netlink.FAMILY_V6); !slices.Equal(got, []string{tt.v6}) {
				t.Errorf("IPv6 default routes: %q, want %q", got, tt.v6)
			}
			var inResult []string
			for _, r := range res.Routes {
				if ones, _ := r.Dst.Mask.Size(); ones == 0 {
					inResult = append(inResult, r.String())
					if r.GW != nil && !strings.Contains(tt.v4+tt.v6, "via "+r.GW.String()+" ") {
						t.Errorf("the result has a default route that the kernel has not: %v", r)
					}
				}
			}
			if len(inResult) != 2 {
				t.Errorf("default routes of the result: %q", inResult)
			}
			if err := p.check(); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			p.mustDel()
			n.left()
			n.removeBridges()
		})
	}
}

// TestBadInput: what can not be honoured fails the ADD, says why, and leaves nothing.
func TestBadInput(t *testing.T) {
	for _, tt := range []struct{ name, networks, want string }{
		{"no such network", "missing", "blue/missing"},
		{"null element", "[null]", "found null"},
		{"not a list", `{"name":"storage"}`, "list"},
		{"bad interface", "storage@a/b", "a/b"},
		{"bad mac", `[{"name":"storage","mac":"02:00"}]`, "mac"},
		{"no taker", `[{"name":"storage","ips":["10.10.0.9"]}]`, "ips"},
		{"interface twice", "storage@x,storage@x", `"x"`},
		{"the default network's interface", "storage@eth0", "eth0"},
		{"config is null", "null-config", "null-config"},
		{"no plugins", "no-plugins", "plugins"},
		{"type is a path", "path-type", "../../bin/sh"},
		{"no such binary", "no-binary", "not-installed"},
		{"a path of the node", "path", `policy rule "policy[0]" does not allow it: ipam.resolvConf: found "/etc/shadow", want a path below one of `},
		{"late failure", "storage,late", "late"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t)
			n.nad("blue", "storage", storage)
			n.nad("blue", "null-config", `null`)
			n.nad("blue", "no-plugins", `{"cniVersion":"1.0.0","plugins":[]}`)
			n.nad("blue", "path-type", `{"cniVersion":"1.0.0","type":"../../bin/sh"}`)
			n.nad("blue", "no-binary", `{"cniVersion":"1.0.0","type":"not-installed"}`)
			n.nad("blue", "path", `{"cniVersion":"1.0.0","type":"macvlan","master":"$NIC","ipam":{"type":"host-local","dataDir":"$DIR","resolvConf":"/etc/shadow","subnet":"10.30.0.0/24"}}`)
			n.nad("blue", "late", `{"cniVersion":"1.0.0","type":"macvlan","master":"$NIC","mtu":99999,"ipam":{"type":"host-local","dataDir":"$DIR","subnet":"10.30.0.0/24"}}`)
			p := n.pod("web", tt.networks)
			_, err := p.add()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want it to tell %q", err, tt.want)
			}
			if links := p.ns.Links(t); len(links) > 0 {
				t.Errorf("links of the pod: %q", links)
			}
			n.left()
			if err := p.del(); err != nil {
				t.Errorf("DEL: %v", err)
			}
			n.removeBridges()
		})
	}
}

// TestThirdPartyPlugins: binaries in any place of a chain, and as the address plugin of an own one.
func TestThirdPartyPlugins(t *testing.T) {
	n := newNode(t)
	n.reference()
	n.nad("blue", "tuned", `{"cniVersion":"1.0.0","plugins":[
		{"type":"bridge","bridge":"tuned0","ipam":{"type":"host-local","dataDir":"$DIR","subnet":"10.40.0.0/24"}},
		{"type":"tuning","sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"},"mtu":1400},
		{"type":"bandwidth","capabilities":{"bandwidth":true}},
		{"type":"portmap","backend":"iptables","capabilities":{"portMappings":true}}]}`)
	n.nad("blue", "exec-ipam", `{"cniVersion":"0.4.0","type":"macvlan","master":"$NIC","ipam":{"type":"host-local","dataDir":"$DIR","subnet":"10.50.0.0/24"}}`)
	n.keys += `, "exec": ["host-local"], "delegates": [{"cniVersion":"1.0.0","name":"cluster","type":"ptp","ipam":{"type":"host-local","dataDir":"$DIR","subnet":"10.60.0.0/24","routes":[{"dst":"0.0.0.0/0"}]}}]`
	// In the place of the link of that name to braid: the reference host-local, leaving a trace.
	bin, trace := t.TempDir(), filepath.Join(n.dir, "executed")
	script := fmt.Sprintf("#!/bin/sh\necho $CNI_COMMAND $CNI_IFNAME >>%s\nexec %s/host-local\n", trace, n.path[1])
	if err := os.WriteFile(filepath.Join(bin, "host-local"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"braid", "braidd"} {
		if err := os.Symlink(filepath.Join(binaries(), name), filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	n.path[0] = bin
	p := n.pod("web", `[{"name":"tuned","bandwidth":{"ingressRate":8000000},"portMappings":[{"hostPort":8080,"containerPort":80}]},{"name":"exec-ipam"}]`)
	res := p.mustAdd()
	want := map[string][]string{"eth0": {"10.60.0.2/24"}, "net1": {"10.40.0.2/24"}, "net2": {"10.50.0.2/24"}}
	if diff := cmp.Diff(want, addresses(t, res)); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	if executed, err := os.ReadFile(trace); err != nil || !strings.Contains(string(executed), "ADD net2\n") {
		t.Errorf("host-local was not executed for net2: %v, %s", err, executed)
	}
	if mtu := p.ns.Link(t, "net1").Attrs().MTU; mtu != 1400 {
		t.Errorf("tuning was not heeded: mtu %d", mtu)
	}
	if err := p.check(); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	p.mustDel()
	n.left()
	n.removeBridges()
}

// TestKilledAdd: a plugin of the chain kills braid in the middle of an ADD. What follows finishes or undoes it.
func TestKilledAdd(t *testing.T) {
	for _, then := range []string{"ADD", "DEL", "DEL without namespace"} {
		t.Run(then, func(t *testing.T) {
			n := newNode(t)
			bin := t.TempDir()
			armed := filepath.Join(n.dir, "armed")
			script := fmt.Sprintf("#!/bin/sh\n[ $CNI_COMMAND = ADD ] && [ -e %s ] && { rm %s; kill -9 $PPID; sleep 5; exit 1; }\n"+
				"[ $CNI_COMMAND = ADD ] && echo '{\"cniVersion\":\"1.0.0\"}'\nexit 0\n", armed, armed)
			if err := os.WriteFile(filepath.Join(bin, "killer"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(armed, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			n.path = append(n.path, bin)
			n.nad("blue", "storage", storage)
			n.nad("blue", "deadly", `{"cniVersion":"1.0.0","type":"killer"}`)
			p := n.pod("web", "storage,deadly")
			if _, err := p.add(); err == nil {
				t.Fatal("ADD survived kill -9")
			}
			if links := p.ns.Links(t); len(links) != 2 {
				t.Errorf("links of the pod after kill -9: %q, want eth0 and net1", links)
			}
			switch then {
			case "ADD":
				p.mustAdd()
				p.mustDel()
			case "DEL":
				p.mustDel()
			case "DEL without namespace":
				p.ns.Remove(t)
				rt := p.runtimeConf()
				rt.NetNS = ""
				if err := p.cni().DelNetworkList(t.Context(), p.network("1.1.0"), rt); err != nil {
					t.Errorf("DEL: %v", err)
				}
			}
			n.left()
			n.removeBridges()
		})
	}
}

// TestGC: what the runtime does not list goes, net1 of what it lists stays.
func TestGC(t *testing.T) {
	n := newNode(t)
	n.nad("blue", "storage", storage)
	kept, stale := n.pod("kept", "storage"), n.pod("stale", "storage")
	kept.mustAdd()
	stale.mustAdd()
	valid := []types.GCAttachment{{ContainerID: "c-kept", IfName: "eth0"}}
	// libcni would DEL what it has cached itself; braid is to find what is stale on its own.
	cache := libcni.NewCNIConfigWithCacheDir(n.path, t.TempDir(), nil)
	if err := os.MkdirAll(filepath.Join(n.cache, "results"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := cache.GCNetworkList(t.Context(), n.network("1.1.0"), &libcni.GCArgs{ValidAttachments: valid}); err != nil {
		t.Fatalf("GC: %v", err)
	}
	if links := stale.ns.Links(t); len(links) > 0 {
		t.Errorf("links of the stale pod: %q", links)
	}
	if err := kept.check(); err != nil {
		t.Errorf("CHECK of the pod that is kept: %v", err)
	}
	kept.mustDel()
	stale.mustDel()
	n.left()
	n.removeBridges()
}

// TestStatus: "A plugin must exit with a zero (success) return code if the plugin is ready to service ADD requests."
func TestStatus(t *testing.T) {
	n := newNode(t)
	p := n.pod("web", "")
	if err := p.cni().GetStatusNetworkList(t.Context(), n.network("1.1.0")); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	n.keys += `, "readinessindicatorfile": "/nonexistent"`
	err := p.cni().GetStatusNetworkList(t.Context(), n.network("1.1.0"))
	var coded *types.Error
	if !errors.As(err, &coded) || coded.Code != types.ErrPluginNotAvailable {
		t.Errorf("STATUS without the default network: %v", err)
	}
}

// TestDropIn: called by the name of a plugin, the binary is that plugin, for any runtime.
func TestDropIn(t *testing.T) {
	n := newNode(t)
	list, err := libcni.NetworkConfFromBytes([]byte(n.expand(`{"cniVersion":"1.0.0","name":"plain","plugins":[
		{"type":"bridge","bridge":"plain0","isGateway":true,"ipam":{"type":"host-local","dataDir":"$DIR","subnet":"10.70.0.0/24"}}]}`)))
	if err != nil {
		t.Fatal(err)
	}
	p := n.pod("web", "")
	rt := p.runtimeConf()
	rt.Args = nil
	res, err := p.cni().AddNetworkList(t.Context(), list, rt)
	if err != nil {
		t.Fatal(err)
	}
	r, err := types100.NewResultFromResult(res)
	if err != nil || len(r.IPs) != 1 || r.IPs[0].Address.String() != "10.70.0.2/24" {
		t.Errorf("result: %v, %v", res, err)
	}
	if err := p.cni().CheckNetworkList(t.Context(), list, rt); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if err := p.cni().DelNetworkList(t.Context(), list, rt); err != nil {
		t.Errorf("DEL: %v", err)
	}
	n.left()
	n.removeBridges()
	for _, name := range []string{"braid", "bridge", "macvlan", "host-local", "static", "loopback"} {
		cmd := exec.Command(filepath.Join(binaries(), name))
		cmd.Env = []string{"CNI_COMMAND=VERSION"}
		if out, err := cmd.Output(); err != nil || !strings.Contains(string(out), "supportedVersions") {
			t.Errorf("VERSION of %s: %s, %v", name, out, err)
		}
	}
}

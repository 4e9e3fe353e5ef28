//go:build conformance

package conformance

import (
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
)

// Rows of section 5: the Network Attachment Status Annotation.

// reports runs ADD of a pod with a network whose plugin gives the result, and returns the entry of its status.
func reports(t *T, version, result string) dict {
	t.Helper()
	n, p := reporting(t, version, result)
	return p.statusOf(n.namespace + "/net")
}

// reportsFirst is reports for results of several interfaces: what else there is counts elsewhere.
func reportsFirst(t *T, result string) dict {
	t.Helper()
	n, p := reporting(t, "1.0.0", result)
	for _, s := range p.status() {
		if s["name"] == n.namespace+"/net" {
			return s
		}
	}
	t.Fatal("network-status has no entry of the network")
	return nil
}

func reporting(t *T, version, result string) (*node, *pod) {
	t.Helper()
	n := t.Node()
	n.script("rec-a", `{"ADD": {"result": `+result+`}}`)
	n.nad("net", `{"cniVersion": "`+version+`", "type": "rec-a"}`)
	p := n.pod("net")
	p.add().ok()
	return n, p
}

// full is a result with everything in it.
const full = `{"cniVersion": "$VERSION",
	"interfaces": [{"name": "$IFNAME", "mac": "02:00:00:00:00:07", "sandbox": "$NETNS"}],
	"ips": [{"address": "10.1.1.9/24", "gateway": "10.1.1.1", "interface": 0}, {"address": "fd00::9/64", "interface": 0}],
	"dns": {"nameservers": ["10.1.1.53"], "domain": "example.org", "search": ["example.org", "example.com"]}}`

// several has a bridge, a host's end of a pair, and two interfaces in the pod, each with addresses.
const several = `{"cniVersion": "$VERSION", "interfaces": [
	{"name": "br0", "mac": "02:00:00:00:00:01"}, {"name": "veth0", "mac": "02:00:00:00:00:02"},
	{"name": "$IFNAME", "mac": "02:00:00:00:00:03", "sandbox": "$NETNS"}, {"name": "sub0", "mac": "02:00:00:00:00:04", "sandbox": "$NETNS"}],
	"ips": [{"address": "10.1.1.1/24", "interface": 0}, {"address": "10.1.1.9/24", "interface": 2}, {"address": "10.1.2.9/24", "interface": 3}]}`

// addressesOf are the ips of an entry without their prefix lengths: the text of the standard says addresses, its examples
// have some with prefix length.
func addressesOf(entry dict) (ips []string) {
	list, _ := entry["ips"].([]any)
	for _, ip := range list {
		address, _, _ := strings.Cut(fmt.Sprint(ip), "/")
		ips = append(ips, address)
	}
	return ips
}

var _ = row("A94", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a"))
	p := n.pod("net")
	p.add().ok()
	if len(p.status()) != 2 {
		t.Errorf("network-status: %s", text(p.status()))
	}
})

var _ = row("A95", func(t *T) {
	n := t.Node()
	p := n.pod("")
	p.add().ok()
	p.status() // decodes
})

var _ = row("A96", func(t *T) {
	n := t.Node()
	n.script("rec-b", `{"ADD": {"result": `+full+`}}`)
	for _, name := range []string{"a", "b", "c"} {
		n.nad(name, rec("rec-"+name))
	}
	p := n.pod("a,b,c")
	p.add().ok()
	count := map[any]int{}
	for _, s := range p.status() {
		count[s["name"]]++
	}
	for _, name := range []string{"a", "b", "c"} {
		if got := count[n.namespace+"/"+name]; got != 1 {
			t.Errorf("%d entries for the attachment of %s", got, name)
		}
	}
	if len(count) != 4 {
		t.Errorf("networks with entries: %v", count)
	}
})

var _ = row("A97", func(t *T) {
	s := reports(t, "1.0.0", full)
	t.want("interface", s["interface"], `"net1"`)
	t.want("ips", addressesOf(s), `["10.1.1.9","fd00::9"]`)
	t.want("mac", s["mac"], `"02:00:00:00:00:07"`)
})

var _ = row("A98", func(t *T) {
	n := t.Node()
	n.api()
	proxy := n.suite.api().NewProxy()
	n.relay.lead(host(proxy.URL))
	var left atomic.Int32
	left.Store(1)
	proxy.Set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPatch && r.Method != http.MethodPut || left.Add(-1) < 0 {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict", "code": 409, "message": "somebody else was first"}`)
		return true
	})
	p := n.pod("")
	p.add().ok()
	if left.Load() > 0 {
		t.Error("the status was not written by way of the proxy")
	}
	if len(p.status()) != 1 {
		t.Errorf("network-status after a conflict: %s", text(p.status()))
	}
})

var _ = row("A99", func(t *T) {
	n, p := reporting(t, "1.0.0", several)
	var found []any
	for _, s := range p.status() {
		if s["name"] == n.namespace+"/net" {
			found = append(found, s["interface"])
		}
	}
	t.want("interfaces with an entry", found, `["net1"]`)
})

var _ = row("A100", func(t *T) {
	s := reports(t, "1.0.0", `{"cniVersion": "$VERSION"}`)
	if i, found := s["interface"]; found && i != "net1" && i != "" {
		t.Errorf("interface: %v", i)
	}
})

var _ = row("A101", func(t *T) {
	s := reports(t, "1.0.0", full)
	for _, key := range []string{"interface", "ips", "mac", "dns"} {
		if s[key] == nil {
			t.Errorf("no key %s: %s", key, text(s))
		}
	}
})

// old is a result from before there were interfaces in results.
const old = `{"cniVersion": "0.2.0", "ip4": {"ip": "10.1.1.9/24", "gateway": "10.1.1.1"}, "ip6": {"ip": "fd00::9/64"}, "dns": {"nameservers": ["10.1.1.53"]}}`

var _ = row("A102", func(t *T) {
	s := reports(t, "0.2.0", old)
	t.want("ips", addressesOf(s), `["10.1.1.9","fd00::9"]`)
	t.want("nameservers", at(s, "dns", "nameservers"), `["10.1.1.53"]`)
})

var _ = row("A103", func(t *T) {
	n := t.Node()
	p := n.pod("")
	p.add().ok()
	if s := p.status(); len(s) != 1 || s[0]["name"] == "" {
		t.Errorf("network-status: %s", text(s))
	}
})

var _ = row("A104", func(t *T) {
	n := t.Node()
	// The first address with a gateway is the host's.
	n.script("rec-cluster", `{"ADD": {"result": {"cniVersion": "$VERSION", "interfaces": [
		{"name": "br0", "mac": "02:00:00:00:00:01"}, {"name": "$IFNAME", "mac": "02:00:00:00:00:03", "sandbox": "$NETNS"}],
		"ips": [{"address": "10.1.1.1/24", "gateway": "10.1.1.254", "interface": 0}, {"address": "10.1.1.9/24", "interface": 1}]}}}`)
	p := n.pod("")
	p.add().ok()
	if s := p.status(); len(s) != 1 || s[0]["default"] != true {
		t.Errorf("network-status: %s", text(s))
	}
})

func init() {
	notApplicable("it leaves the place open", "A105")
	notApplicable("it leaves open what to do", "A119")
}

var _ = row("A125", deviceInfo)
var _ = row("A126", deviceInfo)

// deviceInfo: what the plugin of a device says of it, in the file of the Device Information Specification, is in the status.
func deviceInfo(t *T) {
	const info = `{"pci":{"pci-address":"0000:00:1f.0"},"type":"pci","version":"1.1.0"}`
	n := t.Node()
	n.script("rec-a", `{"ADD": {"deviceInfo": `+info+`}}`)
	n.nad("net", rec("rec-a", `"capabilities": {"deviceID": true, "CNIDeviceInfoFile": true}`))
	p := n.pod(`[{"name": "net", "deviceID": "0000:00:1f.0"}]`)
	p.add().ok()
	file, _ := at(n.one("rec-a", "ADD").conf(), "runtimeConfig", "CNIDeviceInfoFile").(string)
	if file == "" {
		t.Fatal("the plugin is not told where to write about its device")
	}
	t.suite.t.Cleanup(func() { // when no other row is about to write there
		os.Remove(file)
		// As far as they are empty, but never beyond what is of the specification.
		for dir := filepath.Dir(file); strings.Contains(dir, "/k8s.cni.cncf.io") && os.Remove(dir) == nil; dir = filepath.Dir(dir) {
		}
	})
	got := p.statusOf(n.namespace + "/net")["device-info"]
	t.want("type and address", []any{at(got, "type"), at(got, "pci", "pci-address")}, `["pci","0000:00:1f.0"]`)
	if version, _ := at(got, "version").(string); version == "" {
		t.Errorf("device-info has no version: %s", text(got))
	}
	p.del().ok()
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the file about the device after DEL: %v", err)
	}
}

var _ = row("A106", func(t *T) {
	standard := []string{"name", "interface", "ips", "mac", "default", "dns", "default-route", "device-info"}
	n := t.Node()
	n.script("rec-a", `{"ADD": {"result": {"cniVersion": "$VERSION",
		"interfaces": [{"name": "$IFNAME", "mac": "02:00:00:00:00:07", "mtu": 1400, "sandbox": "$NETNS"}],
		"ips": [{"address": "10.1.1.9/24", "gateway": "10.1.1.1", "interface": 0}], "routes": [{"dst": "0.0.0.0/0", "gw": "10.1.1.1"}]}}}`)
	n.nad("net", rec("rec-a"))
	p := n.pod("net")
	p.add().ok()
	for _, s := range p.status() {
		for _, key := range slices.Sorted(maps.Keys(s)) {
			if !slices.Contains(standard, key) && !strings.Contains(key, ".") {
				t.Errorf("an entry has the key %q", key)
			}
		}
	}
})

var _ = row("A107", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a"))
	p := n.pod("net")
	p.add().ok()
	p.statusOf(n.namespace + "/net")
	p.statusOf("cluster")
})

var _ = row("A108", func(t *T) {
	n := t.Node()
	other := n.otherNamespace()
	n.nad("net", rec("rec-a"))
	n.nad("main", rec("rec-b"))
	n.nadIn(other, "net", dict{"config": rec("rec-c")})
	n.keys["clusterNetwork"], n.keys["multusNamespace"] = "main", n.namespace
	p := n.pod("net," + other + "/net")
	p.add().ok()
	for _, name := range []string{n.namespace + "/main", n.namespace + "/net", other + "/net"} {
		p.statusOf(name)
	}
})

var _ = row("A109", func(t *T) {
	n := t.Node()
	n.nad("net", hostLocalBridge)
	p := n.pod("net@uplink0")
	p.add().ok()
	t.want("interface", p.statusOf(n.namespace + "/net")["interface"], `"uplink0"`)
	p.ns.Link(t, "uplink0")
})

var _ = row("A110", func(t *T) { t.want("interface", reportsFirst(t, several)["interface"], `"net1"`) })

var _ = row("A111", func(t *T) {
	n, p := reporting(t, "0.2.0", old)
	for _, s := range p.status() {
		if i, found := s["interface"]; s["name"] == n.namespace+"/net" && found && i != "" && i != "net1" {
			t.Errorf("interface: %v", i)
		}
	}
})

var _ = row("A112", func(t *T) {
	n := t.Node()
	n.nad("net", strings.Replace(hostLocalBridge, `"subnet": "10.1.1.0/24"`, `"ranges": [[{"subnet": "10.1.1.0/24"}], [{"subnet": "fd00::/64"}]]`, 1))
	p := n.pod("net")
	p.add().ok()
	var kernel []string
	for _, a := range n.addresses(p.ns, "net1") {
		address, _, _ := strings.Cut(a, "/")
		kernel = append(kernel, address)
	}
	t.want("ips", addressesOf(p.statusOf(n.namespace+"/net")), text(kernel))
})

var _ = row("A113", func(t *T) { t.want("ips", addressesOf(reportsFirst(t, several)), `["10.1.1.9"]`) })

var _ = row("A114", func(t *T) {
	s := reports(t, "1.0.0", `{"cniVersion": "$VERSION", "ips": [{"address": "10.1.1.9/24"}, {"address": "fd00::9/64"}]}`)
	t.want("ips", addressesOf(s), `["10.1.1.9","fd00::9"]`)
})

var _ = row("A115", func(t *T) {
	s := reports(t, "1.0.0", `{"cniVersion": "$VERSION", "interfaces": [{"name": "br0"}, {"name": "$IFNAME", "sandbox": "$NETNS"}],
		"ips": [{"address": "10.1.1.1/24", "interface": 0}]}`)
	if ips, found := s["ips"]; found {
		t.Errorf("the host's address is in ips: %v", ips)
	}
})

var _ = row("A116", func(t *T) {
	for _, version := range []string{"0.1.0", "0.2.0"} {
		s := reports(t, version, strings.Replace(old, "0.2.0", version, 1))
		t.want("ips of a result of "+version, addressesOf(s), `["10.1.1.9","fd00::9"]`)
	}
})

var _ = row("A117", func(t *T) {
	n := t.Node()
	for name, result := range map[string]string{"a": full, "b": several, "c": `{"cniVersion": "$VERSION", "interfaces": [{"name": "br0", "mac": "02:00:00:00:00:01"}]}`} {
		n.script("rec-"+name, `{"ADD": {"result": `+result+`}}`)
		n.nad(name, rec("rec-"+name))
	}
	p := n.pod("a,b,c")
	p.add().ok()
	for _, s := range p.status() {
		if s["mac"] != nil && s["interface"] == nil {
			t.Errorf("mac without interface: %s", text(s))
		}
	}
})

var _ = row("A118", func(t *T) { t.want("mac", reportsFirst(t, several)["mac"], `"02:00:00:00:00:03"`) })

var _ = row("A120", func(t *T) {
	n := t.Node()
	n.nad("net", rec("rec-a"))
	p := n.pod("net,net")
	p.add().ok()
	for _, s := range p.status() {
		if _, isBool := s["default"].(bool); !isBool {
			t.Errorf("the required key default is missing: %s", text(s))
		}
	}
})

var _ = row("A121", func(t *T) {
	n := t.Node()
	n.nad("net", fmt.Sprintf(gateways, "br2", 20, 20, ""))
	p := n.pod(`[{"name": "net"}, {"name": "net", "default-route": ["10.20.0.1"]}]`)
	p.add().ok()
	count := 0
	for _, s := range p.status() {
		if s["default"] == true {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d entries are the default: %s", count, text(p.status()))
	}
})

var _ = row("A122", func(t *T) {
	n, p := reporting(t, "1.0.0", full)
	t.want("nameservers", at(p.statusOf(n.namespace+"/net"), "dns", "nameservers"), `["10.1.1.53"]`)
	if names := at(p.statusOf("cluster"), "dns", "nameservers"); names != nil {
		t.Errorf("name servers of a network that has none: %v", names)
	}
})

var _ = row("A123", func(t *T) {
	t.want("dns", reports(t, "1.0.0", full)["dns"], `{"domain":"example.org","nameservers":["10.1.1.53"],"search":["example.org","example.com"]}`)
})

var _ = row("A124", func(t *T) {
	n := routed(t)
	p := n.pod(`[{"name": "gw", "default-route": ["10.20.0.1", "fd00:20::1"]}, {"name": "gw2"}]`)
	p.add().ok()
	t.want("default-route", p.statusOf(n.namespace + "/gw")["default-route"], `["10.20.0.1","fd00:20::1"]`)
	if r := p.statusOf(n.namespace + "/gw2")["default-route"]; r != nil {
		t.Errorf("default-route of an attachment without it: %v", r)
	}
})

package conf_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/internal/memo"
)

func policy(t *testing.T, rules string) conf.Policy {
	t.Helper()
	c, err := conf.Parse([]byte(`{"cniVersion":"1.1.0","name":"pods","type":"braid","clusterNetwork":"cluster","policy":` + rules + `}`))
	if err != nil {
		t.Fatal(err)
	}
	return c.Policy
}

func TestPolicyCheck(t *testing.T) {
	const tenants = `[{"name":"tenants","namespaces":["team-*"],"pods":["team-*"],"types":["macvlan","bridge","host-local","tuning"],"masters":["eth1","eth2.*"],
		"bridges":["br-*"],"paths":["/srv/ipam"],"sysctls":["net.ipv4.conf.*"],"defaultNetwork":false},
		{"namespaces":["nobody"],"types":[]},
		{"namespaces":["nics"],"masters":["eth1"],"bridges":["br-*"]}]`
	for _, tt := range []struct {
		name, rules, namespace, config string
		refused                        []string // texts of the error; none: it is allowed
	}{
		{"no policy", `[]`, "a", `{"type":"macvlan","master":"eth9"}`, nil},
		{"no policy, the default path", `[]`, "a", `{"type":"bridge","bridge":"b","ipam":{"type":"host-local","dataDir":"/var/lib/cni/networks"}}`, nil},
		{"no policy, a path", `[]`, "a", `{"type":"bridge","ipam":{"type":"host-local","dataDir":"/etc"}}`, []string{`rule "default"`, `ipam.dataDir: found "/etc", want no path`}},
		{"a sub-folder of the default path", `[]`, "a", `{"type":"bridge","ipam":{"type":"host-local","dataDir":"/var/lib/cni/networks/other"}}`, []string{"dataDir"}},
		{"a relative path", `[]`, "a", `{"type":"bridge","ipam":{"type":"host-local","dataDir":"../../etc"}}`, []string{`found "../../etc"`}},
		{"a path in another case", `[]`, "a", `{"type":"bridge","ipam":{"type":"host-local","DATADIR":"x"}}`, []string{"DATADIR"}},
		{"a path of a plugin that Braid does not know", `[]`, "a", `{"type":"other","deep":[{"er":["ok","/root"]}]}`, []string{`deep[0].er[1]: found "/root"`}},
		{"a path behind a space", `[]`, "a", `{"type":"other","p":" /root"}`, []string{"/root"}},
		{"a second plugin", `[]`, "a", `{"plugins":[{"type":"bridge"},{"type":"other","p":"/root"}]}`, []string{"plugins[1].p"}},
		{"sysctl of the node", `[]`, "a", `{"type":"tuning","sysctl":{"kernel.core_pattern":"|x"}}`, []string{"kernel.core_pattern", "net.*"}},
		{"sysctl by way of the parent", `[]`, "a", `{"type":"tuning","sysctl":{"net/../kernel/core_pattern":"x"}}`, []string{"core_pattern"}},
		{"sysctl with slashes", `[]`, "a", `{"type":"tuning","sysctl":{"net/ipv4/conf/net1/arp_filter":"1"}}`, nil},
		{"allowed", tenants, "team-a", `{"type":"macvlan","master":"eth1","ipam":{"type":"host-local","dataDir":"/srv/ipam/a"}}`, nil},
		{"a VLAN", tenants, "team-a", `{"type":"macvlan","master":"eth2.100"}`, nil},
		{"a parent in the pod", tenants, "team-a", `{"type":"macvlan","master":"net1","linkInContainer":true}`, nil},
		{"everything", tenants, "team-a", `{"plugins":[{"type":"macvlan","master":"eth0","ipam":{"type":"dhcp","daemonSocketPath":"/srv/ipam2"}},{"type":"bridge","bridge":"cluster0"},{"type":"ptp"}]}`,
			[]string{`rule "tenants"`, `plugins[0].master: found "eth0", want one of eth1, eth2.*`, `plugins[0].ipam.type: found "dhcp"`, `"/srv/ipam2", want a path below one of /srv/ipam`, `plugins[1].bridge`, `plugins[2].type: found "ptp"`}},
		{"no parent named", tenants, "team-a", `{"type":"macvlan"}`, []string{"master: missing, one of eth1"}},
		{"no bridge named", tenants, "team-a", `{"type":"bridge"}`, []string{`bridge: found "cni0"`}},
		{"a parent in the pod, for a plugin that looks on the node", tenants, "nics", `{"type":"ipoib","master":"eth0","linkInContainer":true}`, []string{`master: found "eth0"`}},
		{"a parent in the pod, that is not said so", tenants, "nics", `{"type":"vlan","master":"eth0","linkInContainer":false}`, []string{`master: found "eth0"`}},
		{"a VLAN of a parent in the pod", tenants, "nics", `{"type":"vlan","master":"net1","linkInContainer":true}`, nil},
		{"a device by its address", tenants, "nics", `{"type":"host-device","hwaddr":"02:00:00:00:00:01"}`, []string{`hwaddr: found "02:`, "one of eth1"}},
		{"a device by its place", tenants, "nics", `{"type":"host-device","pciBusID":"0000:00:1f.6"}`, []string{"pciBusID"}},
		{"a device by its path", tenants, "nics", `{"type":"host-device","kernelpath":"devices/pci0000:00/0000:00:1f.6"}`, []string{"kernelpath"}},
		{"a device of sriov", tenants, "nics", `{"type":"sriov","deviceID":"0000:00:1f.6"}`, []string{"deviceID"}},
		{"parents of a bond", tenants, "nics", `{"type":"bond","links":[{"name":"eth1"},{"NAME":"eth0"}]}`, []string{`links[1].name: found "eth0"`}},
		{"parents of a bond in the pod", tenants, "nics", `{"type":"bond","linksInContainer":true,"links":[{"name":"net1"}]}`, nil},
		{"parents in the pod, for a plugin that looks on the node", tenants, "nics", `{"type":"team","linksInContainer":true,"links":[{"name":"eth0"}]}`, []string{"links[0].name"}},
		{"a parent by conditions", tenants, "nics", `{"type":"macvlan","master":{"regex":"eth.*"}}`, []string{`master: found {"regex":"eth.*"}, want one of eth1`}},
		{"a parent in another case", tenants, "nics", `{"type":"macvlan","Ma\u017fter":"eth0"}`, []string{"eth0"}},
		{"plugins within", tenants, "nics", `{"type":"flannel","delegate":{"type":"macvlan","master":"eth0","hairpin":[{"bridge":"cni0"}]}}`,
			[]string{`delegate.master: found "eth0"`, `delegate.hairpin[0].bridge: found "cni0"`}},
		{"a type within", tenants, "team-a", `{"type":"bridge","bridge":"br-1","delegates":[{"type":"ptp"}]}`, []string{`delegates[0].type: found "ptp"`}},
		{"sysctl within", `[]`, "a", `{"type":"other","delegates":[{"type":"tuning","SYSCTL":{"kernel.core_pattern":"|x"}}]}`, []string{"delegates[0].SYSCTL", "kernel.core_pattern"}},
		{"a plugin of several networks", `[]`, "a", `{"type":"multus","delegates":[{"type":"ptp"}]}`, []string{`type: found "multus", want a plugin that attaches pods to one network`}},
		{"another version of a plugin of several networks", `[]`, "a", `{"type":"x","delegates":[{"type":"braid-1.0"}]}`, []string{`delegates[0].type: found "braid-1.0"`}},
		{"the plugin itself by its shim", `[]`, "a", `{"type":"braid-shim"}`, []string{`type: found "braid-shim"`}},
		{"the plugin itself under the name that it has here", `[]`, "a", `{"type":"flannel","delegate":{"type":"primary"}}`, []string{`delegate.type: found "primary"`}},
		{"a plugin of several networks, for addresses", `[]`, "a", `{"type":"ptp","ipam":{"type":"braid"}}`, []string{`ipam.type: found "braid"`}},
		{"a plugin of several networks, by name", `[{"namespaces":["*"],"types":["multus"]}]`, "a", `{"type":"multus","clusterNetwork":"x"}`, nil},
		{"a relative path that a name gives away", `[]`, "a", `{"type":"other","log_file_path":"etc/cron.d/x"}`, []string{"log_file_path"}},
		{"a path up", `[]`, "a", `{"type":"other","x":"../etc"}`, []string{`x: found "../etc"`}},
		{"a path in the middle of another", tenants, "team-a", `{"type":"bridge","bridge":"br-1","ipam":{"type":"host-local","dataDir":"/srv/ipam/../../etc"}}`, []string{"dataDir"}},
		{"a path with two slashes", tenants, "team-a", `{"type":"bridge","bridge":"br-1","ipam":{"type":"host-local","dataDir":"/srv/ipam//a"}}`, []string{"dataDir"}},
		{"a path with a scheme", `[]`, "a", `{"type":"other","server":"unix:///run/containerd/containerd.sock"}`, []string{"server"}},
		{"a list of paths", `[]`, "a", `{"type":"other","dataDir":["etc"]}`, []string{"dataDir[0]"}},
		{"a subnet, a range and a name", `[]`, "a", `{"type":"other","subnet":"10.0.0.0/24","range":"10.0.0.1-10.0.0.9/24","profile":"fast","dns":{"domain":"a..b"}}`, nil},
		{"a key that moves the cursor", `[]`, "a", `{"type":"other","\u001b[2J":"/etc"}`, []string{"\ufffd[2J: found"}},
		{"another namespace", tenants, "b", `{"type":"ptp"}`, nil},
		{"a device by its address on the bus", tenants, "team-a", `{"plugins":[{"type":"macvlan","master":"eth1","deviceID":"0000:65:00.1"},{"type":"tuning","pciBusID":"0000:65:00.2"},{"type":"tuning","hwaddr":"02:00:00:00:00:01"}]}`,
			[]string{`plugins[0].deviceID: found "0000:65:00.1", want one of eth1`, `plugins[1].pciBusID: found "0000:65:00.2"`, `plugins[2].hwaddr: found "02:00:00:00:00:01"`}},
		{"a device, without a rule about parents", `[]`, "a", `{"type":"host-device","pciBusID":"0000:65:00.2"}`, nil},
		{"a network by another's name", `[{"namespaces":["a"],"names":["a-*"]}]`, "a", `{"type":"bridge","name":"b-pool"}`, []string{`name: found "b-pool", want one of a-*`}},
		{"a network by an own name", `[{"namespaces":["a"],"names":["a-*"]}]`, "a", `{"type":"bridge","bridge":"b","name":"a-pool"}`, nil},
		{"a program for iptables to run", `[]`, "a", `{"type":"portmap","conditionsV4":["--modprobe=bin/evil"]}`, []string{"conditionsV4", `under "keys"`}},
		{"text for nft", `[]`, "a", `{"type":"portmap","ConditionsV6":["drop"]}`, []string{"ConditionsV6"}},
		{"conditions within", `[]`, "a", `{"type":"x","delegate":{"conditionsV4":["-i","eth0"]}}`, []string{"delegate.conditionsV4"}},
		{"conditions that the operator allows", `[{"namespaces":["*"],"keys":["conditionsV4"]}]`, "a", `{"type":"portmap","conditionsV4":["!","-d","192.0.2.0/24"]}`, nil},
		{"a path in conditions that the operator allows", `[{"namespaces":["*"],"keys":["conditions*"]}]`, "a", `{"type":"portmap","conditionsV4":["--modprobe=/bin/evil"]}`, []string{`found "--modprobe=/bin/evil"`}},
		{"what a runtime says, within", `[]`, "a", `{"type":"flannel","delegate":{"type":"portmap","runtimeConfig":{"portMappings":[{"hostPort":22}]},"PrevResult":{}}}`,
			[]string{"delegate.runtimeConfig: found", "delegate.PrevResult: found {}, want none: only a runtime may set the key"}},
		{"routes of the node to what the pod says it is", `[]`, "a", `{"type":"macvlan","master":"eth1","hostAccess":true}`, []string{"hostAccess: found true, want none: it reaches beyond the pod"}},
		{"no routes of the node", `[]`, "a", `{"type":"macvlan","master":"eth1","hostAccess":false}`, nil},
		{"routes of the node that the operator allows", `[{"namespaces":["a"],"keys":["hostAccess"]}]`, "a", `{"type":"macvlan","master":"eth1","hostAccess":true}`, nil},
		{"the address of another bridge", `[]`, "a", `{"type":"bridge","bridge":"b","forceAddress":true}`, []string{"forceAddress"}},
		{"the operator's bridge", `[]`, "a", `{"type":"bridge","bridge":"cluster0"}`, []string{`bridge: found "cluster0", want another`}},
		{"the operator's bridge by default", `[{"namespaces":["a"],"types":["bridge"]}]`, "a", `{"type":"bridge"}`, []string{`bridge: found "cni0", want another`}},
		{"the operator's bridge, for a tap", `[]`, "a", `{"type":"tap","bridge":"cluster0"}`, []string{"bridge: found"}},
		{"the operator's bridge within", `[]`, "a", `{"type":"userspace","host":{"bridge":{"bridgeName":"cluster0"}}}`, []string{"host.bridge.bridgeName: found"}},
		{"the operator's bridge that he allows", `[{"namespaces":["a"],"bridges":["cluster*"]}]`, "a", `{"type":"bridge","bridge":"cluster0"}`, nil},
		{"a path behind an equals sign", `[]`, "a", `{"type":"other","args":"x=/etc/shadow"}`, []string{"args"}},
		{"a path up behind a comma", `[]`, "a", `{"type":"other","args":"x,../etc"}`, []string{"args"}},
		{"an address of a server, and IPv6 subnets", `[]`, "a", `{"type":"other","url":"https://example.org/a","nets":"::/0, fd00::/64"}`, nil},
		{"nothing allowed", tenants, "nobody", `{"type":"ptp"}`, []string{`rule "policy[1]"`, "want nothing"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, err := conf.ParseNetwork([]byte(`{"cniVersion":"1.0.0",`+strings.TrimPrefix(tt.config, "{")), "net")
			if err != nil {
				t.Fatal(err)
			}
			c := &conf.Config{Policy: policy(t, tt.rules), Type: "primary"}
			err = c.CheckPolicy(conf.Use{Namespace: tt.namespace, Pod: "team-b", Bridges: []string{"cluster0", "cni0"}}, n, false)
			if len(tt.refused) == 0 {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			for _, text := range tt.refused {
				wantError(t, err, 7, text)
			}
		})
	}
	n, err := conf.ParseNetwork([]byte(`{"cniVersion":"1.0.0","type":"macvlan","master":"eth1"}`), "net")
	if err != nil {
		t.Fatal(err)
	}
	c := &conf.Config{Policy: policy(t, tenants)}
	wantError(t, c.CheckPolicy(conf.Use{Namespace: "team-a", Pod: "other"}, n, false), 7, `pods of namespace "other" must not use it`)
	wantError(t, c.CheckPolicy(conf.Use{Namespace: "team-a", Pod: "team-a", Default: true}, n, false), 7, "default network")
	if err := c.CheckPolicy(conf.Use{Namespace: "other", Pod: "other", Default: true}, n, false); err != nil {
		t.Error(err)
	}
}

// TestPolicyIsNotMixedUp: what one configuration's rule says of a network is not taken for what another one says, whatever else decides.
func TestPolicyIsNotMixedUp(t *testing.T) {
	m := new(memo.Memory)
	check := func(entry, rules, namespace, network string, bridges ...string) error {
		t.Helper()
		c, err := conf.ParseWith(m, []byte(`{"cniVersion":"1.1.0","name":"pods","type":"`+entry+`","clusterNetwork":"cluster","policy":`+rules+`}`))
		if err != nil {
			t.Fatal(err)
		}
		n, err := conf.ParseNetworkWith(m, network, "net")
		if err != nil {
			t.Fatal(err)
		}
		return c.CheckPolicy(conf.Use{Namespace: namespace, Pod: "p", Bridges: bridges}, n, false)
	}
	const (
		both   = `[{"namespaces":["a"],"types":["bridge","primary"]},{"namespaces":["b"],"types":["macvlan"]}]`
		other  = `[{"namespaces":["a"],"types":["macvlan"]}]`
		bridge = `{"cniVersion":"1.0.0","type":"bridge","bridge":"br1"}`
		nested = `{"cniVersion":"1.0.0","type":"flannel","delegate":{"type":"primary"}}`
	)
	for range 3 {
		for _, err := range []error{
			check("braid", both, "a", bridge), check("braid", both, "a", bridge, "br0"), check("braid", `[]`, "a", nested),
		} {
			if err != nil {
				t.Error(err)
			}
		}
		wantError(t, check("braid", both, "b", bridge), 7, `type: found "bridge"`)
		wantError(t, check("braid", other, "a", bridge), 7, `type: found "bridge"`)
		wantError(t, check("braid", both, "a", bridge, "br1"), 7, `bridge: found "br1"`)
		wantError(t, check("braid", both, "a", bridge, "br0", "br1"), 7, `bridge: found "br1"`)
		wantError(t, check("primary", `[]`, "a", nested), 7, `delegate.type: found "primary"`)
	}
}

func TestPolicyIsRead(t *testing.T) {
	for _, tt := range []struct{ rules, want string }{
		{`{}`, "policy: found {}, want a list of rules"},
		{`[{"types":["bridge"]}]`, "policy[0].namespaces: missing"},
		{`[{"namespaces":["["]}]`, `policy[0].namespaces[0]: found "["`},
		{`[{"namespaces":["*"],"paths":["srv"]}]`, `policy[0].paths[0]: found "srv", want an absolute path`},
		{`[{"namespaces":["*"],"paths":["/srv/../etc"]}]`, "without . and .."},
		{`[{"namespaces":["*"],"type":["bridge"]}]`, `did you mean "policy[0].types"`},
		{`[{"namespaces":["*"],"deviceIDs":true}]`, `policy[0].deviceIDs: found true, want "allocated"`},
		{`[{"namespaces":["*"],"deviceIDs":"all"}]`, `policy[0].deviceIDs: found "all", want "allocated"`},
		{`[{"namespaces":["*"],"hostPorts":[0]}]`, "policy[0].hostPorts[0]: found 0, want a port"},
		{`[{"namespaces":["*"],"hostPorts":["9-1"]}]`, `policy[0].hostPorts[0]: found "9-1"`},
		{`[{"namespaces":["*"],"hostPorts":["1-65536",1.5,true,"",null]}]`, `policy[0].hostPorts[4]`},
		{`[{"namespaces":["*"],"hostPorts":8080}]`, `policy[0].hostPorts: found 8080, want a list`},
		{`[{"namespaces":["*"],"subnets":["10.0.0.1/8"]}]`, `policy[0].subnets[0]: found "10.0.0.1/8", want a subnet`},
		{`[{"namespaces":["*"],"subnets":["x"]}]`, `policy[0].subnets[0]: found "x"`},
		{`[null]`, "policy[0]"},
	} {
		_, err := conf.Parse([]byte(`{"cniVersion":"1.1.0","name":"pods","type":"braid","clusterNetwork":"cluster","policy":` + tt.rules + `}`))
		wantError(t, err, 7, tt.want)
	}
}

func TestPolicyOfDevices(t *testing.T) {
	p := policy(t, `[{"namespaces":["any-*"],"deviceIDs":"any"},{"namespaces":["a"],"deviceIDs":"allocated"},{"namespaces":["b"]}]`)
	for namespace, want := range map[string]bool{"any-a": true, "a": false, "b": false, "no-rule": false} {
		if got := p.AllowsAnyDevice(namespace); got != want {
			t.Errorf("namespace %s: found %v, want %v", namespace, got, want)
		}
	}
}

func TestPolicyOfCNIArgs(t *testing.T) {
	n, err := conf.ParseNetwork([]byte(`{"cniVersion":"1.0.0","type":"static"}`), "net")
	if err != nil {
		t.Fatal(err)
	}
	c := &conf.Config{Policy: policy(t, `[{"namespaces":["none"],"cniArgs":[]},{"namespaces":["some"],"cniArgs":["Colour","x-*"]}]`)}
	for namespace, refused := range map[string][]string{"none": {"colour", "ips"}, "some": {"ips", "IPs", "x"}, "no-rule": nil} {
		for _, key := range []string{"colour", "ips", "IPs", "x", "x-1"} {
			err := c.CheckPolicy(conf.Use{Namespace: namespace, Pod: "p", CNIArgs: []string{key}}, n, false)
			want := slices.Contains(refused, key) || namespace == "none"
			if want {
				wantError(t, err, 7, "cni-args: found \""+key)
			} else if err != nil {
				t.Errorf("namespace %s, key %s: %v", namespace, key, err)
			}
		}
	}
}

func TestPolicyOfSubnets(t *testing.T) {
	const rules = `[{"namespaces":["a"],"subnets":["10.9.0.0/16","fd00:9::/32"]},{"namespaces":["none"],"subnets":[]}]`
	for _, tt := range []struct{ namespace, config, refused string }{
		{"a", `{"type":"x","ipam":{"type":"host-local","subnet":"10.9.1.0/24","ranges":[[{"subnet":"fd00:9::/64"}]],"routes":[{"dst":"0.0.0.0/0"}]}}`, ""},
		{"a", `{"type":"x","ipam":{"type":"host-local","ranges":[[{"subnet":"10.9.0.0/15"}]]}}`, `ipam.ranges[0][0].subnet: found "10.9.0.0/15", want one in 10.9.0.0/16, fd00:9::/32`},
		{"a", `{"type":"x","ipam":{"type":"static","addresses":[{"address":"10.9.0.1/32"},{"address":"10.96.0.1/16"}]}}`, `ipam.addresses[1].address: found "10.96.0.1/16"`},
		{"a", `{"type":"x","ipam":{"type":"whereabouts","range":"10.9.0.1-10.10.0.1/16"}}`, "ipam.range: found"},
		{"a", `{"type":"x","ipam":{"type":"whereabouts","range":"10.9.0.1-10.9.9.1/16"}}`, ""},
		{"a", `{"type":"x","ipam":{"type":"host-local","subnet":"::ffff:10.9.0.0/112"}}`, ""},
		{"a", `{"type":"x","ipam":{"type":"host-local","subnet":"::ffff:0.0.0.0/96"}}`, "ipam.subnet"},
		{"a", `{"type":"x","ipam":{"type":"host-local","SUBNET":"0.0.0.0/1"}}`, "ipam.SUBNET"},
		{"none", `{"type":"x","ipam":{"type":"static","addresses":[{"address":"10.9.0.1/32"}]}}`, "want none: the rule allows no address"},
		{"no-rule", `{"type":"x","ipam":{"type":"host-local","subnet":"0.0.0.0/1"}}`, ""},
	} {
		n, err := conf.ParseNetwork([]byte(`{"cniVersion":"1.0.0",`+strings.TrimPrefix(tt.config, "{")), "net")
		if err != nil {
			t.Fatal(err)
		}
		err = (&conf.Config{Policy: policy(t, rules)}).CheckPolicy(conf.Use{Namespace: tt.namespace, Pod: "p"}, n, false)
		if tt.refused != "" {
			wantError(t, err, 7, tt.refused)
		} else if err != nil {
			t.Errorf("%s: %v", tt.config, err)
		}
	}
	n, _ := conf.ParseNetwork([]byte(`{"cniVersion":"1.0.0","type":"x"}`), "net")
	c := &conf.Config{Policy: policy(t, rules)}
	wantError(t, c.CheckPolicy(conf.Use{Namespace: "a", Pod: "p", IPs: []string{"10.9.0.1", "10.9.0.2/24", "10.10.0.1/24", "8.8.8.8"}}, n, true), 7, `ips[2]: found "10.10.0.1/24"`)
	wantError(t, c.CheckPolicy(conf.Use{Namespace: "a", Pod: "p", IPs: []string{"8.8.8.8"}}, n, false), 7, `ips[0]: found "8.8.8.8"`)
}

func TestBridges(t *testing.T) {
	for config, want := range map[string]string{
		`{"type":"bridge"}`:                                  "[cni0]",
		`{"type":"bridge","bridge":"a"}`:                     "[a]",
		`{"type":"flannel","delegate":{"bridge":"b"}}`:       "[cni0 b]",
		`{"plugins":[{"type":"macvlan"},{"type":"bridge"}]}`: "[cni0]",
		`{"type":"macvlan"}`:                                 "[]",
	} {
		n, err := conf.ParseNetwork([]byte(`{"cniVersion":"1.0.0",`+strings.TrimPrefix(config, "{")), "net")
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(n.Bridges(nil)); got != want {
			t.Errorf("%s: found %s, want %s", config, got, want)
		}
	}
}

func TestPolicyOfHostPorts(t *testing.T) {
	c := &conf.Config{Policy: policy(t, `[{"namespaces":["edge"],"hostPorts":[80,"443","8000-8099"]},{"namespaces":["none"],"hostPorts":[]},{"namespaces":["a"]}]`)}
	n, err := conf.ParseNetwork([]byte(`{"cniVersion":"1.0.0","type":"portmap"}`), "net")
	if err != nil {
		t.Fatal(err)
	}
	for namespace, ports := range map[string]map[int]bool{
		"edge": {80: true, 81: false, 442: false, 443: true, 444: false, 7999: false, 8000: true, 8099: true, 8100: false},
		"none": {80: false, 8080: false},
		// As without a rule: not what a node lives by.
		"a":       {22: false, 1023: false, 1024: true, 8080: true, 6442: true, 6443: false, 6444: true, 2379: false, 10250: false, 29999: true, 30000: false, 32767: false, 65535: true},
		"no-rule": {22: false, 443: false, 8080: true, 2380: false, 10256: false, 10259: false, 10260: true, 31000: false},
	} {
		for port, want := range ports {
			use := conf.Use{Namespace: namespace, Pod: "x", HostPorts: []conf.PortMapping{{HostPort: port, ContainerPort: 1}}}
			for _, fromFile := range []bool{false, namespace == "no-rule"} {
				err := c.CheckPolicy(use, n, fromFile)
				if want && err != nil {
					t.Errorf("namespace %s, port %d: %v", namespace, port, err)
				} else if !want {
					wantError(t, err, 7, "portMappings[0].hostPort: found ")
				}
			}
		}
	}
}

// A NetworkAttachmentDefinition without a configuration stands for a file of the operator.
func TestPolicyOfFiles(t *testing.T) {
	n, err := conf.ParseNetwork([]byte(`{"cniVersion":"1.0.0","type":"ipvlan","master":"mgmt0","ipam":{"type":"host-local","dataDir":"/srv"}}`), "mgmt")
	if err != nil {
		t.Fatal(err)
	}
	const rules = `{"namespaces":["team-a"],"types":["macvlan"]},{"namespaces":["team-b"],"files":["m*"],"types":[]},{"namespaces":["team-c"],"files":[]},` +
		`{"namespaces":["team-d"],"files":["*"],"pods":["x"],"defaultNetwork":false}`
	for _, tt := range []struct {
		name, keys, namespace string
		refused               string
	}{
		{"no line is drawn", ``, "team-a", ""},
		{"isolation", `,"namespaceIsolation":true`, "team-a", `network "mgmt", want nothing`},
		{"isolation, the operator's namespace", `,"namespaceIsolation":true`, "kube-system", ""},
		{"isolation, a namespace for all", `,"namespaceIsolation":true`, "default", ""},
		{"isolation, another namespace for all", `,"namespaceIsolation":true,"globalNamespaces":["shared"]`, "default", `under "files"`},
		{"a rule", `,"policy":[` + rules + `]`, "team-a", `policy rule "policy[0]"`},
		{"a rule that allows it", `,"policy":[` + rules + `]`, "team-b", ""},
		{"a rule that allows none", `,"policy":[` + rules + `]`, "team-c", "stand for the file"},
		{"a rule for other pods", `,"policy":[` + rules + `]`, "team-d", `pods of namespace "p" must not use it`},
		{"a rule against other default networks", `,"policy":[` + rules + `]`, "team-d", "default network"},
		{"a namespace without a rule", `,"policy":[` + rules + `]`, "team-e", ""},
		{"a rule for all, the operator's namespace", `,"policy":[{"namespaces":["*"],"types":["macvlan"]}]`, "kube-system", ""},
		{"a rule for the operator's namespace", `,"policy":[{"namespaces":["*"],"files":["other"]}]`, "kube-system", "want one of other"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := conf.Parse([]byte(`{"cniVersion":"1.1.0","name":"pods","type":"braid","clusterNetwork":"cluster"` + tt.keys + `}`))
			if err != nil {
				t.Fatal(err)
			}
			err = c.CheckPolicy(conf.Use{Namespace: tt.namespace, Pod: "p", Default: true}, n, true)
			if tt.refused != "" {
				wantError(t, err, 7, tt.refused)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// FuzzPolicy: what the default rule accepts names no path of the node, no kernel setting beyond the pod's network, no plugin of
// several networks and no argument of another program, wherever it stands; and a rule that allows nothing accepts no plugin.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(`[]`), []byte(`{"cniVersion":"1.0.0","type":"macvlan","master":"eth0","ipam":{"type":"host-local","dataDir":"/var/lib/cni/networks"}}`))
	f.Add([]byte(`[{"namespaces":["a*"],"types":["*"],"paths":["/srv"],"hostPorts":[80,"90-99"]}]`), []byte(`{"cniVersion":"1.0.0","plugins":[{"type":"x","deep":[{"p":"/srv/../etc"}]},{"type":"y","sysctl":{"kernel/x":"1"}}]}`))
	f.Add([]byte(`[{"namespaces":["a"],"types":[],"masters":[],"keys":["[a-"]}]`), []byte(`{"cniVersion":"1.0.0","type":"portmap","CONDITIONSV4":["-j","x"],"delegate":{"type":"braid","x":"a=/b"}}`))
	f.Fuzz(func(t *testing.T, rules, config []byte) {
		n, err := conf.ParseNetwork(config, "net")
		if err != nil {
			return
		}
		c, err := conf.Parse([]byte(`{"cniVersion":"1.1.0","name":"pods","type":"braid","clusterNetwork":"cluster","policy":` + string(rules) + `}`))
		if err == nil {
			err := c.CheckPolicy(conf.Use{Namespace: "a", Pod: "b", HostPorts: []conf.PortMapping{{HostPort: 80}}}, n, false)
			for _, r := range c.Policy {
				if len(r.Types) == 0 && slices.Contains(r.Namespaces, "a") && len(c.Policy) == 1 && err == nil {
					t.Errorf("%s lets %s pass", rules, config)
				}
			}
			if err != nil && (len(err.Error()) > 16<<10 || strings.ContainsAny(err.Error(), "\x1b\n\x00")) {
				t.Errorf("%d bytes: %.300q", len(err.Error()), err)
			}
		}
		if err := (&conf.Config{Type: "braid"}).CheckPolicy(conf.Use{Namespace: "a", Pod: "a"}, n, false); err != nil {
			return
		}
		for _, p := range n.Plugins {
			var doc any
			if err := json.Unmarshal(p.Bytes, &doc); err != nil {
				t.Fatal(err)
			}
			if wrong := forbidden("", doc); wrong != "" {
				t.Errorf("accepted: %s in %s", wrong, p.Bytes)
			}
		}
	})
}

// forbidden looks for what no tenant may have without a rule, in another way than the policy does.
func forbidden(key string, v any) string {
	switch v := v.(type) {
	case string:
		trimmed := strings.TrimLeft(strings.TrimSpace(v), `"'=,;`)
		switch {
		case v == "/var/lib/cni/networks" || v == "/run/cni/dhcp.sock":
		case strings.HasPrefix(trimmed, "/"), strings.HasPrefix(v, "../"), strings.Contains(v, "/../"), strings.Contains(v, "=/"):
			return key + ": " + v
		case strings.EqualFold(key, "type") && (strings.HasPrefix(v, "braid") || strings.HasPrefix(v, "multus")):
			return key + ": " + v
		}
	case []any:
		for _, e := range v {
			if wrong := forbidden(key, e); wrong != "" {
				return wrong
			}
		}
	case map[string]any:
		for k, e := range v {
			settings, isObject := e.(map[string]any)
			if strings.EqualFold(k, "sysctl") && isObject {
				for name := range settings {
					if !strings.HasPrefix(name, "net.") && !strings.HasPrefix(name, "net/") || strings.Contains(name, "..") {
						return "sysctl " + name
					}
				}
			}
			if folded := strings.ToLower(k); folded == "runtimeconfig" || folded == "prevresult" {
				return k
			}
			if list, isList := e.([]any); isList && len(list) > 0 && (strings.EqualFold(k, "conditionsV4") || strings.EqualFold(k, "conditionsV6")) {
				return k
			}
			if wrong := forbidden(k, e); wrong != "" {
				return wrong
			}
		}
	}
	return ""
}

package conf_test

import (
	"strings"
	"testing"

	"github.com/braid-cni/braid/conf"
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
		{"no policy, the default path", `[]`, "a", `{"type":"bridge","ipam":{"type":"host-local","dataDir":"/var/lib/cni/networks"}}`, nil},
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
		{"nothing allowed", tenants, "nobody", `{"type":"ptp"}`, []string{`rule "policy[1]"`, "want nothing"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, err := conf.ParseNetwork([]byte(`{"cniVersion":"1.0.0",`+strings.TrimPrefix(tt.config, "{")), "net")
			if err != nil {
				t.Fatal(err)
			}
			err = policy(t, tt.rules).Check(tt.namespace, "team-b", false, n)
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
	p := policy(t, tenants)
	wantError(t, p.Check("team-a", "other", false, n), 7, `pods of namespace "other" must not use it`)
	wantError(t, p.Check("team-a", "team-a", true, n), 7, "default network")
	if err := p.Check("other", "other", true, n); err != nil {
		t.Error(err)
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

package static_test

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

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/internal/manpage"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/internal/refplugins"
	"github.com/braid-cni/braid/ipam/static"
)

func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }

func request(config, args string) *cni.Request {
	return &cni.Request{Attachment: cni.Attachment{ContainerID: "c1", IfName: "net1", Args: args}, Config: []byte(config)}
}

func config(ipam, more string) string {
	return `{"cniVersion":"1.1.0","name":"n","ipam":{"type":"static"` + ipam + `}` + more + `}`
}

func ips(res *types100.Result) (list []string) {
	for _, ip := range res.IPs {
		s := ip.Address.String()
		if ip.Gateway != nil {
			s += " via " + ip.Gateway.String()
		}
		list = append(list, s)
	}
	return list
}

func wantInvalid(t testing.TB, err error, want string) {
	t.Helper()
	coded, ok := errors.AsType[*types.Error](err)
	if !ok || coded.Code != types.ErrInvalidNetworkConfig || !strings.Contains(err.Error(), want) {
		t.Errorf("error = %v, want code 7 and %q", err, want)
	}
}

const configured = `,"addresses":[{"address":"10.0.0.5/24","gateway":"10.0.0.1"},{"address":"fd00::5/64"}]`

func TestAdd(t *testing.T) {
	for _, tt := range []struct {
		name, ipam, more, args string
		want                   []string
		err                    string
	}{
		{name: "configured", ipam: configured, want: []string{"10.0.0.5/24 via 10.0.0.1", "fd00::5/64"}},
		{name: "capability", ipam: configured, more: `,"runtimeConfig":{"ips":["10.0.0.9/24"]},"args":{"cni":{"ips":["10.0.0.8/24"]}}`,
			args: "IP=10.0.0.7/24", want: []string{"10.0.0.9/24 via 10.0.0.1"}},
		{name: "args", ipam: configured, more: `,"args":{"cni":{"ips":["10.9.0.8/24","fd00::8/64"]}}`, args: "IP=10.0.0.7/24;GATEWAY=10.9.0.1", want: []string{"10.9.0.8/24", "fd00::8/64"}},
		{name: "CNI_ARGS", args: "FOO=BAR;IP=10.0.0.7/24, fd00::7/64;GATEWAY=fd00::1,10.0.0.1", want: []string{"10.0.0.7/24 via 10.0.0.1", "fd00::7/64 via fd00::1"}},
		{name: "CNI_ARGS and configured", ipam: configured, args: "IP=10.0.0.7/24;GATEWAY=fd00::1", want: []string{"10.0.0.5/24 via 10.0.0.1", "fd00::5/64 via fd00::1", "10.0.0.7/24 via 10.0.0.1"}},
		{name: "gateway beyond the subnet", ipam: `,"addresses":[{"address":"10.0.0.5/32","gateway":"169.254.1.1"}]`, want: []string{"10.0.0.5/32 via 169.254.1.1"}},
		{name: "none", err: "no address"},
		{name: "no prefix length", ipam: `,"addresses":[{"address":"10.0.0.5"}]`, err: `ipam.addresses[0].address is "10.0.0.5": want an address with a prefix length`},
		{name: "no address", ipam: `,"addresses":[{}]`, err: `ipam.addresses[0].address is ""`},
		{name: "bad gateway", ipam: `,"addresses":[{"address":"10.0.0.5/24","gateway":"x"}]`, err: `ipam.addresses[0].gateway is "x"`},
		{name: "gateway of the other family", ipam: `,"addresses":[{"address":"10.0.0.5/24","gateway":"fd00::1"}]`, err: `ipam.addresses[0].gateway is "fd00::1": want an address of the IP family`},
		{name: "all complaints", more: `,"runtimeConfig":{"ips":["a","b"]}`, err: `runtimeConfig.ips[1] is "b"`},
		{name: "args without prefix length", more: `,"args":{"cni":{"ips":["10.0.0.5"]}}`, err: `args.cni.ips[0] is "10.0.0.5"`},
		{name: "CNI_ARGS without prefix length", args: "IP=10.0.0.5", err: `IP of CNI_ARGS[0] is "10.0.0.5"`},
		{name: "no such subnet", ipam: configured, args: "GATEWAY=10.9.0.1", err: `GATEWAY of CNI_ARGS has "10.9.0.1": want an address of the subnet of an address`},
		{name: "bad gateway of CNI_ARGS", ipam: configured, args: "GATEWAY=x", err: `GATEWAY of CNI_ARGS has "x"`},
		{name: "twice", ipam: `,"addresses":[{"address":"10.0.0.5/24"},{"address":"10.0.0.5/16"}]`, err: "address 10.0.0.5 is there twice"},
		{name: "multicast", ipam: `,"addresses":[{"address":"ff02::1/64"}]`, err: "no interface can have this address"},
		{name: "unspecified", ipam: `,"addresses":[{"address":"0.0.0.0/0"}]`, err: "no interface can have this address"},
		{name: "mapped", ipam: `,"addresses":[{"address":"::ffff:10.0.0.5/120"}]`, err: "ipam.addresses[0].address"},
		{name: "route", ipam: configured + `,"routes":[{"dst":"10.0.0.0/8"},{"gw":"10.0.0.1"}]`, err: "ipam.routes[1] has no dst"},
		{name: "type", ipam: `,"addresses":{}`, err: "ipam.addresses is a JSON object"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, err := static.Plugin{}.Add(t.Context(), request(config(tt.ipam, tt.more), tt.args))
			if tt.err != "" {
				wantInvalid(t, err, tt.err)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := ips(res); !slices.Equal(got, tt.want) {
				t.Errorf("addresses %q, want %q", got, tt.want)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	list := func(element string, n int) string {
		return "[" + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + "]"
	}
	for key, doc := range map[string]func(n int) string{
		"ipam.addresses":    func(n int) string { return config(`,"addresses":`+list(`{"address":"fd00::5/64"}`, n), "") },
		"runtimeConfig.ips": func(n int) string { return config("", `,"runtimeConfig":{"ips":`+list(`"fd00::5/64"`, n)+`}`) },
		"args.cni.ips":      func(n int) string { return config("", `,"args":{"cni":{"ips":`+list(`"fd00::5/64"`, n)+`}}`) },
	} {
		if _, err := (static.Plugin{}).Add(t.Context(), request(doc(256), "")); err != nil && strings.Contains(err.Error(), "at most") {
			t.Errorf("%s at the limit: %v", key, err)
		}
		_, err := static.Plugin{}.Add(t.Context(), request(doc(257), ""))
		wantInvalid(t, err, key+" has 257 addresses: want 256 at most")
	}
}

func TestOldVersions(t *testing.T) {
	const two = `{"cniVersion":%q,"name":"n","ipam":{"addresses":[{"address":"10.0.0.5/24"},{"address":"10.0.0.6/24"}]}}`
	for version, ok := range map[string]bool{"": false, "0.2.0": false, "0.3.0": true, "1.0.0": true} {
		_, err := static.Plugin{}.Add(t.Context(), request(fmt.Sprintf(two, version), ""))
		if ok && err != nil {
			t.Errorf("%q: %v", version, err)
		}
		if !ok {
			wantInvalid(t, err, "there are 2 IPv4 and 0 IPv6 addresses")
		}
	}
}

func TestCheck(t *testing.T) {
	const interfaces = `"interfaces":[{"name":"net0","sandbox":"/ns"},{"name":"net1","sandbox":"/ns"}]`
	for _, tt := range []struct{ name, ips, err string }{
		{"as ADD said", `{"address":"10.0.0.5/24","gateway":"10.0.0.1","interface":1},{"address":"fd00::5/64","interface":1}`, ""},
		{"without interfaces", `{"address":"10.0.0.5/24","gateway":"10.0.0.1"},{"address":"fd00::5/64"}`, ""},
		{"with a gateway of the interface plugin", `{"address":"10.0.0.5/24","gateway":"10.0.0.1"},{"address":"fd00::5/64","gateway":"fd00::1"}`, ""},
		{"with addresses of others", `{"address":"10.9.0.5/24","interface":0},{"address":"10.0.0.5/24","gateway":"10.0.0.1","interface":1},{"address":"fd00::5/64"},{"address":"10.0.9.9/24"}`, ""},
		{"another gateway", `{"address":"10.0.0.5/24","gateway":"10.0.0.2"},{"address":"fd00::5/64"}`, "address 10.0.0.5/24 has the gateway 10.0.0.2 in prevResult: want 10.0.0.1"},
		{"no gateway", `{"address":"10.0.0.5/24"},{"address":"fd00::5/64"}`, "address 10.0.0.5/24 has no gateway in prevResult: want 10.0.0.1"},
		{"another prefix length", `{"address":"10.0.0.5/16","gateway":"10.0.0.1"},{"address":"fd00::5/64"}`, "address 10.0.0.5/24 is not in prevResult"},
		{"one missing", `{"address":"10.0.0.5/24","gateway":"10.0.0.1"}`, "address fd00::5/64 is not in prevResult"},
		{"at another interface", `{"address":"10.0.0.5/24","gateway":"10.0.0.1","interface":0},{"address":"fd00::5/64"}`, "address 10.0.0.5/24 is not in prevResult"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conf := config(configured, `,"prevResult":{"cniVersion":"1.1.0",`+interfaces+`,"ips":[`+tt.ips+`]}`)
			err := (static.Plugin{}).Check(t.Context(), request(conf, ""))
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error = %v, want %q", err, tt.err)
			}
		})
	}
	wantInvalid(t, (static.Plugin{}).Check(t.Context(), request(config(configured, ""), "")), "prevResult is missing")
}

func TestStatus(t *testing.T) {
	for ipam, ok := range map[string]bool{configured: true, ``: true, `,"addresses":[{"address":"x"}]`: false} {
		if err := (static.Plugin{}).Status(t.Context(), request(config(ipam, ""), "")); (err == nil) != ok {
			t.Errorf("%s: %v", ipam, err)
		}
	}
}

// TestReference: the same results as the reference's, but for what the manual lists.
func TestReference(t *testing.T) {
	path := filepath.Join(refplugins.Dir(t), "static")
	const routes = `,"routes":[{"dst":"0.0.0.0/0"},{"dst":"192.0.2.0/24","gw":"10.0.0.3","mtu":1400,"advmss":1300,"priority":7,"table":99,"scope":0}]`
	const dns = `,"dns":{"nameservers":["10.0.0.53"],"domain":"example","search":["a.example"],"options":["ndots:5"]}`
	for _, tt := range []struct{ name, ipam, more, args string }{
		{name: "configured", ipam: configured + routes + dns},
		{name: "CNI_ARGS", ipam: routes, args: "IP=10.0.0.7/24,fd00::7/64;GATEWAY=fd00::1,10.0.0.1"},
		{name: "CNI_ARGS and configured", ipam: configured, args: "IP=10.9.0.7/24;GATEWAY=10.9.0.1"},
		{name: "args", ipam: `,"addresses":[{"address":"10.0.0.5/24"}]`, more: `,"args":{"cni":{"ips":["10.0.0.8/24","fd00::8/64"]}}`, args: "IP=10.0.0.7/24"},
		{name: "capability", ipam: dns, more: `,"runtimeConfig":{"ips":["10.0.0.9/24"]},"args":{"cni":{"ips":["10.0.0.8/24"]}}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conf := config(tt.ipam, tt.more)
			cmd := exec.Command(path)
			cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_NETNS=/none", "CNI_IFNAME=net1", "CNI_PATH=/none", "CNI_ARGS=" + tt.args}
			cmd.Stdin = strings.NewReader(conf)
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("reference: %v: %s", err, out)
			}
			res, err := static.Plugin{}.Add(t.Context(), request(conf, tt.args))
			if err != nil {
				t.Fatal(err)
			}
			ours, err := cni.MarshalResult(res, "1.1.0")
			if err != nil {
				t.Fatal(err)
			}
			var want, got any
			if err := errors.Join(json.Unmarshal(out, &want), json.Unmarshal(ours, &got)); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("result (-reference +ours):\n%s", diff)
			}
		})
	}
}

func TestConformance(t *testing.T) {
	cnitest.Run(t, func(*testing.T) *cnitest.Subject {
		return &cnitest.Subject{
			Plugin: static.Plugin{}, IPAM: true, Config: []byte(config(configured, "")),
			Failing: map[string][]byte{"no address": []byte(config("", ""))},
			Deviations: map[string]string{
				"two attachments of one container": "who writes an address into a configuration says who has it",
				"containers in parallel":           "who writes an address into a configuration says who has it",
				"CHECK after DEL":                  "nothing is kept that DEL could delete",
			},
		}
	})
}

func TestExamples(t *testing.T) {
	want := map[string][]string{
		"One address:":                      {"192.0.2.10/24 via 192.0.2.1"},
		"Addresses that each pod requests:": {"192.0.2.11/24", "2001:db8::11/64"},
	}
	examples := manpage.Examples(t, "README.md")
	for name, example := range examples {
		res, err := static.Plugin{}.Add(t.Context(), request(example, ""))
		if err != nil {
			t.Errorf("%s %v", name, err)
		} else if !slices.Equal(ips(res), want[name]) {
			t.Errorf("%s %q, want %q", name, ips(res), want[name])
		}
	}
	if len(examples) != len(want) {
		t.Errorf("%d examples, want %d", len(examples), len(want))
	}
}

// FuzzConfig: no configuration makes a verb panic, and no result has an address that is none.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(config(configured, "")), "IP=10.0.0.7/24;GATEWAY=10.0.0.1")
	f.Add([]byte(config("", `,"runtimeConfig":{"ips":["::/0"]},"args":{"cni":{"ips":[""]}},"prevResult":{"ips":[{}]}`)), "")
	f.Fuzz(func(t *testing.T, conf []byte, args string) {
		req := request(string(conf), args)
		res, err := static.Plugin{}.Add(t.Context(), req)
		if err == nil {
			if _, err := cni.MarshalResult(res, "1.1.0"); err != nil || len(res.IPs) == 0 {
				t.Errorf("result %v: %v", res, err)
			}
		}
		_ = (static.Plugin{}).Check(t.Context(), req)
		_ = (static.Plugin{}).Status(t.Context(), req)
	})
}

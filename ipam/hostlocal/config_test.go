package hostlocal_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/internal/manpage"
	"github.com/braid-cni/braid/ipam/hostlocal"
)

func TestBadRanges(t *testing.T) {
	many := strings.Repeat(`{"subnet":"10.0.0.0/24"},`, 1025)
	for ranges, want := range map[string]string{
		`[]`:                                   `ipam.ranges is missing: want a list of range sets like [[{"subnet": "10.1.0.0/16"}]]`,
		`[[]]`:                                 "ipam.ranges[0] is empty",
		`[[{}]]`:                               `ipam.ranges[0][0].subnet is ""`,
		`[[{"subnet":"10.0.0.1/24"}]]`:         `ipam.ranges[0][0].subnet is "10.0.0.1/24": it is an address within the subnet 10.0.0.0/24`,
		`[[{"subnet":"10.0.0.0/31"}]]`:         "too small",
		`[[{"subnet":"10.0.0.0/32"}]]`:         "too small",
		`[[{"subnet":"fd00::/127"}]]`:          "too small",
		`[[{"subnet":"fd00::/128"}]]`:          "too small",
		`[[{"subnet":"x"}]]`:                   `ipam.ranges[0][0].subnet is "x"`,
		`[[{"subnet":"::ffff:10.0.0.0/120"}]]`: `ipam.ranges[0][0].subnet`,
		`[[{"subnet":"10.0.0.0/24","gateway":"10.2.0.1"}]]`:                                                   `ipam.ranges[0][0].gateway is "10.2.0.1": want an address of 10.0.0.0/24`,
		`[[{"subnet":"10.0.0.0/24","gateway":"fd00::1"}]]`:                                                    "ipam.ranges[0][0].gateway",
		`[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.1.1"}]]`:                                                "ipam.ranges[0][0].rangeStart",
		`[[{"subnet":"10.0.0.0/24","rangeEnd":"9.9.9.9"}]]`:                                                   "ipam.ranges[0][0].rangeEnd",
		`[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.3"}]]`:                          "after rangeEnd",
		`[[{"subnet":"10.0.0.0/24"},{"subnet":"fd00::/64"}]]`:                                                 "ipam.ranges[0][1].subnet is fd00::/64: want all ranges of a set to be of one IP family",
		`[[{"subnet":"10.0.0.0/16"}],[{"subnet":"10.0.9.0/24"}]]`:                                             "ipam.ranges[0] and ipam.ranges[1] overlap",
		`[[{"subnet":"10.0.0.0/24"},{"subnet":"10.0.0.0/24"}]]`:                                               "overlap",
		`[[{"subnet":"10.0.0.0/24","rangeEnd":"10.0.0.9"},{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9"}]]`: "overlap",
		`[[{"subnet":"fd00::/64"}],[{"subnet":"fd00::/48"}]]`:                                                 "overlap",
		`[[{"subnet":7}]]`:               "ipam.ranges.subnet is a JSON number: want a string",
		`{}`:                             "ipam.ranges is a JSON object",
		`[[` + many[:len(many)-1] + `]]`: "ipam.ranges has 1025 ranges in 1 sets: want 1024 at most",
		`[` + strings.Repeat(`[],`, 1024) + `[]]`:          "in 1025 sets",
		`[[{"subnet":"x"},{"subnet":"10.0.0.0/31"}]]`:      "ipam.ranges[0][1].subnet",
		`[[{"subnet":"10.0.0.0/24"}]],"dataDir":"x"`:       `ipam.dataDir is "x": want an absolute path`,
		`[[{"subnet":"10.0.0.0/24"}]],"resolvConf":"x"`:    `ipam.resolvConf is "x": want an absolute path`,
		`[[{"subnet":"10.0.0.0/24"}]],"sticky":"yes"`:      "ipam.sticky is a JSON string: want a bool",
		`[[{"subnet":"10.0.0.0/24"}]],"routes":[{"gw":1}]`: "ipam.routes[0]",
	} {
		dir := t.TempDir()
		_, err := hostlocal.Plugin{}.Add(t.Context(), request("c1", config(dir, ranges)))
		wantError(t, err, types.ErrInvalidNetworkConfig, want)
		if entries, _ := os.ReadDir(dir); len(entries) != 0 {
			t.Errorf("%.60s: the folder has %v", ranges, entries)
		}
	}
}

func TestBadConfig(t *testing.T) {
	const ranges = `"ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"10.1.0.0/24"}]]`
	for config, want := range map[string]struct {
		code uint
		msg  string
	}{
		`{`:                                    {types.ErrDecodingFailure, "decode"},
		`{"cniVersion":"1.1.0","name":"blue"}`: {types.ErrInvalidNetworkConfig, `"ipam" is missing`},
		`{"cniVersion":"1.1.0","name":"../etc","ipam":{"ranges":[[{"subnet":"10.0.0.0/24"}]]}}`: {types.ErrInvalidNetworkConfig, `name is "../etc"`},
		`{"cniVersion":"1.1.0","name":".braid","ipam":{"ranges":[[{"subnet":"10.0.0.0/24"}]]}}`: {types.ErrInvalidNetworkConfig, `name is ".braid"`},
		`{"cniVersion":"0.2.0","name":"blue","ipam":{` + ranges + `}}`:                          {types.ErrInvalidNetworkConfig, "2 IPv4 and 0 IPv6 addresses"},
		`{"name":"blue","ipam":{` + ranges + `}}`:                                               {types.ErrInvalidNetworkConfig, `cniVersion is ""`},
	} {
		p := hostlocal.Plugin{DataDir: t.TempDir()}
		_, err := p.Add(t.Context(), request("c1", config))
		wantError(t, err, want.code, want.msg)
		wantNoReservation(t, p.DataDir)
	}
}

// TestRangesOfAllForms: those of the runtime come first, then the one of old configurations, then the list.
func TestRangesOfAllForms(t *testing.T) {
	dir := t.TempDir()
	conf := config(dir, `[[{"subnet":"10.2.0.0/24"}]],"subnet":"10.1.0.0/24","rangeStart":"10.1.0.9","gateway":"10.1.0.254"`,
		`,"runtimeConfig":{"ipRanges":[[{"subnet":"10.0.0.0/24"}]]}`)
	res, err := hostlocal.Plugin{}.Add(t.Context(), request("c1", conf))
	if err != nil {
		t.Fatal(err)
	}
	wantIPs(t, ips(res), "10.0.0.2/24", "10.1.0.9/24", "10.2.0.2/24")
	if got := res.IPs[1].Gateway.String(); got != "10.1.0.254" {
		t.Errorf("gateway %s", got)
	}
	if got := files(t, dir)["last_reserved_ip.1"]; got != "10.1.0.9" {
		t.Errorf("the second cursor is %q", got)
	}
}

func TestRequested(t *testing.T) {
	const ranges = `[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.2","rangeEnd":"10.0.0.99"},{"subnet":"10.0.1.0/24"}],[{"subnet":"fd00::/64"}]]`
	const none = types.ErrInvalidNetworkConfig
	for _, tt := range []struct {
		name, more, args, want string
		code                   uint
		err                    string
	}{
		{name: "capability", more: `,"runtimeConfig":{"ips":["10.0.0.9/24"]}`, args: "IP=10.0.0.7", want: "10.0.0.9/24 fd00::2/64"},
		{name: "args", more: `,"args":{"cni":{"ips":["fd00::9"]}}`, args: "IP=10.0.0.7", want: "10.0.0.2/24 fd00::9/64"},
		{name: "both", more: `,"args":{"cni":{"ips":["fd00::9"]}},"runtimeConfig":{"ips":["10.0.1.9"]}`, want: "10.0.1.9/24 fd00::9/64"},
		{name: "the same twice", more: `,"args":{"cni":{"ips":["fd00::9"]}},"runtimeConfig":{"ips":["fd00::9/64"]}`, want: "10.0.0.2/24 fd00::9/64"},
		{name: "CNI_ARGS", args: "FOO=BAR;IP=10.0.0.7", want: "10.0.0.7/24 fd00::2/64"},
		{name: "CNI_ARGS with a list", args: "IP=10.0.0.7/24, fd00::7", want: "10.0.0.7/24 fd00::7/64"},
		{name: "IPv4 within IPv6", args: "IP=::ffff:10.0.0.7", want: "10.0.0.7/24 fd00::2/64"},
		{name: "the first of the range", args: "IP=10.0.0.2", want: "10.0.0.2/24 fd00::2/64"},
		{name: "the last of the range", args: "IP=10.0.0.99", want: "10.0.0.99/24 fd00::2/64"},
		{name: "before the range", args: "IP=10.0.0.0", code: none, err: `IP of CNI_ARGS has "10.0.0.0": it is in none of the ranges [10.0.0.2-10.0.0.99, 10.0.1.1-10.0.1.254 fd00::1-`},
		{name: "after the range", args: "IP=10.0.0.100", code: none, err: "in none of the ranges"},
		{name: "the gateway", args: "IP=10.0.1.1", code: none, err: `IP of CNI_ARGS has "10.0.1.1": it is the gateway's`},
		{name: "garbage", args: "IP=ten", code: none, err: `IP of CNI_ARGS has "ten": want an address like`},
		{name: "two of one set", more: `,"runtimeConfig":{"ips":["10.0.0.9","10.0.1.9"]}`, code: none, err: "one address only can be had of ipam.ranges[0], and 10.0.0.9 is requested too"},
		{name: "too many", more: `,"runtimeConfig":{"ips":["` + strings.Repeat(`1.1.1.1","`, 2000) + `"]}`, code: none, err: "runtimeConfig.ips has 2001 addresses"},
		{name: "no list", more: `,"runtimeConfig":{"ips":"10.0.0.9"}`, code: none, err: "runtimeConfig.ips is a JSON string"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			req := request("c1", config(dir, ranges, tt.more))
			req.Args = tt.args
			res, err := hostlocal.Plugin{}.Add(t.Context(), req)
			if tt.err != "" {
				wantError(t, err, tt.code, tt.err)
				wantNoReservation(t, dir)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantIPs(t, ips(res), strings.Fields(tt.want)...)
		})
	}
}

func TestRequestedIsTaken(t *testing.T) {
	dir := t.TempDir()
	conf := config(dir, `[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}]]`)
	add(t, "c1", conf)
	req := request("c2", conf)
	req.Args = "IP=10.0.0.2"
	_, err := hostlocal.Plugin{}.Add(t.Context(), req)
	wantError(t, err, 0, "requested address 10.0.0.2 is not available: eth0 of container c1 has it")
	if got := reserved(t, dir); len(got) != 2 {
		t.Errorf("reserved: %q", got)
	}
}

// TestWholeResult: everything else that a result has.
func TestWholeResult(t *testing.T) {
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	writeFile(t, resolv, "# nameserver 1.1.1.1\n;x y\nnameserver 192.0.2.53\n search a.example b.example\noptions ndots:5 rotate\ndomain example\nnameserver\nnameserver fd00::53 trailing\n")
	conf := config(t.TempDir(), `[[{"subnet":"10.0.0.0/24","gateway":"10.0.0.99"}]],"resolvConf":"`+resolv+`","routes":[
		{"dst":"0.0.0.0/0"},{"dst":"192.0.2.0/24","gw":"10.0.0.3","mtu":1400,"advmss":1300,"priority":7,"table":99,"scope":0}]`)
	res, err := hostlocal.Plugin{}.Add(t.Context(), request("c1", conf))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	var got, want any
	const wantJSON = `{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.1/24","gateway":"10.0.0.99"}],
		"routes":[{"dst":"0.0.0.0/0"},{"dst":"192.0.2.0/24","gw":"10.0.0.3","mtu":1400,"advmss":1300,"priority":7,"table":99,"scope":0}],
		"dns":{"nameservers":["192.0.2.53","fd00::53"],"domain":"example","search":["a.example","b.example"],"options":["ndots:5","rotate"]}}`
	if err := errors.Join(json.Unmarshal(b, &got), json.Unmarshal([]byte(wantJSON), &want)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("result (-want +got):\n%s", diff)
	}
}

func TestBadResolvConf(t *testing.T) {
	dir := t.TempDir()
	pipe, large := filepath.Join(dir, "pipe"), filepath.Join(dir, "large")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	writeFile(t, large, strings.Repeat("nameserver 192.0.2.1\n", 10_000))
	for _, path := range []string{"/nowhere", dir, pipe, large, "/dev/zero"} {
		_, err := hostlocal.Plugin{}.Add(t.Context(), request("c1", config(dir, fmt.Sprintf(`[[{"subnet":"10.0.0.0/24"}]],"resolvConf":%q`, path))))
		wantError(t, err, 0, "ipam.resolvConf", path)
	}
}

func TestBadRoutes(t *testing.T) {
	for route, want := range map[string]string{
		`{}`:                              "ipam.routes[0] has no dst",
		`null`:                            "ipam.routes[0] has no dst",
		`{"dst":"x"}`:                     "ipam.routes[0]: invalid CIDR address: x",
		`{"dst":"::/0","gw":"10.0.0.1"}`:  "ipam.routes[0].gw is 10.0.0.1: want an address of the IP family of dst, ::/0",
		`{"dst":"0.0.0.0/0","mtu":"big"}`: "ipam.routes[0]",
	} {
		_, err := hostlocal.Plugin{}.Add(t.Context(), request("c1", config(t.TempDir(), `[[{"subnet":"10.0.0.0/24"}]],"routes":[`+route+`]`)))
		wantError(t, err, types.ErrInvalidNetworkConfig, want)
	}
}

// TestExamples: what the manual shows is what happens.
func TestExamples(t *testing.T) {
	examples := manpage.Examples(t, "README.md")
	want := map[string][]string{
		"One pool:": {"10.1.5.0/16"},
		"IPv4 and IPv6, with a default route for each; when the first IPv4 range is used up, addresses are taken from the second:": {"10.2.0.2/24", "fd00:2::2/64"},
		"A pod that gets the address back which it had before, and the name servers of the node:":                                  {"10.4.0.2/24"},
	}
	for name, example := range examples {
		var m map[string]any
		if err := json.Unmarshal([]byte(example), &m); err != nil {
			t.Fatalf("%s %v", name, err)
		}
		ipam := m["ipam"].(map[string]any)
		if ipam["resolvConf"] != nil {
			ipam["resolvConf"] = filepath.Join(t.TempDir(), "resolv.conf")
			writeFile(t, ipam["resolvConf"].(string), "nameserver 192.0.2.53\n")
		}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		res, err := hostlocal.Plugin{DataDir: t.TempDir()}.Add(t.Context(), request("c1", string(b)))
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

// FuzzConfig: no configuration makes a verb panic, and none leaves its folder.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.1.0","name":"blue","ipam":{"subnet":"10.0.0.0/24"}}`), "IP=10.0.0.7")
	f.Add([]byte(`{"name":"blue","ipam":{"ranges":[[{"subnet":"fd00::/8","rangeStart":"fd00::1","rangeEnd":"fd00::f","gateway":"fd00::2"}]]},"prevResult":{}}`), "")
	f.Add([]byte(`{"name":"b","ipam":{"ranges":[[{"subnet":"0.0.0.0/0"}],[{"subnet":"::/0"}]]},"runtimeConfig":{"ips":["::"],"ipRanges":[[{}]]},"cni.dev/valid-attachments":[]}`), "")
	f.Fuzz(func(t *testing.T, conf []byte, args string) {
		var own struct {
			IPAM struct{ DataDir, ResolvConf string }
		}
		_ = json.Unmarshal(conf, &own)
		if own.IPAM.DataDir != "" || own.IPAM.ResolvConf != "" {
			return // it would be right to go where it says
		}
		parent := t.TempDir()
		p := hostlocal.Plugin{DataDir: filepath.Join(parent, "data")}
		req := request("c1", string(conf))
		req.Args = args
		res, err := p.Add(t.Context(), req)
		if err == nil && len(res.IPs) == 0 {
			t.Error("no error and no address")
		}
		_, again := p.Add(t.Context(), req)
		if err == nil && again == nil {
			t.Error("two allocations")
		}
		_ = p.Check(t.Context(), req)
		_ = p.Status(t.Context(), req)
		delErr := p.Del(t.Context(), req)
		if err == nil && delErr != nil {
			t.Errorf("ADD succeeded and DEL did not: %v", delErr)
		}
		_ = p.GC(t.Context(), req)
		if entries, _ := os.ReadDir(parent); len(entries) > 1 {
			t.Errorf("outside of the folder: %v", entries)
		}
		left, _ := filepath.Glob(filepath.Join(p.DataDir, "*", "*[.:]*"))
		for _, name := range left {
			if base := filepath.Base(name); base != ".braid" && !strings.HasPrefix(base, "last_reserved_ip.") {
				t.Errorf("left: %s", name)
			}
		}
	})
}

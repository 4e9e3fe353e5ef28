package hostlocal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/disk"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/internal/manpage"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/internal/refplugins"
	"github.com/braid-cni/braid/ipam/hostlocal"
)

// allocateEnv makes this test binary one process that allocates.
const allocateEnv = "BRAID_TEST_ALLOCATE"

func TestMain(m *testing.M) {
	if config := os.Getenv(allocateEnv); config != "" {
		for i := range 25 {
			req := request(fmt.Sprintf("c%d-%d", os.Getpid(), i), config)
			res, err := hostlocal.Plugin{}.Add(context.Background(), req)
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			fmt.Println(res.IPs[0].Address.IP)
		}
		os.Exit(0)
	}
	os.Exit(nettest.Main(m))
}

func request(id, config string) *cni.Request {
	return &cni.Request{Attachment: cni.Attachment{ContainerID: id, IfName: "eth0"}, Config: []byte(config)}
}

func config(dir, ranges string, more ...string) string {
	return fmt.Sprintf(`{"cniVersion":"1.1.0","name":"blue","ipam":{"type":"host-local","dataDir":%q,"ranges":%s}%s}`, dir, ranges, strings.Join(more, ""))
}

func add(t testing.TB, id, config string) []string {
	t.Helper()
	res, err := hostlocal.Plugin{}.Add(t.Context(), request(id, config))
	if err != nil {
		t.Fatal(err)
	}
	return ips(res)
}

func ips(res *types100.Result) (list []string) {
	for _, ip := range res.IPs {
		list = append(list, ip.Address.String())
	}
	return list
}

// files returns the folder of a network: content by name.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	entries, err := os.ReadDir(filepath.Join(dir, "blue"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue // what the reference does not have
		}
		b, err := os.ReadFile(filepath.Join(dir, "blue", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = string(b)
	}
	return found
}

// TestOracle puts the same calls to the reference's own allocator and store: the same addresses, the same files.
func TestOracle(t *testing.T) {
	const ranges = `[[{"subnet":"10.0.0.0/29"},{"subnet":"10.0.1.0/29","rangeStart":"10.0.1.3"}],[{"subnet":"fd00::/64","rangeEnd":"fd00::d"}]]`
	ours, theirs := t.TempDir(), t.TempDir()
	conf, _, err := allocator.LoadIPAMConfig([]byte(config(theirs, ranges)), "")
	if err != nil {
		t.Fatal(err)
	}
	reference := func(verb, id string) (got []string, failed bool) {
		store, err := disk.New("blue", theirs)
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		for i := range conf.Ranges {
			alloc := allocator.NewIPAllocator(&conf.Ranges[i], store, i)
			if verb == "DEL" {
				if err := alloc.Release(id, "eth0"); err != nil {
					t.Fatal(err)
				}
				continue
			}
			ip, err := alloc.Get(id, "eth0", nil)
			if err != nil {
				return nil, true
			}
			got = append(got, ip.Address.String())
		}
		return got, false
	}
	for step, call := range strings.Fields("+a +b +c -b +d +e +f +g -a -c +h +i +j -zz +k") {
		verb, id := map[byte]string{'+': "ADD", '-': "DEL"}[call[0]], call[1:]
		want, failed := reference(verb, id)
		if failed {
			t.Fatalf("step %d: the sequence exhausts the reference's ranges", step)
		}
		if verb == "DEL" {
			if err := (hostlocal.Plugin{}).Del(t.Context(), request(id, config(ours, ranges))); err != nil {
				t.Fatal(err)
			}
		} else if got := add(t, id, config(ours, ranges)); !slices.Equal(got, want) {
			t.Fatalf("step %d, %s: %q, the reference gave %q", step, call, got, want)
		}
		if diff := cmp.Diff(files(t, theirs), files(t, ours)); diff != "" {
			t.Fatalf("step %d, %s: files (-reference +ours):\n%s", step, call, diff)
		}
	}
}

// TestSharedFolder: the reference binary and ours take turns on one folder, and undo what the other did.
func TestSharedFolder(t *testing.T) {
	dir, bin := t.TempDir(), filepath.Join(refplugins.Dir(t), "host-local")
	conf := config(dir, `[[{"subnet":"10.0.0.0/28"}]]`)
	reference := func(verb, id string) string {
		cmd := exec.Command(bin)
		cmd.Env = []string{"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + id, "CNI_NETNS=/none", "CNI_IFNAME=eth0", "CNI_PATH=/none"}
		cmd.Stdin = strings.NewReader(conf)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("reference %s %s: %v: %s", verb, id, err, out)
		}
		return string(out)
	}
	if out := reference("ADD", "a"); !strings.Contains(out, "10.0.0.2/28") {
		t.Errorf("reference: %s", out)
	}
	if got := add(t, "b", conf); !slices.Equal(got, []string{"10.0.0.3/28"}) {
		t.Errorf("ours: %q", got)
	}
	if out := reference("ADD", "c"); !strings.Contains(out, "10.0.0.4/28") {
		t.Errorf("reference: %s", out)
	}
	if err := (hostlocal.Plugin{}).Del(t.Context(), request("a", conf)); err != nil {
		t.Error(err)
	}
	reference("DEL", "b")
	for name := range files(t, dir) {
		if name == "10.0.0.2" || name == "10.0.0.3" {
			t.Errorf("%s is still reserved", name)
		}
	}
}

// TestProcesses: no address is given out twice.
func TestProcesses(t *testing.T) {
	conf := config(t.TempDir(), `[[{"subnet":"10.0.0.0/16"}]]`)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	given := make(map[string]int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), allocateEnv+"="+conf)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("%v: %s", err, stderr.String())
			}
			mu.Lock()
			defer mu.Unlock()
			for _, a := range strings.Fields(string(out)) {
				given[a]++
			}
		})
	}
	wg.Wait()
	if len(given) != 200 {
		t.Errorf("%d different addresses, want 200", len(given))
	}
}

func TestRequested(t *testing.T) {
	const ranges = `[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}]]`
	for _, tt := range []struct{ name, more, args, want, err string }{
		{name: "capability", more: `,"runtimeConfig":{"ips":["10.0.0.9/24"]}`, args: "IP=10.0.0.7", want: "10.0.0.9/24 fd00::2/64"},
		{name: "args", more: `,"args":{"cni":{"ips":["fd00::9"]}}`, args: "IP=10.0.0.7", want: "10.0.0.2/24 fd00::9/64"},
		{name: "CNI_ARGS", args: "IP=10.0.0.7", want: "10.0.0.7/24 fd00::2/64"},
		{name: "in no range", args: "IP=10.9.0.7", err: `IP of CNI_ARGS has "10.9.0.7": it is in none of the ranges`},
		{name: "the gateway", args: "IP=10.0.0.1", err: `IP of CNI_ARGS has "10.0.0.1": it is the gateway's`},
		{name: "garbage", args: "IP=ten", err: `IP of CNI_ARGS has "ten"`},
		{name: "ipRanges", more: `,"runtimeConfig":{"ipRanges":[[{"subnet":"10.5.0.0/24"}]]}`, want: "10.5.0.2/24 10.0.0.2/24 fd00::2/64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			req := request("c1", config(dir, ranges, tt.more))
			req.Args = tt.args
			res, err := hostlocal.Plugin{}.Add(t.Context(), req)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error = %v, want %q", err, tt.err)
				}
				wantNoReservation(t, dir)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(ips(res), " "); got != tt.want {
				t.Errorf("addresses %s, want %s", got, tt.want)
			}
		})
	}
}

func wantNoReservation(t testing.TB, dir string) {
	t.Helper()
	entries, _ := os.ReadDir(filepath.Join(dir, "blue"))
	for _, e := range entries {
		if net.ParseIP(e.Name()) != nil {
			t.Errorf("%s stays reserved", e.Name())
		}
	}
}

// TestAllOrNothing: a set that is exhausted takes nothing of the others.
func TestAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	conf := config(dir, `[[{"subnet":"10.0.0.0/24"}],[{"subnet":"10.1.0.0/30"}]]`)
	add(t, "c1", conf)
	_, err := hostlocal.Plugin{}.Add(t.Context(), request("c2", conf))
	var coded *types.Error
	if !errors.As(err, &coded) || !strings.Contains(err.Error(), "no address is free in 10.1.0.1-10.1.0.2") {
		t.Errorf("error = %v", err)
	}
	if got := files(t, dir); got["10.0.0.3"] != "" {
		t.Errorf("files: %q", got)
	}
	if err := (hostlocal.Plugin{}).Status(t.Context(), request("", conf)); !errors.As(err, &coded) || coded.Code != types.ErrPluginNotAvailable {
		t.Errorf("STATUS of an exhausted set: %v", err)
	}
	if err := (hostlocal.Plugin{}).Del(t.Context(), request("c1", conf)); err != nil {
		t.Fatal(err)
	}
	if err := (hostlocal.Plugin{}).Status(t.Context(), request("", conf)); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	add(t, "c2", conf)
}

func TestDuplicate(t *testing.T) {
	conf := config(t.TempDir(), `[[{"subnet":"10.0.0.0/24"}]]`)
	add(t, "c1", conf)
	if _, err := (hostlocal.Plugin{}).Add(t.Context(), request("c1", conf)); err == nil || !strings.Contains(err.Error(), "duplicate allocation") {
		t.Errorf("error = %v", err)
	}
}

// TestForeignFiles: what a crash of the reference, an old version of it, or somebody else left in the folder.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	blue := filepath.Join(dir, "blue")
	if err := os.MkdirAll(blue, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"10.0.0.2": "", "10.0.0.3": "old\n", "10.0.0.4": "c4\r\neth0\n", "junk": "c1\r\neth0", "last_reserved_ip.0": "nonsense",
	} {
		if err := os.WriteFile(filepath.Join(blue, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(secret, filepath.Join(blue, "10.0.0.5")); err != nil {
		t.Fatal(err)
	}
	conf := config(dir, `[[{"subnet":"10.0.0.0/29"}]]`)
	if got := add(t, "c1", conf); !slices.Equal(got, []string{"10.0.0.2/29"}) {
		t.Errorf("the empty file blocks its address: %q", got)
	}
	if got := add(t, "c2", conf); !slices.Equal(got, []string{"10.0.0.6/29"}) {
		t.Errorf("got %q, want the only address that is free", got)
	}
	for _, id := range []string{"old", "c4"} {
		if err := (hostlocal.Plugin{}).Del(t.Context(), request(id, conf)); err != nil {
			t.Error(err)
		}
	}
	left := files(t, dir)
	if left["10.0.0.3"] != "" || left["10.0.0.4"] != "" || left["junk"] == "" {
		t.Errorf("files: %q", left)
	}
}

func TestDelNeedsNoValidRanges(t *testing.T) {
	dir := t.TempDir()
	add(t, "c1", config(dir, `[[{"subnet":"10.0.0.0/24"}]]`))
	for range 2 {
		if err := (hostlocal.Plugin{}).Del(t.Context(), request("c1", config(dir, `[]`))); err != nil {
			t.Error(err)
		}
	}
	wantNoReservation(t, dir)
}

func TestBadConfig(t *testing.T) {
	for ranges, want := range map[string]string{
		`[]`:                           "ipam.ranges is missing",
		`[[]]`:                         "ipam.ranges[0] is empty",
		`[[{"subnet":"10.0.0.1/24"}]]`: `ipam.ranges[0][0].subnet is "10.0.0.1/24": it is an address within the subnet 10.0.0.0/24`,
		`[[{"subnet":"10.0.0.0/31"}]]`: "too small",
		`[[{"subnet":"fd00::/127"}]]`:  "too small",
		`[[{"subnet":"x"}]]`:           `"x"`,
		`[[{"subnet":"10.0.0.0/24","gateway":"10.2.0.1"}]]`:                          "ipam.ranges[0][0].gateway",
		`[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.1.1"}]]`:                       "rangeStart",
		`[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.3"}]]`: "after rangeEnd",
		`[[{"subnet":"10.0.0.0/24"},{"subnet":"fd00::/64"}]]`:                        "one IP family",
		`[[{"subnet":"10.0.0.0/16"}],[{"subnet":"10.0.9.0/24"}]]`:                    "overlap",
	} {
		_, err := hostlocal.Plugin{}.Add(t.Context(), request("c1", config(t.TempDir(), ranges)))
		var coded *types.Error
		if !errors.As(err, &coded) || coded.Code != types.ErrInvalidNetworkConfig || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error = %v, want code 7 and %q", ranges, err, want)
		}
	}
	escape := request("c1", `{"cniVersion":"1.1.0","name":"../../etc","ipam":{"ranges":[[{"subnet":"10.0.0.0/24"}]]}}`)
	if _, err := (hostlocal.Plugin{}).Add(t.Context(), escape); err == nil {
		t.Error("a network name that is a path was taken")
	}
}

func TestResolvConf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("# a comment\nnameserver 192.0.2.53\nsearch a.example b.example\noptions ndots:5\ndomain example\nnameserver\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conf := strings.Replace(config(t.TempDir(), `[[{"subnet":"10.0.0.0/24"}]]`), `"ranges"`, fmt.Sprintf(`"resolvConf":%q,"ranges"`, path), 1)
	res, err := hostlocal.Plugin{}.Add(t.Context(), request("c1", conf))
	if err != nil {
		t.Fatal(err)
	}
	want := types.DNS{Nameservers: []string{"192.0.2.53"}, Domain: "example", Search: []string{"a.example", "b.example"}, Options: []string{"ndots:5"}}
	if diff := cmp.Diff(want, res.DNS); diff != "" {
		t.Errorf("DNS (-want +got):\n%s", diff)
	}
}

func TestConformance(t *testing.T) {
	cnitest.Run(t, func(t *testing.T) *cnitest.Subject {
		dir := t.TempDir()
		return &cnitest.Subject{
			Plugin: hostlocal.Plugin{}, IPAM: true,
			Config: []byte(config(dir, `[[{"subnet":"10.0.0.0/16"}],[{"subnet":"fd00::/64"}]]`)),
			Leaked: func() error {
				var held []string
				for _, pattern := range []string{"blue/10.*", "blue/fd00*", "blue/.braid/reservation"} {
					found, err := filepath.Glob(filepath.Join(dir, pattern))
					if err != nil {
						return err
					}
					held = append(held, found...)
				}
				if len(held) > 0 {
					return fmt.Errorf("reserved: %q", held)
				}
				return nil
			},
		}
	})
}

func TestExamples(t *testing.T) {
	for name, example := range manpage.Examples(t, "README.md") {
		var m map[string]any
		if err := json.Unmarshal([]byte(example), &m); err != nil {
			t.Fatalf("%s %v", name, err)
		}
		m["ipam"].(map[string]any)["dataDir"] = t.TempDir()
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (hostlocal.Plugin{}).Add(t.Context(), request("c1", string(b))); err != nil {
			t.Errorf("%s %v", name, err)
		}
	}
}

// FuzzStore: whatever is in the folder, nothing panics, and what is reserved for somebody else stays so.
func FuzzStore(f *testing.F) {
	f.Add("c2\r\neth0", "10.0.0.2")
	f.Add("", "x")
	f.Fuzz(func(t *testing.T, content, cursor string) {
		dir := t.TempDir()
		if err := os.MkdirAll(filepath.Join(dir, "blue"), 0o755); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(dir, "blue", "10.0.0.2"), []byte(content), 0o600)
		os.WriteFile(filepath.Join(dir, "blue", "last_reserved_ip.0"), []byte(cursor), 0o600)
		conf := config(dir, `[[{"subnet":"10.0.0.0/29"}]]`)
		res, err := hostlocal.Plugin{}.Add(t.Context(), request("c1", conf))
		if err == nil && content != "" && ips(res)[0] == "10.0.0.2/29" {
			t.Errorf("gave out an address that %q has", content)
		}
	})
}

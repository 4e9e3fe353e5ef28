package hostlocal_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/ipam/hostlocal"
)

func TestConformance(t *testing.T) {
	cnitest.Run(t, func(t *testing.T) *cnitest.Subject {
		dir := t.TempDir()
		const ranges = `[[{"subnet":"10.0.0.0/16"}],[{"subnet":"fd00::/64"}]]`
		return &cnitest.Subject{
			Plugin: hostlocal.Plugin{}, IPAM: true,
			Config: []byte(config(dir, ranges)),
			Failing: map[string][]byte{
				"the second set has no address to give": []byte(config(dir, `[[{"subnet":"10.0.0.0/16"}],[{"subnet":"fd00::/64","rangeStart":"fd00::1","rangeEnd":"fd00::1"}]]`)),
			},
			Leaked: func() error {
				var held []string
				for _, pattern := range []string{"blue/10.*", "blue/fd00*"} {
					found, err := filepath.Glob(filepath.Join(dir, pattern))
					if err != nil {
						return err
					}
					held = append(held, found...)
				}
				if len(held) > 0 {
					return fmt.Errorf("reserved: %q", held)
				}
				next, err := os.ReadFile(filepath.Join(dir, "blue/.braid/reservation"))
				if left := strings.Trim(string(next), "\x00"); left != "" || err != nil && !errors.Is(err, fs.ErrNotExist) {
					return fmt.Errorf("the file for the next reservation has %q: %v", left, err)
				}
				return nil
			},
		}
	})
}

// TestRoundRobin starts at every place that the cursor can be at, as the reference's tests do.
func TestRoundRobin(t *testing.T) {
	const ranges = `[[{"subnet":"10.0.0.0/29","rangeStart":"10.0.0.2","rangeEnd":"10.0.0.4"},{"subnet":"10.0.1.0/29","gateway":"10.0.1.2","rangeEnd":"10.0.1.3"}]]`
	for cursor, want := range map[string]string{
		"":         "10.0.0.2/29 10.0.0.3/29 10.0.0.4/29 10.0.1.1/29 10.0.1.3/29",
		"10.0.0.2": "10.0.0.3/29 10.0.0.4/29 10.0.1.1/29 10.0.1.3/29 10.0.0.2/29",
		"10.0.0.4": "10.0.1.1/29 10.0.1.3/29 10.0.0.2/29 10.0.0.3/29 10.0.0.4/29",
		"10.0.1.1": "10.0.1.3/29 10.0.0.2/29 10.0.0.3/29 10.0.0.4/29 10.0.1.1/29",
		"10.0.1.3": "10.0.0.2/29 10.0.0.3/29 10.0.0.4/29 10.0.1.1/29 10.0.1.3/29",
		"10.0.9.9": "10.0.0.2/29 10.0.0.3/29 10.0.0.4/29 10.0.1.1/29 10.0.1.3/29",
	} {
		dir := t.TempDir()
		if cursor != "" {
			writeFile(t, filepath.Join(dir, "blue", "last_reserved_ip.0"), cursor)
		}
		var got []string
		for i := range 5 {
			got = append(got, add(t, fmt.Sprint("c", i), config(dir, ranges))...)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("after %q: %q, want %s", cursor, got, want)
		}
		_, err := hostlocal.Plugin{}.Add(t.Context(), request("more", config(dir, ranges)))
		wantError(t, err, types.ErrTryAgainLater, "no address is free in 10.0.0.2-10.0.0.4, 10.0.1.1-10.0.1.3 (ipam.ranges[0]): 5 used, 0 free; delete pods, or add a range")
	}
}

func TestWholeSubnet(t *testing.T) {
	for subnet, want := range map[string]int{"10.0.0.0/24": 253, "10.0.0.0/30": 1, "fd00::/120": 254, "fd00::/126": 2} {
		conf := config(t.TempDir(), fmt.Sprintf(`[[{"subnet":%q}]]`, subnet))
		n := 0
		for ; n < 300; n++ {
			res, err := hostlocal.Plugin{}.Add(t.Context(), request(fmt.Sprint("c", n), conf))
			if err != nil {
				break
			}
			if a := res.IPs[0].Address.IP.String(); a == "10.0.0.255" || a == "10.0.0.1" || a == "10.0.0.0" || a == "fd00::1" || a == "fd00::" {
				t.Errorf("%s: gave out %s", subnet, a)
			}
		}
		if n != want {
			t.Errorf("%s has %d addresses, want %d", subnet, n, want)
		}
	}
}

// TestGatewaysOfOtherRanges: a gateway is never given out, whichever range it is in.
func TestGatewaysOfOtherRanges(t *testing.T) {
	conf := config(t.TempDir(), `[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.2","rangeEnd":"10.0.0.3"}],[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.8","rangeEnd":"10.0.0.9","gateway":"10.0.0.2"}]]`)
	wantIPs(t, add(t, "c1", conf), "10.0.0.3/24", "10.0.0.8/24")
}

// TestLargeRange: the size of a range costs nothing.
func TestLargeRange(t *testing.T) {
	dir := t.TempDir()
	conf := config(dir, `[[{"subnet":"::/0","rangeStart":"fd00::","gateway":"fd00::"}],[{"subnet":"0.0.0.0/0","rangeStart":"10.0.0.0"}]]`)
	wantIPs(t, add(t, "c1", conf), "fd00::1/0", "10.0.0.0/0")
	wantIPs(t, add(t, "c2", conf), "fd00::2/0", "10.0.0.1/0")
	req := request("c3", conf)
	req.Args = "IP=ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
	if _, err := (hostlocal.Plugin{}).Add(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	wantIPs(t, add(t, "c4", conf), "fd00::3/0", "10.0.0.3/0")
	if err := (hostlocal.Plugin{}).Status(t.Context(), request("", conf)); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(filepath.Join(dir, "blue", ".braid", "index"))
	if err != nil || info.Size() > 1<<20 {
		t.Errorf("index: %v, %v", info, err)
	}
}

// TestAllOrNothing: a set that is exhausted takes nothing of the others, the place of their cursor included.
func TestAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	conf := config(dir, `[[{"subnet":"10.0.0.0/24"}],[{"subnet":"10.1.0.0/30"}]]`)
	add(t, "c1", conf)
	before := files(t, dir)
	_, err := hostlocal.Plugin{}.Add(t.Context(), request("c2", conf))
	wantError(t, err, types.ErrTryAgainLater, "no address is free in 10.1.0.1-10.1.0.2 (ipam.ranges[1]): 1 used, 0 free")
	if got := files(t, dir); fmt.Sprint(got) != fmt.Sprint(before) {
		t.Errorf("files: %q, before: %q", got, before)
	}
	wantError(t, (hostlocal.Plugin{}).Status(t.Context(), request("", conf)), types.ErrPluginNotAvailable, "10.1.0.1-10.1.0.2", "1 used, 0 free")
	del(t, "c1", conf)
	if err := (hostlocal.Plugin{}).Status(t.Context(), request("", conf)); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	add(t, "c2", conf)
}

func TestStatus(t *testing.T) {
	dir := t.TempDir()
	for conf, ok := range map[string]bool{
		config(dir, `[[{"subnet":"10.0.0.0/24"}]]`):            true,
		config(dir, `[]`, `,"capabilities":{"ipRanges":true}`): true, // they come with each ADD
		config(dir, `[]`): false,
		config(dir, `[[{"subnet":"10.0.0.0/33"}]]`):                         false,
		config(dir, `[[{"subnet":"10.0.0.0/24"}]]`, `,"capabilities":{}`):   true,
		config(dir, `[[{"subnet":"x"}]]`, `,"capabilities":{"ipRanges":1}`): false,
	} {
		if err := (hostlocal.Plugin{}).Status(t.Context(), request("", conf)); (err == nil) != ok {
			t.Errorf("%s: %v", conf, err)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("STATUS made %v", entries)
	}
}

func TestDuplicate(t *testing.T) {
	dir := t.TempDir()
	conf := config(dir, `[[{"subnet":"10.0.0.0/24"}]]`)
	add(t, "c1", conf)
	for _, args := range []string{"", "IP=10.0.0.2", "IP=10.0.0.9"} {
		req := request("c1", conf)
		req.Args = args
		_, err := hostlocal.Plugin{}.Add(t.Context(), req)
		wantError(t, err, 0, "eth0 of container c1 has the address 10.0.0.2 already: duplicate allocation is not allowed")
	}
	other := request("c1", conf)
	other.IfName = "net1"
	res, err := hostlocal.Plugin{}.Add(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	wantIPs(t, ips(res), "10.0.0.3/24")
	del(t, "c1", conf)
	if got := reserved(t, dir); len(got) != 1 || got["10.0.0.3"] != "c1\r\nnet1" {
		t.Errorf("reserved: %q", got)
	}
}

// TestForeignFiles: what a crash of the reference, an old version of it, or somebody else left in the folder.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	blue := filepath.Join(dir, "blue")
	for name, content := range map[string]string{
		"10.0.0.2": "", "10.0.0.3": "old\n", "10.0.0.4": "c4\r\neth0\n", "junk": "c1\r\neth0", "last_reserved_ip.0": "nonsense",
	} {
		writeFile(t, filepath.Join(blue, name), content)
	}
	secret := filepath.Join(dir, "secret")
	writeFile(t, secret, "")
	if err := os.Symlink(secret, filepath.Join(blue, "10.0.0.5")); err != nil {
		t.Fatal(err)
	}
	conf := config(dir, `[[{"subnet":"10.0.0.0/29"}]]`)
	wantIPs(t, add(t, "c1", conf), "10.0.0.2/29") // the empty file does not block its address
	wantIPs(t, add(t, "c2", conf), "10.0.0.6/29")
	for _, id := range []string{"old", "c4", "unknown"} {
		del(t, id, conf)
	}
	left := files(t, dir)
	if left["10.0.0.3"] != "" || left["10.0.0.4"] != "" || left["junk"] == "" {
		t.Errorf("files: %q", left)
	}
}

// TestDelNeedsLittle: name and dataDir are enough.
func TestDelNeedsLittle(t *testing.T) {
	for name, conf := range map[string]string{
		"no ranges":     `{"name":"blue","ipam":{"dataDir":"DIR"}}`,
		"bad ranges":    `{"name":"blue","ipam":{"dataDir":"DIR","ranges":[[{"subnet":"x"}]]}}`,
		"strange":       `{"name":"blue","ipam":{"dataDir":"DIR","ranges":7,"routes":"x"},"args":1,"runtimeConfig":[],"prevResult":"x"}`,
		"other ranges":  `{"name":"blue","ipam":{"dataDir":"DIR","subnet":"192.0.2.0/24"}}`,
		"old version":   `{"cniVersion":"0.1.0","name":"blue","ipam":{"dataDir":"DIR","ranges":[[{"subnet":"10.0.0.0/24"}],[{"subnet":"10.1.0.0/24"}]]}}`,
		"bad requested": `{"name":"blue","ipam":{"dataDir":"DIR","subnet":"10.0.0.0/24"},"runtimeConfig":{"ips":["x"]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			add(t, "c1", config(dir, `[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}]]`))
			for range 2 {
				del(t, "c1", strings.ReplaceAll(conf, "DIR", dir))
			}
			wantNoReservation(t, dir)
		})
	}
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, "")
	for _, conf := range []string{
		`{"name":"blue","ipam":{"dataDir":"/nowhere"}}`, `{"name":"blue","ipam":{"dataDir":"relative"}}`, `{"name":"blue","ipam":{"dataDir":"` + file + `"}}`,
		`{"name":"blue","ipam":7}`, `{"name":"blue"}`,
	} {
		if err := (hostlocal.Plugin{DataDir: t.TempDir()}).Del(t.Context(), request("c1", conf)); err != nil {
			t.Errorf("%s: %v", conf, err)
		}
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	const ranges = `[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}]]`
	add(t, "c1", config(dir, ranges))
	add(t, "c2", config(dir, ranges))
	// c3 has an address of the first set only.
	writeFile(t, filepath.Join(dir, "blue", "10.0.0.30"), "c3\r\neth0")
	const interfaces = `"interfaces":[{"name":"br0"},{"name":"eth0","sandbox":"/ns"},{"name":"net1","sandbox":"/ns"}]`
	for _, tt := range []struct{ name, id, ips, err string }{
		{name: "as ADD said", id: "c1", ips: `{"address":"10.0.0.2/24","interface":1},{"address":"fd00::2/64","interface":1}`},
		{name: "without interfaces", id: "c1", ips: `{"address":"10.0.0.2/24"},{"address":"fd00::2/64"}`},
		{name: "with addresses of others", id: "c1", ips: `{"address":"10.0.0.2/24","interface":1},{"address":"fd00::2/64","interface":1},{"address":"192.0.2.1/24","interface":1},{"address":"10.0.0.3/24","interface":2},{"address":"10.0.0.1/24","interface":0}`},
		{name: "address of another container", id: "c1", ips: `{"address":"10.0.0.3/24","interface":1},{"address":"fd00::2/64","interface":1}`, err: "address 10.0.0.3 is not reserved for eth0 of container c1"},
		{name: "one missing", id: "c1", ips: `{"address":"10.0.0.2/24","interface":1}`, err: "address fd00::2 is reserved for eth0 of container c1, but prevResult does not have it"},
		{name: "at another interface", id: "c1", ips: `{"address":"10.0.0.2/24","interface":2},{"address":"fd00::2/64","interface":1}`, err: "prevResult does not have it"},
		{name: "one set missing", id: "c3", ips: `{"address":"10.0.0.30/24"}`, err: "no address of fd00::1-fd00::ffff:ffff:ffff:ffff (ipam.ranges[1]) is reserved for eth0 of container c3"},
		{name: "nothing reserved", id: "c4", ips: `{"address":"10.0.0.40/24"},{"address":"fd00::40/64"}`, err: "address 10.0.0.40 is not reserved"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conf := config(dir, ranges, `,"prevResult":{"cniVersion":"1.1.0",`+interfaces+`,"ips":[`+tt.ips+`]}`)
			err := (hostlocal.Plugin{}).Check(t.Context(), request(tt.id, conf))
			if tt.err == "" && err != nil {
				t.Error(err)
			}
			if tt.err != "" {
				wantError(t, err, 0, tt.err)
			}
		})
	}
	wantError(t, (hostlocal.Plugin{}).Check(t.Context(), request("c1", config(dir, ranges))), types.ErrInvalidNetworkConfig, "prevResult is missing")
	nowhere := config(t.TempDir(), ranges, `,"prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/24"}]}`)
	wantError(t, (hostlocal.Plugin{}).Check(t.Context(), request("c1", nowhere)), 0, "address 10.0.0.2 is not reserved for eth0 of container c1")
}

// TestGC: "A plugin SHOULD remove as many stale resources as possible."
func TestGC(t *testing.T) {
	dir := t.TempDir()
	conf := config(dir, `[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}]]`)
	for _, id := range []string{"c1", "c2", "c3"} {
		add(t, id, conf)
	}
	for name, content := range map[string]string{"10.0.0.50": "c2", "10.0.0.51": "c9", "10.0.0.52": "c1\r\nnet1", "10.0.0.53": "not a pod's", "10.0.0.54": ""} {
		writeFile(t, filepath.Join(dir, "blue", name), content)
	}
	gc := func(valid string) error {
		// No valid range is needed.
		return (hostlocal.Plugin{}).GC(t.Context(), request("", config(dir, `[]`, valid)))
	}
	wantError(t, gc(``), types.ErrInvalidNetworkConfig, "cni.dev/valid-attachments")
	if got := len(reserved(t, dir)); got != 11 {
		t.Errorf("GC without a list left %d files", got)
	}
	if err := gc(`,"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"},{"containerID":"c2","ifname":"eth0"}]`); err != nil {
		t.Fatal(err)
	}
	var left []string
	for name := range reserved(t, dir) {
		left = append(left, name)
	}
	slices.Sort(left)
	if want := []string{"10.0.0.2", "10.0.0.3", "10.0.0.50", "10.0.0.53", "fd00::2", "fd00::3"}; !slices.Equal(left, want) {
		t.Errorf("left: %q, want %q", left, want)
	}
	if err := (hostlocal.Plugin{DataDir: "/nowhere"}).GC(t.Context(), request("", `{"name":"blue","cni.dev/valid-attachments":[]}`)); err != nil {
		t.Errorf("GC of a network that was never used: %v", err)
	}
}

// TestSticky: a pod gets its addresses back while nobody else has them.
func TestSticky(t *testing.T) {
	dir := t.TempDir()
	conf := config(dir, `[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}]],"sticky":true`)
	pod := func(id, name string) []string {
		t.Helper()
		req := request(id, conf)
		req.Args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=db;K8S_POD_NAME=" + name
		res, err := hostlocal.Plugin{}.Add(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return ips(res)
	}
	wantIPs(t, pod("c1", "pg-0"), "10.0.0.2/24", "fd00::2/64")
	wantIPs(t, pod("c2", "pg-1"), "10.0.0.3/24", "fd00::3/64")
	del(t, "c1", conf)
	wantIPs(t, add(t, "c3", conf), "10.0.0.4/24", "fd00::4/64") // no pod
	wantIPs(t, pod("c4", "pg-0"), "10.0.0.2/24", "fd00::2/64")
	if got := files(t, dir)["last_reserved_ip.0"]; got != "10.0.0.4" {
		t.Errorf("the cursor went back to %q", got)
	}

	// Somebody else asks for one of its addresses while it is away.
	del(t, "c4", conf)
	thief := request("c5", conf)
	thief.Args = "IP=10.0.0.2"
	if _, err := (hostlocal.Plugin{}).Add(t.Context(), thief); err != nil {
		t.Fatal(err)
	}
	wantIPs(t, pod("c6", "pg-0"), "10.0.0.5/24", "fd00::2/64")

	// Other interfaces of the pod, and other ranges, are another matter.
	other := request("c7", conf)
	other.IfName, other.Args = "net1", "K8S_POD_NAMESPACE=db;K8S_POD_NAME=pg-0"
	if _, err := (hostlocal.Plugin{}).Add(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	del(t, "c6", conf)
	conf = config(dir, `[[{"subnet":"10.9.0.0/24"}]],"sticky":true`)
	wantIPs(t, pod("c8", "pg-0"), "10.9.0.2/24")
}

// TestReboot: no container survives one.
func TestReboot(t *testing.T) {
	dir, boot := t.TempDir(), filepath.Join(t.TempDir(), "boot_id")
	p := hostlocal.Plugin{DataDir: dir, BootID: boot}
	conf := `{"cniVersion":"1.1.0","name":"blue","ipam":{"subnet":"10.0.0.0/29"}}`
	writeFile(t, boot, "one\n")
	for i := range 5 {
		if _, err := p.Add(t.Context(), request(fmt.Sprint("c", i), conf)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := p.Add(t.Context(), request("c6", conf))
	wantError(t, err, types.ErrTryAgainLater, "5 used")
	writeFile(t, boot, "two\n")
	if err := p.Status(t.Context(), request("", conf)); err != nil {
		t.Error(err)
	}
	wantNoReservation(t, dir)
	res, err := p.Add(t.Context(), request("c6", conf))
	if err != nil {
		t.Fatal(err)
	}
	if got := reserved(t, dir); len(got) != 1 {
		t.Errorf("%v: reserved: %q", ips(res), got)
	}
}

// TestLock: an ADD waits for others as long as it may, and says why it failed.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	conf := config(dir, `[[{"subnet":"10.0.0.0/24"}]]`)
	add(t, "c1", conf)
	lock, err := os.Open(filepath.Join(dir, "blue", "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	for name, verb := range map[string]func(ctx context.Context, req *cni.Request) error{
		"ADD": func(ctx context.Context, req *cni.Request) error {
			_, err := hostlocal.Plugin{}.Add(ctx, req)
			return err
		},
		"DEL":    hostlocal.Plugin{}.Del,
		"STATUS": hostlocal.Plugin{}.Status,
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errors.New("out of time"))
		t.Run(name, func(t *testing.T) {
			wantError(t, verb(ctx, request("c2", conf)), types.ErrTryAgainLater, filepath.Join(dir, "blue", "lock"), "out of time")
		})
	}
}

// TestParallel: requests of one process exclude each other as processes do.
func TestParallel(t *testing.T) {
	conf := config(t.TempDir(), `[[{"subnet":"10.0.0.0/24"}],[{"subnet":"fd00::/64"}]]`)
	given := make(chan string, 200)
	for i := range 50 {
		go func() {
			res, err := hostlocal.Plugin{}.Add(context.Background(), request(fmt.Sprint("c", i), conf))
			if err != nil {
				given <- err.Error()
				return
			}
			given <- strings.Join(ips(res), " ")
		}()
	}
	seen := map[string]bool{}
	for range 50 {
		s := <-given
		if seen[s] || !strings.HasPrefix(s, "10.") {
			t.Errorf("%s", s)
		}
		seen[s] = true
	}
}

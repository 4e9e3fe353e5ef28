package hostlocal_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/ipam/hostlocal"
)

// Environment of this test binary when it is one of several processes that use a folder: what it shall do, how often,
// and with which configuration. The first part of the container ids is the process's own.
const (
	doEnv     = "BRAID_TEST_DO"
	timesEnv  = "BRAID_TEST_TIMES"
	configEnv = "BRAID_TEST_CONFIG"
)

func TestMain(m *testing.M) {
	if do := os.Getenv(doEnv); do != "" {
		if err := process(do); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(nettest.Main(m))
}

// process allocates ("add"), or allocates and releases until it is killed ("churn"), and prints each address.
func process(do string) error {
	var times int
	if _, err := fmt.Sscan(os.Getenv(timesEnv), &times); err != nil {
		return err
	}
	if os.Getpid()%2 == 0 { // some of them stay, as it were
		defer hostlocal.Keep()()
	}
	for i := range times {
		req := request(fmt.Sprintf("c%d-%d", os.Getpid(), i), os.Getenv(configEnv))
		res, err := hostlocal.Plugin{}.Add(context.Background(), req)
		if err != nil {
			return err
		}
		fmt.Println(req.ContainerID, res.IPs[0].Address.IP)
		if do == "churn" && i%4 != 0 {
			if err := (hostlocal.Plugin{}).Del(context.Background(), req); err != nil {
				return err
			}
		}
	}
	return nil
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

func del(t testing.TB, id, config string) {
	t.Helper()
	if err := (hostlocal.Plugin{}).Del(t.Context(), request(id, config)); err != nil {
		t.Fatal(err)
	}
}

func ips(res *types100.Result) (list []string) {
	for _, ip := range res.IPs {
		list = append(list, ip.Address.String())
	}
	return list
}

func wantIPs(t testing.TB, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("addresses %q, want %q", got, want)
	}
}

// files returns the folder of a network, without what the reference does not have: content by name.
func files(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := make(map[string]string)
	entries, err := os.ReadDir(filepath.Join(dir, "blue"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, "blue", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		found[e.Name()] = string(b)
	}
	return found
}

// reserved returns the addresses that have a file, and what is in it.
func reserved(t testing.TB, dir string) map[string]string {
	t.Helper()
	found := files(t, dir)
	for name := range found {
		if net.ParseIP(name) == nil {
			delete(found, name)
		}
	}
	return found
}

func wantNoReservation(t testing.TB, dir string) {
	t.Helper()
	for name, content := range reserved(t, dir) {
		t.Errorf("%s stays reserved: %q", name, content)
	}
}

func writeFile(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// wantError fails the test unless the error has the code, 0 meaning none, and says all of what is wanted.
func wantError(t testing.TB, err error, code uint, want ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want code %d and %q", code, want)
		return
	}
	var got uint
	if coded, ok := errors.AsType[*types.Error](err); ok {
		got = coded.Code
	}
	if got != code {
		t.Errorf("error %v has the code %d, want %d", err, got, code)
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error = %v, want %q", err, w)
		}
	}
}

// TestRecorded: an address is reserved when the record by which it will be released is safe, and not before.
func TestRecorded(t *testing.T) {
	conf := config(t.TempDir(), `[[{"subnet":"10.1.2.0/24"}]]`)
	lost := errors.New("the disk is broken")
	_, err := hostlocal.Plugin{}.Add(cni.WithRecord(t.Context(), func() error { return lost }), request("c1", conf))
	if !errors.Is(err, lost) {
		t.Errorf("without a record that is safe: %v", err)
	}
	waited := false
	res, err := hostlocal.Plugin{}.Add(cni.WithRecord(t.Context(), func() error { waited = true; return nil }), request("c1", conf))
	if err != nil || !waited || ips(res)[0] != "10.1.2.2/24" {
		t.Errorf("found %v, %v; the record was waited for: %v", res, err, waited)
	}
}

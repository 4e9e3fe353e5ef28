package hostlocal

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestPools(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "data", "lan")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"10.1.0.2", "10.1.0.3", "10.2.0.9", "2001:db8::7", // reserved
		"10.1.0.1", "10.3.0.1", "2001:DB8::8", "lock", "last_reserved_ip.0", // a gateway; of no range; another spelling; no addresses
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("c1\r\neth0"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	config := func(ipam string) []byte {
		return fmt.Appendf(nil, `{"cniVersion": "1.1.0", "name": "lan", "type": "bridge", "ipam": {"type": "host-local", "dataDir": "/data", %s}}`, ipam)
	}
	for _, c := range []struct {
		ipam string
		want []Pool
	}{
		{`"subnet": "10.1.0.0/24"`, []Pool{{253, 2}}},
		{`"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "10.2.0.0/24", "rangeStart": "10.2.0.8", "rangeEnd": "10.2.0.15"}], [{"subnet": "2001:db8::/64"}]]`,
			[]Pool{{253 + 8, 3}, {1<<64 - 2, 1}}},
		{`"ranges": [[{"subnet": "2001:db8::/32", "rangeStart": "2001:db8:0:1:ffff:ffff:ffff:fff0", "rangeEnd": "2001:db8:0:2::f"}]]`, []Pool{{32, 0}}},
	} {
		got, err := Plugin{}.Pools(config(c.ipam), dir)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v", c.ipam, got, err, c.want)
		}
	}
	if _, err := (Plugin{}).Pools(config(`"subnet": "10.1.0.1/24"`), dir); err == nil {
		t.Error("a configuration that is not valid has pools")
	}
	absent, err := Plugin{}.Pools([]byte(`{"cniVersion": "1.1.0", "name": "absent", "ipam": {"subnet": "10.1.0.0/24"}}`), dir)
	if err != nil || !slices.Equal(absent, []Pool{{253, 0}}) {
		t.Errorf("a network that no pod has been in: %v, %v", absent, err)
	}
}

func TestFindSpan(t *testing.T) {
	spans := []poolSpan{
		{span{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.0.9")}, 1},
		{span{netip.MustParseAddr("10.0.1.0"), netip.MustParseAddr("10.0.1.0")}, 0},
	}
	for addr, want := range map[string]int{"10.0.0.4": -1, "10.0.0.5": 1, "10.0.0.9": 1, "10.0.0.10": -1, "10.0.1.0": 0, "10.0.1.1": -1, "::1": -1} {
		pool, ok := findSpan(spans, netip.MustParseAddr(addr))
		if !ok {
			pool = -1
		}
		if pool != want {
			t.Errorf("%s is in pool %d, want %d", addr, pool, want)
		}
	}
}

package hostlocal_test

import (
	"context"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/ipam/hostlocal"
)

func TestAvoid(t *testing.T) {
	dir := t.TempDir()
	pool := `[[{"subnet": "10.1.0.0/29"}]]` // .2 to .6
	avoid := func(addrs string) string { return `, "args": {"braid-cni.io/avoid": [` + addrs + `]}` }
	wantIPs(t, add(t, "a", config(dir, pool, avoid(`"10.1.0.2", "10.1.0.3", "2001:db8::1"`))), "10.1.0.4/29")
	wantIPs(t, add(t, "b", config(dir, pool)), "10.1.0.5/29")
	_, err := hostlocal.Plugin{}.Add(context.Background(), request("c", config(dir, pool, avoid(`"10.1.0.2", "10.1.0.3", "10.1.0.6"`))))
	wantError(t, err, types.ErrTryAgainLater, "no address is free")
	_, err = hostlocal.Plugin{}.Add(context.Background(), request("c", config(dir, pool, avoid(`"nonsense"`))))
	if err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("what is no address is accepted: %v", err)
	}
}

func TestAvoidWhatIsRemembered(t *testing.T) {
	dir := t.TempDir()
	sticky := `{"cniVersion": "1.1.0", "name": "blue", "type": "x", "ipam": {"type": "host-local", "dataDir": "` + dir + `",
		"sticky": true, "ranges": [[{"subnet": "10.1.0.0/29"}]]}`
	ask := func(end string) (got []string) {
		req := request("a", sticky+end)
		req.Args = "K8S_POD_NAMESPACE=default;K8S_POD_NAME=db-0"
		res, err := hostlocal.Plugin{}.Add(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		del(t, "a", sticky+"}")
		return ips(res)
	}
	wantIPs(t, ask("}"), "10.1.0.2/29")
	wantIPs(t, ask("}"), "10.1.0.2/29")
	wantIPs(t, ask(`, "args": {"braid-cni.io/avoid": ["10.1.0.2"]}}`), "10.1.0.3/29")
	wantIPs(t, ask("}"), "10.1.0.3/29")
}

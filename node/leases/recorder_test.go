package leases

import (
	"encoding/json"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/ipam/dhcp/keeper"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
	"github.com/braid-cni/braid/journal"
)

// TestRecorder: the journal has the lease that a server changed, and nothing else of the attachment is touched.
func TestRecorder(t *testing.T) {
	j, err := journal.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	network, err := conf.ParseNetwork([]byte(`{"cniVersion":"1.1.0","type":"macvlan","ipam":{"type":"dhcp"}}`), "lan")
	if err != nil {
		t.Fatal(err)
	}
	var res types100.Result
	if err := json.Unmarshal([]byte(`{"cniVersion":"1.1.0","interfaces":[{"name":"veth1"},{"name":"net1","sandbox":"/n"}],
		"ips":[{"interface":1,"address":"192.0.2.10/24","gateway":"192.0.2.1"},{"interface":1,"address":"2001:db8::10/64"}],
		"routes":[{"dst":"198.51.100.0/24","gw":"192.0.2.1"},{"dst":"2001:db8:1::/48"}]}`), &res); err != nil {
		t.Fatal(err)
	}
	if err := j.Put(&journal.Record{
		Network: "pods", ContainerID: "c1", IfName: "eth0", Netns: "/n", Done: true,
		Attachments: []journal.Attachment{{Name: "lan", IfName: "net1", Network: network, Result: &res}},
	}); err != nil {
		t.Fatal(err)
	}
	key := lease.Key{ContainerID: "c1", Network: "lan", IfName: "net1"}
	change := func(address string) keeper.Change {
		return keeper.Change{
			Spec: lease.Spec{Key: key, IPv4: true},
			Held: lease.Held{IPv4: &lease.Lease{Address: netip.MustParsePrefix(address), Gateway: netip.MustParseAddr("192.0.2.1")}},
		}
	}
	unlock, err := j.Lock(t.Context(), "c1") // an ADD or DEL of the container is under way
	if err != nil {
		t.Fatal(err)
	}
	r := NewRecorder(j, slog.New(slog.NewTextHandler(t.Output(), nil)))
	for _, address := range []string{"192.0.2.11/24", "192.0.2.12/24"} {
		r.Changed(change(address)) // does not wait
	}
	unlock()
	var got string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		record, err := j.Get("c1", "eth0")
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(record.Attachments[0].Result)
		if err != nil {
			t.Fatal(err)
		}
		if got = string(b); strings.Contains(got, "192.0.2.12/24") {
			break
		}
	}
	for _, want := range []string{`{"address":"2001:db8::10/64","interface":1}`, `{"address":"192.0.2.12/24","gateway":"192.0.2.1","interface":1}`, `"dst":"2001:db8:1::/48"`} {
		if !strings.Contains(got, want) {
			t.Errorf("the record lacks %s: %s", want, got)
		}
	}
	for _, gone := range []string{"192.0.2.10", "192.0.2.11", "198.51.100.0", "0.0.0.0/0"} {
		if strings.Contains(got, gone) {
			t.Errorf("the record has %s: %s", gone, got)
		}
	}
	other := change("192.0.2.13/24")
	other.Spec.Key.ContainerID = "c2"
	r.Changed(other) // an attachment of another runtime: no record, and no complaint
	for idle := false; !idle; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		idle = len(r.latest) == 0
		r.mu.Unlock()
	}
	if unlock, err = j.LockAll(t.Context()); err != nil { // nobody writes any more
		t.Fatal(err)
	}
	unlock()
}

package delegate

import (
	"encoding/json"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/cni"
)

func result(t testing.TB, doc string) *types100.Result {
	t.Helper()
	res := new(types100.Result)
	if err := json.Unmarshal([]byte(doc), res); err != nil {
		t.Fatal(err)
	}
	return res
}

func document(t testing.TB, res *types100.Result) any {
	t.Helper()
	b, err := json.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

var at = cni.Attachment{ContainerID: "c1", Netns: "/run/netns/pod", IfName: "net1"}

func TestNormalize(t *testing.T) {
	for _, tt := range []struct{ name, in, want, err string }{
		{
			name: "a result of CNI 0.2.0 has no interfaces",
			in:   `{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.2/24"}]}`,
			want: `{"cniVersion":"1.1.0","interfaces":[{"name":"net1","mac":"02:00:00:00:00:01","sandbox":"/run/netns/pod"}],"ips":[{"interface":0,"address":"10.0.0.2/24"}],"dns":{}}`,
		}, {
			name: "an address without index, and one with a negative index, are the pod's; the kernel knows MAC and MTU",
			in:   `{"cniVersion":"1.1.0","interfaces":[{"name":"br0"},{"name":"net1","mtu":1500,"sandbox":"/run/netns/pod"}],"ips":[{"address":"10.0.0.2/24"},{"interface":-1,"address":"fd00::2/64"}]}`,
			want: `{"cniVersion":"1.1.0","interfaces":[{"name":"br0"},{"name":"net1","mac":"02:00:00:00:00:01","mtu":1400,"sandbox":"/run/netns/pod"}],"ips":[{"interface":1,"address":"10.0.0.2/24"},{"interface":1,"address":"fd00::2/64"}],"dns":{}}`,
		}, {
			name: "an index beyond the list is an error",
			in:   `{"cniVersion":"1.1.0","interfaces":[{"name":"net1","sandbox":"/run/netns/pod"}],"ips":[{"interface":1,"address":"10.0.0.2/24"}]}`,
			err:  "result is invalid: ips[0].interface is 1, but it lists 1 interfaces",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := result(t, tt.in)
			before := document(t, in)
			got, err := normalize(in, at, &types100.Interface{Name: "net1", Mac: "02:00:00:00:00:01", Mtu: 1400})
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Fatalf("error = %v, want %s", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(document(t, result(t, tt.want)), document(t, got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, document(t, in)); diff != "" {
				t.Errorf("the argument was changed:\n%s", diff)
			}
		})
	}
}

func TestMerge(t *testing.T) {
	cluster := result(t, `{"cniVersion":"1.1.0",
		"interfaces":[{"name":"br0"},{"name":"veth1"},{"name":"eth0","sandbox":"/n"}],
		"ips":[{"interface":2,"address":"10.0.0.2/24","gateway":"10.0.0.1"}],
		"routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1"}],"dns":{"nameservers":["10.0.0.53"]}}`)
	second := result(t, `{"cniVersion":"1.1.0",
		"interfaces":[{"name":"br0"},{"name":"veth2"},{"name":"net1","sandbox":"/n"}],
		"ips":[{"interface":2,"address":"10.0.0.3/24"}],
		"routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1"},{"dst":"10.9.0.0/16"}],"dns":{"nameservers":["192.0.2.1"]}}`)
	third := result(t, `{"cniVersion":"1.1.0",
		"interfaces":[{"name":"eth0"},{"name":"net2","sandbox":"/n"}],
		"ips":[{"interface":1,"address":"fd00::3/64"}]}`)
	want := result(t, `{"cniVersion":"1.1.0",
		"interfaces":[{"name":"br0"},{"name":"veth1"},{"name":"eth0","sandbox":"/n"},{"name":"veth2"},{"name":"net1","sandbox":"/n"},{"name":"net2","sandbox":"/n"}],
		"ips":[{"interface":2,"address":"10.0.0.2/24","gateway":"10.0.0.1"},{"interface":4,"address":"10.0.0.3/24"},{"interface":5,"address":"fd00::3/64"}],
		"routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1"},{"dst":"10.9.0.0/16"}],"dns":{"nameservers":["10.0.0.53"]}}`)
	got := merge([]*types100.Result{cluster, second, third})
	if diff := cmp.Diff(document(t, want), document(t, got)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// FuzzMerge holds what any results must become: every address has an interface of the list, and that interface is the
// one it had.
func FuzzMerge(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.1.0","interfaces":[{"name":"br0"},{"name":"eth0","sandbox":"/n"}],"ips":[{"interface":1,"address":"10.0.0.2/24"}]}`), []byte(`{"ips":[{"address":"fd00::1/64"}]}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var results []*types100.Result
		for _, doc := range [][]byte{a, b} {
			config, err := json.Marshal(map[string]any{"cniVersion": "1.1.0", "prevResult": json.RawMessage(doc)})
			if err != nil {
				return
			}
			res, err := cni.PrevResult(config)
			if err != nil || res == nil {
				return
			}
			if res, err = normalize(res, at, nil); err != nil {
				return
			}
			results = append(results, res)
		}
		merged := merge(results)
		var want []string
		for _, res := range results {
			for _, ip := range res.IPs {
				want = append(want, res.Interfaces[*ip.Interface].Name+" "+ip.Address.String())
			}
		}
		var got []string
		for _, ip := range merged.IPs {
			got = append(got, merged.Interfaces[*ip.Interface].Name+" "+ip.Address.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

package dhcp

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
)

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct{ ipam, want string }{
		{`"daemonSocketPath": "run/x"`, `ipam.daemonSocketPath: found "run/x"`},
		{`"daemonSocketPath": "/run/../etc/x"`, `ipam.daemonSocketPath: found "/run/../etc/x"`},
		{`"daemonSocketPath": "/` + strings.Repeat("x", 107) + `"`, `at most 107 bytes`},
		{`"daemonSocketPath": 7`, `ipam.daemonSocketPath: found number, want string`},
		{`"ipv6": "dhcp"`, `ipam.ipv6: found "dhcp", want "stateful", "slaac"`},
		{`"ipv6": true`, `ipam.ipv6: found bool`},
		{`"ipv4": "yes"`, `ipam.ipv4: found string`},
		{`"ipv4": false`, `ipam.ipv4: found false`},
		{`"priority": -1`, `ipam.priority: found -1`},
		{`"provide": {}`, `ipam.provide: found object`},
		{`"provide": [{"option": "hostname", "value": "x"}]`, `ipam.provide[0].option: found "hostname", want a number from 1 to 254, or one of [dhcp-client-identifier host-name`},
		{`"provide": [{"option": "12", "value": "x"}, {"option": "53", "value": "x"}]`, `ipam.provide[1].option: found "53"; this option the client sets itself`},
		{`"provide": [{"option": "256", "value": "x"}]`, `ipam.provide[0].option: found "256"`},
		{`"provide": [{"option": "255", "value": "x"}]`, `ipam.provide[0].option: found "255"`},
		{`"provide": [{"option": "12", "value": "` + strings.Repeat("x", 256) + `"}]`, `ipam.provide[0].value: found 256 bytes`},
		{`"provide": [{"option": "12", "fromArg": "LONG"}]`, `ipam.provide[0].fromArg: found 300 bytes`},
		{`"provide": [` + strings.TrimSuffix(strings.Repeat(`{"option": "12", "value": "`+strings.Repeat("x", 255)+`"},`, 3), ",") + `]`, `ipam.provide[2].value: found 255 bytes; an option has at most 255, all together at most 700`},
		{`"request": [{"option": "x"}]`, `ipam.request[0].option: found "x"`},
	} {
		req := &cni.Request{
			Attachment: cni.Attachment{ContainerID: "c", IfName: "net1", Netns: "/none", Args: "LONG=" + strings.Repeat("x", 300)},
			Config:     []byte(`{"cniVersion": "1.1.0", "name": "lan", "ipam": {"type": "dhcp", ` + c.ipam + `}}`),
		}
		_, err := Plugin{}.Add(context.Background(), req)
		var coded *types.Error
		if !errors.As(err, &coded) || coded.Code != types.ErrInvalidNetworkConfig || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s\ngives %v\n want %s", c.ipam, err, c.want)
		}
	}
	if _, err := parse([]byte("{")); !isCode(err, types.ErrDecodingFailure) {
		t.Errorf("no JSON: %v", err)
	}
}

func isCode(err error, code uint) bool {
	var e *types.Error
	return errors.As(err, &e) && e.Code == code
}

func TestSpec(t *testing.T) {
	doc := `{"name": "lan", "mtu": 1400, "ipam": {"type": "dhcp", "ipv6": "stateful", "priority": 5, "probe": true, "unknown": {},
		"provide": [{"option": "host-name", "value": "a", "fromArg": "POD"}, {"option": "60", "value": "v", "fromArg": "NONE"}, {"option": "61"}],
		"request": [{"option": "42"}, {"skipDefault": true}, {"option": "routers"}, {"option": "42"}]}}`
	c, err := parse([]byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	got, err := c.spec(&cni.Request{Attachment: cni.Attachment{ContainerID: "c", IfName: "net1", Netns: "/ns", Args: "POD=b"}})
	if err != nil {
		t.Fatal(err)
	}
	want := &lease.Spec{
		Key:   lease.Key{ContainerID: "c", Network: "lan", IfName: "net1"},
		Netns: "/ns", IPv4: true, IPv6: true, Priority: 5, KeepMTU: true, Probe: true,
		Provide: []lease.Option{{Code: 12, Value: []byte("b")}, {Code: 60, Value: []byte("v")}},
		Request: []uint8{42, 3},
	}
	if !got.Equal(want) || got.Netns != want.Netns {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if err := got.Validate(); err != nil {
		t.Errorf("the keeper refuses it: %v", err)
	}
	c, err = parse([]byte(`{"name": "lan", "ipam": {"type": "dhcp"}}`))
	if err != nil {
		t.Fatal(err)
	}
	if codes, err := c.request(); err != nil || !slices.Equal(codes, defaultRequest) || c.IPAM.Socket != lease.DefaultSocket {
		t.Errorf("by default %v is requested of %s, %v", codes, c.IPAM.Socket, err)
	}
}

func TestIdentifier(t *testing.T) {
	long := lease.Key{ContainerID: strings.Repeat("c", 250), Network: "n", IfName: "net1"}
	if got := long.Identifier(); len(got) != 254 || !strings.HasSuffix(got, "c/n/n") {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}

// A DEL finds the keeper and the lease, whatever else is wrong.
func TestAddressee(t *testing.T) {
	for doc, want := range map[string][2]string{
		`{"name": "lan", "ipam": {"daemonSocketPath": "/x"}}`: {"lan", "/x"},
		`{"name": "lan", "ipam": {"daemonSocketPath": 7}}`:    {"lan", lease.DefaultSocket},
		`{"name": "lan", "ipam": 7}`:                          {"lan", lease.DefaultSocket},
		`{"name": 7}`:                                         {"", lease.DefaultSocket},
		`{`:                                                   {"", lease.DefaultSocket},
	} {
		if network, socket := addressee([]byte(doc)); network != want[0] || socket != want[1] {
			t.Errorf("%s: %q, %q", doc, network, socket)
		}
	}
}

// FuzzConfig: whatever a tenant asks for, what goes to the keeper is what the keeper takes.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"name": "lan", "ipam": {"ipv6": "stateful", "provide": [{"option": "host-name", "fromArg": "A"}], "request": [{"option": "42"}, {"skipDefault": true}]}}`), "A=b")
	f.Add([]byte(`{"name": "lan", "ipam": {"daemonSocketPath": "/run/../x", "priority": -1, "provide": [{"option": "255"}, {"option": "61", "value": "\u0000"}]}}`), "")
	f.Fuzz(func(t *testing.T, doc []byte, args string) {
		c, err := parse(doc)
		if err != nil {
			return
		}
		spec, err := c.spec(&cni.Request{Attachment: cni.Attachment{ContainerID: "c", IfName: "net1", Netns: "/n", Args: args}})
		if err != nil || c.Name == "" || len(c.Name) > 253 { // which the delegator and Main refuse
			return
		}
		if err := spec.Validate(); err != nil && c.leased() {
			t.Errorf("%s gives %+v: %v", doc, spec, err)
		}
	})
}

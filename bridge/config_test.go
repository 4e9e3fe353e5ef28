package bridge

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
)

func document(keys string) []byte {
	return []byte(`{"cniVersion": "1.1.0", "name": "blue", "type": "bridge", ` + keys + `}`)
}

func TestComplaintsNameKeyValueAndRemedy(t *testing.T) {
	const vlan = "want 1 to 4094"
	for _, tt := range []struct{ keys, want string }{
		{`"bridge": "a/b"`, `bridge: found "a/b", want the name of an interface`},
		{`"bridge": "sixteencharacter"`, `bridge: found "sixteencharacter", want the name of an interface`},
		{`"bridge": "br%d"`, `bridge: found "br%d", want the name of an interface: the kernel takes a % for a pattern`},
		{`"bridge": "elevenchars", "vlan": 4000, "isGateway": true`, `want a shorter name: the gateway of the VLAN is to be called "elevenchars.4000"`},
		{`"bridge": 7`, "bridge: found number, want string"},
		{`"mtu": -1`, "mtu: found -1, want 68 to 65535, or 0"},
		{`"mtu": 67`, "mtu: found 67"},
		{`"mtu": 65536`, "mtu: found 65536"},
		{`"mtu": "1400"`, "mtu: found string, want int"},
		{`"hairpinMode": true, "promiscMode": true`, "hairpinMode: found true, and promiscMode is true as well"},
		{`"disableContainerInterface": true, "ipam": {"type": "static"}`, `disableContainerInterface: found true, and ipam.type is "static"`},
		{`"ipMasqBackend": "ebtables"`, `ipMasqBackend: found "ebtables", want "nftables" or "iptables"`},
		{`"vlan": -1`, "vlan: found -1, " + vlan},
		{`"vlan": 4095`, "vlan: found 4095, " + vlan},
		{`"vlanTrunk": {"id": 1}`, "vlanTrunk: found object, want []"},
		{`"vlanTrunk": [{}]`, `vlanTrunk[0]: found nothing, want "id", or "minID" and "maxID"`},
		{`"vlanTrunk": [{"id": 5}, {"id": 0}]`, "vlanTrunk[1]: found id 0, " + vlan},
		{`"vlanTrunk": [{"id": -1}]`, "vlanTrunk[0]: found id -1, " + vlan},
		{`"vlanTrunk": [{"id": 4095}]`, "vlanTrunk[0]: found id 4095, " + vlan},
		{`"vlanTrunk": [{"minID": 1}]`, `vlanTrunk[0]: found one of "minID" and "maxID", want both`},
		{`"vlanTrunk": [{"maxID": 1}]`, `vlanTrunk[0]: found one of "minID" and "maxID", want both`},
		{`"vlanTrunk": [{"minID": 0, "maxID": 5}]`, "vlanTrunk[0]: found minID 0, " + vlan},
		{`"vlanTrunk": [{"minID": -5, "maxID": 5}]`, "vlanTrunk[0]: found minID -5, " + vlan},
		{`"vlanTrunk": [{"minID": 1, "maxID": 4095}]`, "vlanTrunk[0]: found maxID 4095, " + vlan},
		{`"vlanTrunk": [{"minID": 1, "maxID": 0}]`, "vlanTrunk[0]: found maxID 0, " + vlan},
		{`"vlanTrunk": [{"minID": 4095, "maxID": 4095}]`, "vlanTrunk[0]: found minID 4095, " + vlan},
		{`"vlanTrunk": [{"minID": 6, "maxID": 5}]`, "vlanTrunk[0]: found minID 6 and maxID 5, want the lower one first"},
		{`"vlanTrunk": [{"id": 5, "maxID": 5}]`, `vlanTrunk[0]: found one of "minID" and "maxID", want both`},
	} {
		_, err := parse(document(tt.keys))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", tt.keys, err, tt.want)
			continue
		}
		var coded *types.Error
		if !errors.As(err, &coded) || coded.Code != types.ErrInvalidNetworkConfig {
			t.Errorf("%s: the error has code %v, want %d", tt.keys, coded, types.ErrInvalidNetworkConfig)
		}
	}
}

func TestAllComplaintsAtOnce(t *testing.T) {
	_, err := parse(document(`"mtu": 1, "vlan": 5000`))
	for _, want := range []string{"mtu: found 1", "vlan: found 5000"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want also %q", err, want)
		}
	}
}

func TestDefaults(t *testing.T) {
	c, err := parse(document(`"isDefaultGateway": true, "ipMasqBackend": "iptables", "an unknown key": [null]`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Bridge != "cni0" {
		t.Errorf("the bridge is %q, want cni0", c.Bridge)
	}
	if !c.IsGateway {
		t.Error("isDefaultGateway does not imply isGateway")
	}
	if c.usesVLANs() {
		t.Error("there are VLANs")
	}
}

// What is wrong must not keep DEL from what is right.
func TestEssentialsOfAnInvalidConfiguration(t *testing.T) {
	for _, wrong := range []string{`"mtu": "many"`, `"probe": 5`, `"sourceRouting": "yes"`, `"ipam": [], "dns": 7`} {
		e, err := parseEssentials([]byte(`{` + wrong + `, "name": "blue", "bridge": "br0", "vlan": 7, "isDefaultGateway": true}`))
		if err != nil || e.Network != "blue" || e.Bridge != "br0" || e.VLAN != 7 || !e.IsGateway {
			t.Errorf("%s: got %+v, %v", wrong, e, err)
		}
	}
	for _, wrong := range []string{`{`, `{"name": 7}`, `{"mtu": 1400}`} {
		if e, err := parseEssentials([]byte(wrong)); err == nil {
			t.Errorf("%s: got %+v", wrong, e)
		}
	}
}

func TestTaggedVLANs(t *testing.T) {
	for _, tt := range []struct {
		vlan  int
		trunk string
		want  string
	}{
		{0, `[{"id": 101}, {"minID": 200, "maxID": 210}]`, "[{101 101} {200 210}]"},
		{0, `[{"minID": 1, "maxID": 4094}]`, "[{2 4094}]"},
		{5, `[{"minID": 1, "maxID": 9}]`, "[{1 4} {6 9}]"},
		{5, `[{"id": 5}]`, "[]"},
		{9, `[{"minID": 1, "maxID": 9}]`, "[{1 8}]"},
		{7, `[{"id": 3}, {"id": 1}, {"id": 2}, {"minID": 2, "maxID": 6, "id": 40}, {"id": 4}]`, "[{1 6} {40 40}]"},
		{7, `[]`, "[]"},
	} {
		c, err := parse(document(fmt.Sprintf(`"vlan": %d, "vlanTrunk": %s`, tt.vlan, tt.trunk)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, fmt.Sprint(c.taggedVLANs())); diff != "" {
			t.Errorf("vlan %d, trunk %s (-want +got):\n%s", tt.vlan, tt.trunk, diff)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(document(`"vlanTrunk": [{"minID": 1, "maxID": 9, "id": 4}], "vlan": 4`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		c, err := parse(doc)
		if err != nil {
			return
		}
		last := -1
		for _, r := range c.taggedVLANs() {
			if int(r.first) <= last || r.first > r.last || r.first < 1 || r.last > maxVLAN || r.first <= c.nativeVLAN() && c.nativeVLAN() <= r.last {
				t.Fatalf("VLANs %v of %s", c.taggedVLANs(), doc)
			}
			last = int(r.last)
		}
	})
}

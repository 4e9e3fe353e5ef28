package cni_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/cni"
)

func config(cniVersion string, prevResult []byte) []byte {
	return fmt.Appendf(nil, `{"cniVersion": %q, "name": "n", "prevResult": %s}`, cniVersion, prevResult)
}

// What a version can express comes back as it was.
func TestResultRoundTrip(t *testing.T) {
	for _, v := range version.All.SupportedVersions() {
		want := wholeResult()
		doc, err := cni.MarshalResult(want, v)
		if err != nil {
			t.Errorf("%s: %v", v, err)
			continue
		}
		if diff := cmp.Diff(wholeResult(), want); diff != "" {
			t.Errorf("%s: the result was changed (-before +after):\n%s", v, diff)
		}
		got, err := cni.PrevResult(config(v, doc))
		if err != nil {
			t.Errorf("%s: %v", v, err)
			continue
		}
		want.CNIVersion = "1.1.0"
		if v < "1" {
			want.Interfaces[1].Mtu = 0 // unknown then
		}
		if v < "0.3" {
			want.Interfaces, want.IPs[0].Interface, want.IPs[1].Interface, want.Routes[1].Priority = nil, nil, nil, 0
		}
		if diff := cmp.Diff(text(t, want), text(t, got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", v, diff)
		}
	}
}

// A document says what the library's JSON says.
func TestDocument(t *testing.T) {
	noDNS, empty := wholeResult(), &types100.Result{DNS: types.DNS{Nameservers: []string{}}}
	noDNS.DNS = types.DNS{}
	for _, res := range []*types100.Result{wholeResult(), noDNS, empty, nil} {
		decoded := func(v any) (decoded any) {
			doc, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(doc, &decoded); err != nil {
				t.Fatal(err)
			}
			return decoded
		}
		if diff := cmp.Diff(decoded(res), decoded(cni.Document(res))); diff != "" {
			t.Errorf("(-library +document):\n%s", diff)
		}
	}
}

// text makes results comparable whatever the length of the byte slices of their addresses.
func text(t *testing.T, res *types100.Result) string {
	t.Helper()
	b, err := json.MarshalIndent(res, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPrevResultAbsent(t *testing.T) {
	for _, conf := range []string{`{}`, `{"cniVersion": "1.1.0", "prevResult": null}`} {
		if res, err := cni.PrevResult([]byte(conf)); res != nil || err != nil {
			t.Errorf("%s: got %v, %v", conf, res, err)
		}
	}
}

func TestPrevResultErrors(t *testing.T) {
	for conf, want := range map[string]string{
		`{`:                      "decode configuration: unexpected end",
		`{"prevResult": "none"}`: "decode prevResult: json: cannot unmarshal string",
		`{"cniVersion": "2.0.0", "prevResult": {}}`:                              `decode prevResult: unsupported CNI version "2.0.0"`,
		`{"cniVersion": "1.0.0", "prevResult": {"interfaces": [{}, null]}}`:      "decode prevResult: interfaces[1] is null",
		`{"cniVersion": "0.1.0", "prevResult": {"ip4": {"ip": "10.0.0.300/8"}}}`: "decode prevResult: invalid CIDR address",
	} {
		_, err := cni.PrevResult([]byte(conf))
		var coded *types.Error
		if !errors.As(err, &coded) || coded.Code != types.ErrDecodingFailure || !strings.HasPrefix(coded.Msg, want) {
			t.Errorf("%s: got %v, want %q", conf, err, want)
		}
	}
}

func TestValidAttachments(t *testing.T) {
	both := []types.GCAttachment{{ContainerID: "c1", IfName: "eth0"}, {ContainerID: "c2", IfName: "net1"}}
	list := `[{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c2", "ifname": "net1"}]`
	tests := []struct {
		conf string
		want []types.GCAttachment
		code uint
	}{
		{conf: `{"cni.dev/valid-attachments": ` + list + `}`, want: both},
		{conf: `{"cni.dev/attachments": ` + list + `}`, want: both},
		{conf: `{"cni.dev/attachments": [], "cni.dev/valid-attachments": ` + list + `}`, want: both},
		{conf: `{"cni.dev/valid-attachments": []}`, want: []types.GCAttachment{}},
		{conf: `{"cni.dev/valid-attachments": null}`},
		{conf: `{}`, code: types.ErrInvalidNetworkConfig},
		{conf: `{"cni.dev/valid-attachments": {}}`, code: types.ErrDecodingFailure},
		{conf: `[]`, code: types.ErrDecodingFailure},
	}
	for _, test := range tests {
		got, err := cni.ValidAttachments([]byte(test.conf))
		var coded *types.Error
		if errors.As(err, &coded) != (test.code != 0) || coded != nil && coded.Code != test.code {
			t.Errorf("%s: got %v, want code %d", test.conf, err, test.code)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.conf, diff)
		}
	}
}

func FuzzResult(f *testing.F) {
	for _, v := range version.All.SupportedVersions() {
		doc, err := cni.MarshalResult(wholeResult(), v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(v, doc)
	}
	f.Add("0.4.0", []byte(`{"ips": [{"address": "::ffff:10.0.0.1/100", "interface": -3}], "routes": [null]}`))
	f.Fuzz(func(t *testing.T, v string, doc []byte) {
		conf, err := json.Marshal(map[string]any{"cniVersion": v, "prevResult": json.RawMessage(doc)})
		if err != nil {
			return
		}
		res, err := cni.PrevResult(conf)
		if err != nil || res == nil {
			return
		}
		for _, to := range version.All.SupportedVersions() {
			_, err := cni.MarshalResult(res, to)
			if err != nil && (to >= "0.3" || len(res.IPs) > 0) {
				t.Errorf("version %s cannot express %v: %v", to, res, err)
			}
		}
		first, err := cni.MarshalResult(res, "1.1.0")
		if err != nil {
			t.Fatal(err)
		}
		again, err := cni.PrevResult(config("1.1.0", first))
		if err != nil {
			t.Fatalf("decode %s: %v", first, err)
		}
		if second, err := cni.MarshalResult(again, "1.1.0"); err != nil || string(first) != string(second) {
			t.Errorf("%s became %s (%v)", first, second, err)
		}
	})
}

// A result is encoded three times in each ADD, and once in each DEL.
func BenchmarkMarshalResult(b *testing.B) {
	res := &types100.Result{
		CNIVersion: "1.1.0",
		Interfaces: []*types100.Interface{{Name: "br0"}, {Name: "veth0"}, {Name: "net1", Mac: "02:00:00:00:00:01", Sandbox: "/run/netns/pod"}},
		IPs: []*types100.IPConfig{
			{Interface: types100.Int(2), Address: net.IPNet{IP: net.IPv4(10, 1, 0, 2), Mask: net.CIDRMask(16, 32)}, Gateway: net.IPv4(10, 1, 0, 1)},
			{Interface: types100.Int(2), Address: net.IPNet{IP: net.ParseIP("fd00::2"), Mask: net.CIDRMask(64, 128)}},
		},
	}
	for b.Loop() {
		if _, err := cni.MarshalResult(res, "1.1.0"); err != nil {
			b.Fatal(err)
		}
	}
}

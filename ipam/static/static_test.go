package static_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/manpage"
	"github.com/braid-cni/braid/ipam/static"
)

func request(config, args string) *cni.Request {
	return &cni.Request{Attachment: cni.Attachment{ContainerID: "c1", IfName: "net1", Args: args}, Config: []byte(config)}
}

func TestAdd(t *testing.T) {
	const configured = `"addresses":[{"address":"10.0.0.5/24","gateway":"10.0.0.1"},{"address":"fd00::5/64"}]`
	for _, tt := range []struct {
		name, ipam, more, args string
		want                   []string
		err                    string
	}{
		{name: "configured", ipam: configured, want: []string{"10.0.0.5/24 via 10.0.0.1", "fd00::5/64"}},
		{name: "capability", ipam: configured, more: `,"runtimeConfig":{"ips":["10.0.0.9/24"]},"args":{"cni":{"ips":["10.0.0.8/24"]}}`, want: []string{"10.0.0.9/24 via 10.0.0.1"}},
		{name: "args", ipam: configured, more: `,"args":{"cni":{"ips":["10.9.0.8/24"]}}`, want: []string{"10.9.0.8/24"}},
		{name: "CNI_ARGS", ipam: ``, args: "IP=10.0.0.7/24,fd00::7/64;GATEWAY=10.0.0.1", want: []string{"10.0.0.7/24 via 10.0.0.1", "fd00::7/64"}},
		{name: "none", ipam: ``, err: "no address"},
		{name: "no prefix length", ipam: `"addresses":[{"address":"10.0.0.5"}]`, err: `ipam.addresses[0].address is "10.0.0.5"`},
		{name: "bad gateway", ipam: `"addresses":[{"address":"10.0.0.5/24","gateway":"x"}]`, err: `"x"`},
		{name: "all complaints", ipam: ``, more: `,"runtimeConfig":{"ips":["a","b"]}`, err: `runtimeConfig.ips[1] is "b"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, err := static.Plugin{}.Add(t.Context(), request(`{"cniVersion":"1.1.0","name":"n","ipam":{`+tt.ipam+`}`+tt.more+`}`, tt.args))
			if tt.err != "" {
				var coded *types.Error
				if !errors.As(err, &coded) || coded.Code != types.ErrInvalidNetworkConfig || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error = %v, want code 7 and %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, ip := range res.IPs {
				s := ip.Address.String()
				if ip.Gateway != nil {
					s += " via " + ip.Gateway.String()
				}
				got = append(got, s)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("addresses %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	const config = `{"cniVersion":"1.1.0","name":"n","ipam":{"addresses":[{"address":"10.0.0.5/24","gateway":"10.0.0.1"}]}%s}`
	for prev, ok := range map[string]bool{
		``: false,
		`,"prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.5/24","gateway":"10.0.0.1"}]}`: true,
		`,"prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.5/24","gateway":"10.0.0.2"}]}`: false,
		`,"prevResult":{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.6/24","gateway":"10.0.0.1"}]}`: false,
	} {
		if err := (static.Plugin{}).Check(t.Context(), request(fmt.Sprintf(config, prev), "")); (err == nil) != ok {
			t.Errorf("CHECK with %s: %v", prev, err)
		}
	}
}

func TestExamples(t *testing.T) {
	for name, example := range manpage.Examples(t, "README.md") {
		if !json.Valid([]byte(example)) {
			t.Errorf("%s: no JSON", name)
		}
		if _, err := (static.Plugin{}).Add(t.Context(), request(example, "")); err != nil {
			t.Errorf("%s %v", name, err)
		}
	}
}

package ipam_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/ipam"
)

// rotating is an address plugin of somebody else: it gives its addresses in turn, whatever it is asked to avoid.
type rotating struct {
	cni.Plugin
	addrs       []string
	adds, given int
	configs     []string
}

func (r *rotating) Add(_ context.Context, req *cni.Request) (*types100.Result, error) {
	ip := net.ParseIP(r.addrs[r.adds%len(r.addrs)])
	r.adds++
	r.given++
	r.configs = append(r.configs, string(req.Config))
	return &types100.Result{IPs: []*types100.IPConfig{{Address: net.IPNet{IP: ip, Mask: net.CIDRMask(24, 32)}}}}, nil
}

func (r *rotating) Del(context.Context, *cni.Request) error {
	r.given--
	return nil
}

func (r *rotating) unique(t *testing.T, taken ipam.Taken) (*types100.Result, error) {
	t.Helper()
	req := &cni.Request{Config: []byte(`{"n": 12345678901234567890, "args": {"cni": {"x": 1}}, "ipam": {"type": "other"}}`)}
	d, err := ipam.For(req, func(string) cni.Plugin { return r })
	if err != nil {
		t.Fatal(err)
	}
	return d.AddUnique(t.Context(), req, taken)
}

var mac = net.HardwareAddr{2, 0, 0, 0, 0, 1}

// has is a link whose other hosts have addresses.
func has(list ...string) ipam.Taken {
	return func(_ context.Context, addrs []netip.Addr) (map[netip.Addr]net.HardwareAddr, error) {
		found := map[netip.Addr]net.HardwareAddr{}
		for _, a := range addrs {
			for _, s := range list {
				if a == netip.MustParseAddr(s) {
					found[a] = mac
				}
			}
		}
		return found, nil
	}
}

func TestAddUnique(t *testing.T) {
	r := &rotating{addrs: []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}}
	res, err := r.unique(t, has("192.0.2.1", "192.0.2.2"))
	if err != nil || res.IPs[0].Address.IP.String() != "192.0.2.3" || r.given != 1 {
		t.Errorf("got %v, %v, with %d allocations", res, err, r.given)
	}
	for _, want := range []string{`"braid-cni.io/avoid":["192.0.2.1","192.0.2.2"]`, `"cni":{"x":1}`, `"n":12345678901234567890`} {
		if last := r.configs[len(r.configs)-1]; !strings.Contains(last, want) {
			t.Errorf("the plugin is asked with %s, want %s", last, want)
		}
	}
	if strings.Contains(r.configs[0], ipam.AvoidKey) {
		t.Errorf("the first request is not as it came: %s", r.configs[0])
	}
}

func TestAddUniqueGivesUp(t *testing.T) {
	var many []string
	for a := netip.MustParseAddr("192.0.2.1"); len(many) < 200; a = a.Next() {
		many = append(many, a.String())
	}
	for name, c := range map[string]struct {
		addrs []string
		adds  int
		last  string
	}{
		"fixed":   {many[:1], 2, "192.0.2.1"},
		"in turn": {many[:2], 3, "192.0.2.2"},
		"many":    {many, 16, "192.0.2.16"},
	} {
		r := &rotating{addrs: c.addrs}
		_, err := r.unique(t, has(c.addrs...))
		var ce *types.Error
		if !errors.As(err, &ce) || ce.Code != types.ErrTryAgainLater || !strings.Contains(err.Error(), "address "+c.last+" is in use by "+mac.String()) {
			t.Errorf("%s: got %v", name, err)
		}
		if r.adds != c.adds || r.given != 0 {
			t.Errorf("%s: asked %d times, want %d; %d allocations are left", name, r.adds, c.adds, r.given)
		}
	}
}

func TestAddUniqueReleasesWhatCannotBeProbed(t *testing.T) {
	r := &rotating{addrs: []string{"192.0.2.1"}}
	noCarrier := errors.New("no carrier")
	_, err := r.unique(t, func(context.Context, []netip.Addr) (map[netip.Addr]net.HardwareAddr, error) { return nil, noCarrier })
	if !errors.Is(err, noCarrier) || r.given != 0 {
		t.Errorf("got %v, with %d allocations", err, r.given)
	}
}

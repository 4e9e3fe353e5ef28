package ipam_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/ipam"
)

const config = `{"cniVersion":"1.1.0","name":"blue","type":"bridge","unknown":12345678901234567890,"ipam":{"type":"pool"},"prevResult":{}}`

func oneAddress() *types100.Result {
	return &types100.Result{IPs: []*types100.IPConfig{{Address: net.IPNet{IP: net.IPv4(192, 0, 2, 1), Mask: net.CIDRMask(24, 32)}}}}
}

func delegate(t *testing.T, p cni.Plugin) ipam.Delegate {
	t.Helper()
	d, err := ipam.For(&cni.Request{Config: []byte(config)}, func(pluginType string) cni.Plugin {
		if pluginType != "pool" {
			t.Errorf("plugin %q was looked for", pluginType)
		}
		return p
	})
	if err != nil || d.Type != "pool" || !d.Configured() {
		t.Fatalf("delegate %+v, error %v", d, err)
	}
	return d
}

func request() *cni.Request {
	return &cni.Request{
		Attachment: cni.Attachment{ContainerID: "c1", Netns: "/ns", IfName: "net1", Args: "A=B"}, Path: []string{"/bin"}, Config: []byte(config),
	}
}

// "Delegated plugins are provided the complete network configuration passed to the "upper" plugin", and "must receive all
// the same environment variables".
func TestRequestIsPassedOn(t *testing.T) {
	fake := &cnitest.Fake{Result: oneAddress()}
	d, req := delegate(t, fake), request()
	if _, err := d.Add(t.Context(), req); err != nil {
		t.Error(err)
	}
	for _, verb := range []func(context.Context, *cni.Request) error{d.Check, d.Status, d.GC, d.Del} {
		if err := verb(t.Context(), req); err != nil {
			t.Error(err)
		}
	}
	var commands []string
	for _, c := range fake.Calls() {
		commands = append(commands, c.Command)
		if c.Request.Attachment != req.Attachment || string(c.Request.Config) != config || !slices.Equal(c.Request.Path, req.Path) {
			t.Errorf("%s got %+v", c.Command, c.Request)
		}
	}
	if got := strings.Join(commands, " "); got != "ADD CHECK STATUS GC DEL" {
		t.Errorf("calls: %s", got)
	}
}

// "If, on ADD, a delegated plugin fails, the "upper" plugin should execute again with DEL before returning failure."
func TestFailedAddIsUndone(t *testing.T) {
	full := types.NewError(types.ErrTryAgainLater, "pool is empty", "")
	for name, tt := range map[string]struct {
		fake  *cnitest.Fake
		calls string
		want  string
		code  uint
	}{
		"error":      {&cnitest.Fake{On: failOn("ADD", full)}, "ADD net1 DEL net1", "ipam pool: pool is empty", types.ErrTryAgainLater},
		"no address": {&cnitest.Fake{Result: &types100.Result{}}, "ADD net1 DEL net1", "ipam pool: its result has no IP address", 0},
		"DEL fails too": {&cnitest.Fake{On: func(_ context.Context, command string, _ *cni.Request) error {
			return map[string]error{"ADD": full, "DEL": errors.New("stuck")}[command]
		}}, "ADD net1 DEL net1", "ipam pool: stuck", types.ErrTryAgainLater},
		"no such plugin": {&cnitest.Fake{On: failOn("ADD", &cni.NotFoundError{Type: "pool"})}, "ADD net1", `plugin "pool" not found`, types.ErrPluginNotAvailable},
	} {
		t.Run(name, func(t *testing.T) {
			res, err := delegate(t, tt.fake).Add(t.Context(), request())
			if err == nil || res != nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("result %v, error %v, want %q", res, err, tt.want)
			}
			if coded, ok := errors.AsType[*types.Error](err); ok != (tt.code != 0) || ok && coded.Code != tt.code {
				t.Errorf("error %v, want code %d", err, tt.code)
			}
			var calls []string
			for _, c := range tt.fake.Calls() {
				calls = append(calls, c.String())
			}
			if got := strings.Join(calls, " "); got != tt.calls {
				t.Errorf("calls: %s, want %s", got, tt.calls)
			}
		})
	}
}

func failOn(failing string, err error) func(context.Context, string, *cni.Request) error {
	return func(_ context.Context, command string, _ *cni.Request) error {
		if command == failing {
			return err
		}
		return nil
	}
}

// The deadline of the ADD may be what it failed of.
func TestUndoOutlivesTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var undone error = errors.New("no DEL")
	fake := &cnitest.Fake{On: func(ctx context.Context, command string, _ *cni.Request) error {
		if command == "DEL" {
			undone = ctx.Err()
			return nil
		}
		cancel()
		return ctx.Err()
	}}
	if _, err := delegate(t, fake).Add(ctx, request()); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	if undone != nil {
		t.Errorf("undo: %v", undone)
	}
}

func TestErrorsNameThePlugin(t *testing.T) {
	broken := types.NewError(types.ErrPluginNotAvailable, "broken", "")
	d := delegate(t, &cnitest.Fake{On: func(context.Context, string, *cni.Request) error { return broken }})
	for _, verb := range []func(context.Context, *cni.Request) error{d.Check, d.Status, d.GC, d.Del} {
		if err := verb(t.Context(), request()); !errors.Is(err, broken) || err.Error() != "ipam pool: broken" {
			t.Errorf("error = %v", err)
		}
	}
}

func TestLayer2(t *testing.T) {
	never := func(string) cni.Plugin { t.Error("a plugin was looked for"); return nil }
	for _, conf := range []string{`{}`, `{"ipam":{}}`, `{"ipam":null}`, `{"ipam":{"type":""}}`, `{"ipam":{"type":null}}`} {
		d, err := ipam.For(&cni.Request{Config: []byte(conf)}, never)
		if err != nil || d.Configured() {
			t.Errorf("%s: %+v, %v", conf, d, err)
		}
		res, err := d.Add(t.Context(), request())
		if err != nil || len(res.IPs) != 0 {
			t.Errorf("%s: ADD: %v, %v", conf, res, err)
		}
		for _, verb := range []func(context.Context, *cni.Request) error{d.Check, d.Status, d.GC, d.Del} {
			if err := verb(t.Context(), request()); err != nil {
				t.Errorf("%s: %v", conf, err)
			}
		}
	}
}

// "Must not contain characters disallowed in file paths for the system (e.g. / or \)."
func TestBadType(t *testing.T) {
	for conf, want := range map[string]struct {
		code uint
		msg  string
	}{
		`{"ipam":{"type":"../host-local"}}`: {types.ErrInvalidNetworkConfig, `ipam.type is "../host-local": want the name of a plugin's file`},
		`{"ipam":{"type":"a\\b"}}`:          {types.ErrInvalidNetworkConfig, "ipam.type is"},
		`{"ipam":{"type":".."}}`:            {types.ErrInvalidNetworkConfig, "ipam.type is"},
		`{"ipam":{"type":"a\u0000"}}`:       {types.ErrInvalidNetworkConfig, "ipam.type is"},
		`{"ipam":{"type":7}}`:               {types.ErrInvalidNetworkConfig, "ipam.type is a JSON number: want a string"},
		`{"ipam":[]}`:                       {types.ErrInvalidNetworkConfig, "ipam is a JSON array"},
		`{`:                                 {types.ErrDecodingFailure, "decode configuration"},
	} {
		d, err := ipam.For(&cni.Request{Config: []byte(conf)}, func(string) cni.Plugin { t.Errorf("%s: looked for", conf); return nil })
		coded, ok := errors.AsType[*types.Error](err)
		if !ok || coded.Code != want.code || !strings.Contains(err.Error(), want.msg) || d.Configured() {
			t.Errorf("%s: %+v, error %v, want code %d and %q", conf, d, err, want.code, want.msg)
		}
	}
}

func TestParseRoutes(t *testing.T) {
	var elements []json.RawMessage
	list := `[{"dst":"10.0.0.0/8","gw":"192.0.2.1","mtu":1400,"advmss":1300,"priority":5,"table":100,"scope":253},{"dst":"::/0"}]`
	if err := json.Unmarshal([]byte(list), &elements); err != nil {
		t.Fatal(err)
	}
	routes, err := ipam.ParseRoutes(elements)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := json.Marshal(routes); err != nil || len(routes) != 2 || len(got) != len(list) {
		t.Errorf("%s, %v", got, err)
	}
	_, err = ipam.ParseRoutes([]json.RawMessage{[]byte(`{}`), []byte(`{"dst":"::/0"}`), []byte(`7`)})
	if err == nil || !strings.Contains(err.Error(), "ipam.routes[0] has no dst") || !strings.Contains(err.Error(), "ipam.routes[2]: ") {
		t.Errorf("error = %v", err)
	}
}

func TestLimitOfRoutes(t *testing.T) {
	routes := make([]json.RawMessage, 1025)
	for i := range routes {
		routes[i] = []byte(`{"dst":"::/0"}`)
	}
	if got, err := ipam.ParseRoutes(routes[:1024]); err != nil || len(got) != 1024 {
		t.Errorf("at the limit: %d routes, %v", len(got), err)
	}
	if _, err := ipam.ParseRoutes(routes); err == nil || !strings.Contains(err.Error(), "ipam.routes has 1025 routes: want 1024 at most") {
		t.Errorf("above: %v", err)
	}
}

func TestAssigned(t *testing.T) {
	at := func(i *int) *types100.IPConfig { return &types100.IPConfig{Interface: i} }
	res := &types100.Result{
		Interfaces: []*types100.Interface{{Name: "net1"}, {Name: "net1", Sandbox: "/ns"}, {Name: "net2", Sandbox: "/ns"}},
		IPs: []*types100.IPConfig{
			at(nil), at(types100.Int(0)), at(types100.Int(1)), at(types100.Int(2)), at(types100.Int(3)), at(types100.Int(-1)),
		},
	}
	want := []*types100.IPConfig{res.IPs[0], res.IPs[2], res.IPs[4], res.IPs[5]} // an index that points nowhere tells nothing
	if got := ipam.Assigned(res, "net1"); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

type allocator struct{ cnitest.Fake }

func (*allocator) OnlyAllocates() {}

func TestMayConfigure(t *testing.T) {
	for what, c := range map[string]struct {
		of   ipam.Delegate
		want bool
	}{
		"no plugin":               {ipam.Delegate{}, false},
		"any plugin":              {delegate(t, &cnitest.Fake{}), true},
		"one that only allocates": {delegate(t, &allocator{}), false},
	} {
		if c.of.MayConfigure() != c.want {
			t.Errorf("%s may configure: found %t", what, !c.want)
		}
	}
}

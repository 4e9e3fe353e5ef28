package chain_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/braid-cni/braid/chain"
	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/internal/memo"
	"github.com/braid-cni/braid/internal/program"
)

var update = flag.Bool("update", false, "write the requests of testdata as they are now")

var at = cni.Attachment{ContainerID: "c1", Netns: "/run/netns/pod", IfName: "net1", Args: "K8S_POD_NAME=web"}

// fakes is a lookup of plugins that record, all in one log.
type fakes struct {
	log cnitest.Log
	on  map[string]func(command string) error // by plugin type
}

func (f *fakes) find(pluginType string) cni.Plugin {
	return &cnitest.Fake{Name: pluginType, Log: &f.log, On: func(_ context.Context, command string, _ *cni.Request) error {
		if on := f.on[pluginType]; on != nil {
			return on(command)
		}
		return nil
	}}
}

func network(t testing.TB, config string) *conf.Network {
	t.Helper()
	n, err := conf.ParseNetwork([]byte(config), "blue")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const three = `{"cniVersion":"1.1.0","plugins":[{"type":"one"},{"type":"two"},{"type":"three"}]}`

// TestRequests reads testdata/*.txtar: a network ("network"), what is requested of it ("capabilities"), and what each
// plugin is asked in turn by ADD, CHECK, DEL, GC and STATUS ("requests").
func TestRequests(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var capabilities map[string]any
			if err := json.Unmarshal(ar.Files[1].Data, &capabilities); err != nil {
				t.Fatal(err)
			}
			got := requests(t, network(t, string(ar.Files[0].Data)), capabilities, nil)
			remembering := new(memo.Memory)
			for range 2 {
				again := requests(t, network(t, string(ar.Files[0].Data)), capabilities, remembering)
				if diff := cmp.Diff(string(got), string(again)); diff != "" {
					t.Errorf("with a memory (-without +with):\n%s", diff)
				}
			}
			if *update {
				ar.Files[2].Data = got
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(ar.Files[2].Data), string(got)); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func requests(t *testing.T, n *conf.Network, capabilities map[string]any, m *memo.Memory) []byte {
	t.Helper()
	var f fakes
	c, err := chain.New(n, nil, f.find)
	if err != nil {
		t.Fatal(err)
	}
	c.With(m)
	ctx := context.Background()
	res, err := c.Add(ctx, at, capabilities)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(c.Check(ctx, at, capabilities, res), c.Del(ctx, at, capabilities, res),
		c.GC(ctx, []types.GCAttachment{{ContainerID: "c1", IfName: "net1"}}), c.Status(ctx))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, call := range f.log.Calls() {
		fmt.Fprintf(&out, "%s\n\t%s\n", call, call.Request.Config)
	}
	return out.Bytes()
}

func TestFailedAddUndoesTheFailingPluginToo(t *testing.T) {
	f := fakes{on: map[string]func(string) error{"two": failOn("ADD", types.NewError(types.ErrTryAgainLater, "pool is empty", ""))}}
	_, err := chain.Lenient(network(t, three), nil, f.find).Add(context.Background(), at, nil)
	var coded *types.Error
	if !errors.As(err, &coded) || coded.Code != types.ErrTryAgainLater {
		t.Errorf("error %v lost the code", err)
	}
	if err == nil || err.Error() != "plugin two: pool is empty" {
		t.Errorf("error = %v", err)
	}
	wantCalls(t, &f.log, "one ADD net1", "two ADD net1", "two DEL net1", "one DEL net1")
}

// TestUndoLeavesOutWhatDidNotRun: a binary that cannot be executed has made nothing, and cannot be asked to undo it.
func TestUndoLeavesOutWhatDidNotRun(t *testing.T) {
	for name, mode := range map[string]os.FileMode{"not executable": 0o644, "empty": 0o755} {
		t.Run(name, func(t *testing.T) {
			var f fakes
			find := func(pluginType string) cni.Plugin {
				if pluginType == "two" {
					return cni.Exec{Type: pluginType}
				}
				return f.find(pluginType)
			}
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "two"), nil, mode); err != nil {
				t.Fatal(err)
			}
			c, err := chain.New(network(t, three), []string{dir}, find)
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Add(context.Background(), at, nil)
			var incomplete *chain.UndoError
			if err == nil || errors.As(err, &incomplete) || !strings.Contains(err.Error(), "plugin two: ") {
				t.Errorf("error = %v", err)
			}
			wantCalls(t, &f.log, "one ADD net1", "one DEL net1")
		})
	}
}

func TestIncompleteUndoIsToldAndGoesOn(t *testing.T) {
	f := fakes{on: map[string]func(string) error{
		"two": func(string) error { return errors.New("broken") },
	}}
	_, err := chain.Lenient(network(t, three), nil, f.find).Add(context.Background(), at, nil)
	var incomplete *chain.UndoError
	if !errors.As(err, &incomplete) {
		t.Errorf("error %v is no UndoError", err)
	}
	wantCalls(t, &f.log, "one ADD net1", "two ADD net1", "two DEL net1", "one DEL net1")
}

func TestUndoOutlivesTheDeadline(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	var during error
	f := fakes{on: map[string]func(string) error{"one": func(command string) error {
		if command == "ADD" {
			cancel()
			return ctx.Err()
		}
		return nil
	}}}
	find := func(pluginType string) cni.Plugin {
		p := f.find(pluginType).(*cnitest.Fake)
		on := p.On
		p.On = func(ctx context.Context, command string, req *cni.Request) error {
			if command == "DEL" {
				during = ctx.Err()
			}
			return on(ctx, command, req)
		}
		return p
	}
	if _, err := chain.Lenient(network(t, three), nil, find).Add(ctx, at, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	wantCalls(t, &f.log, "one ADD net1", "one DEL net1")
	if during != nil {
		t.Errorf("DEL ran with a context that was over: %v", during)
	}
}

func TestDelGoesOnAfterAnError(t *testing.T) {
	f := fakes{on: map[string]func(string) error{"three": failOn("DEL", errors.New("broken"))}}
	err := chain.Lenient(network(t, three), nil, f.find).Del(context.Background(), at, nil, nil)
	if err == nil || err.Error() != "plugin three: broken" {
		t.Errorf("error = %v", err)
	}
	wantCalls(t, &f.log, "three DEL net1", "two DEL net1", "one DEL net1")
}

// TestGCOfNone: where no attachment is valid the list is there, and empty; without one a plugin would not know.
func TestGCOfNone(t *testing.T) {
	var config string
	find := func(string) cni.Plugin {
		return &cnitest.Fake{On: func(_ context.Context, _ string, req *cni.Request) error { config = string(req.Config); return nil }}
	}
	if err := chain.Lenient(network(t, `{"cniVersion":"1.1.0","type":"one"}`), nil, find).GC(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"cni.dev/valid-attachments", "cni.dev/attachments"} {
		if !strings.Contains(config, fmt.Sprintf("%q:[]", key)) {
			t.Errorf("the configuration is %s, want an empty list %s", config, key)
		}
	}
}

func TestDisabledVerbs(t *testing.T) {
	var f fakes
	c := chain.Lenient(network(t, `{"cniVersion":"1.1.0","disableCheck":true,"disableGC":true,"plugins":[{"type":"one"}]}`), nil, f.find)
	if err := errors.Join(c.Check(context.Background(), at, nil, nil), c.GC(context.Background(), nil)); err != nil {
		t.Error(err)
	}
	wantCalls(t, &f.log)
}

func TestNewFindsMissingBinariesBeforeAnythingRuns(t *testing.T) {
	var f fakes
	find := func(pluginType string) cni.Plugin {
		if pluginType == "three" {
			return cni.Exec{Type: pluginType}
		}
		return f.find(pluginType)
	}
	_, err := chain.New(network(t, three), []string{t.TempDir()}, find)
	var missing *cni.NotFoundError
	if !errors.As(err, &missing) || missing.Type != "three" {
		t.Errorf("error = %v", err)
	}
	wantCalls(t, &f.log)
}

func TestNewFindsMissingAddressPlugins(t *testing.T) {
	var f fakes
	find := func(pluginType string) cni.Plugin {
		if pluginType == "whereabouts" {
			return cni.Exec{Type: pluginType}
		}
		return f.find(pluginType)
	}
	n := network(t, `{"cniVersion":"1.1.0","plugins":[{"type":"one"},{"type":"two","ipam":{"type":"whereabouts"}}]}`)
	_, err := chain.New(n, []string{t.TempDir()}, find)
	var missing *cni.NotFoundError
	if !errors.As(err, &missing) || missing.Type != "whereabouts" {
		t.Errorf("error = %v", err)
	}
	wantCalls(t, &f.log)
}

// TestOldNetwork: own plugins are spoken to in a version that can check an attachment, unless somebody else's is among them.
func TestOldNetwork(t *testing.T) {
	n := network(t, `{"cniVersion":"0.3.1","plugins":[{"type":"one"},{"type":"two"}]}`)
	for binary, want := range map[string]string{"": "0.4.0", "one": "0.3.1"} {
		var got []string
		note := func(config []byte) {
			var c struct{ CNIVersion string }
			if err := json.Unmarshal(config, &c); err != nil {
				t.Error(err)
			}
			got = append(got, c.CNIVersion)
		}
		find := func(pluginType string) cni.Plugin {
			if pluginType == binary {
				return cni.Exec{Type: pluginType, Executor: func(_ context.Context, p *program.Program) ([]byte, error) {
					note(p.Stdin)
					return []byte(`{"cniVersion":"0.3.1","ips":[{"version":"4","address":"192.0.2.2/24"}]}`), nil
				}}
			}
			return &cnitest.Fake{On: func(_ context.Context, _ string, req *cni.Request) error { note(req.Config); return nil }}
		}
		if _, err := chain.Lenient(n, nil, find).Add(context.Background(), at, nil); err != nil {
			t.Error(err)
		}
		if !slices.Equal(got, []string{want, want}) {
			t.Errorf("binary %q: the plugins are spoken to in %q, want %s", binary, got, want)
		}
	}
}

func TestInProcess(t *testing.T) {
	var f fakes
	find := func(pluginType string) cni.Plugin {
		if pluginType == "binary" {
			return cni.Exec{Type: pluginType}
		}
		return f.find(pluginType)
	}
	for config, want := range map[string]bool{
		`{"type":"one"}`:                                 true,
		`{"type":"one","ipam":{"type":"two"}}`:           true,
		`{"type":"binary"}`:                              false,
		`{"plugins":[{"type":"one"},{"type":"binary"}]}`: false,
		`{"type":"one","ipam":{"type":"binary"}}`:        false,
		`{"type":"one","ipam":{}}`:                       true,
	} {
		if got := chain.Lenient(network(t, config), nil, find).InProcess(); got != want {
			t.Errorf("%s: InProcess is %t, want %t", config, got, want)
		}
	}
}

func failOn(command string, err error) func(string) error {
	return func(c string) error {
		if c == command {
			return err
		}
		return nil
	}
}

func wantCalls(t *testing.T, log *cnitest.Log, want ...string) {
	t.Helper()
	if got := log.Strings(); !slices.Equal(got, want) {
		t.Errorf("calls:\n got %q\nwant %q", got, want)
	}
}

// FuzzRequest: what a tenant writes never passes for what only a runtime may say. Each plugin gets the name and the version of
// the network, a document that all decoders read alike, no result of others, and of what is requested only what it declares.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(three), "ips")
	f.Add([]byte(`{"cniVersion":"0.3.1","type":"one","runtimeConfig":{"ips":["x"]},"prevResult":{},"cni.dev/valid-attachments":[],"Name":"x"}`), "mac")
	f.Add([]byte(`{"cniVersion":"1.0.0","plugins":[{"type":"a","RUNTIMECONFIG":{},"capabilities":{"ips":true}},{"type":"b","prevre\u017fult":{}}]}`), "ips")
	f.Fuzz(func(t *testing.T, config []byte, capability string) {
		n, err := conf.ParseNetwork(config, "blue")
		if err != nil {
			return
		}
		f := &fakes{}
		ch := chain.Lenient(n, nil, f.find)
		if _, err := ch.Add(t.Context(), at, map[string]any{capability: "requested"}); err != nil {
			t.Fatalf("%s: %v", config, err)
		}
		for i, call := range f.log.Calls() {
			got := call.Request.Config
			if err := conf.CheckJSON(got, 2*conf.MaxNetwork); err != nil {
				t.Fatalf("%s becomes %s: %v", config, got, err)
			}
			var keys map[string]json.RawMessage
			if err := json.Unmarshal(got, &keys); err != nil {
				t.Fatal(err)
			}
			var seen struct {
				Name, CNIVersion string
				RuntimeConfig    map[string]any
				PrevResult       json.RawMessage
			}
			if err := json.Unmarshal(got, &seen); err != nil {
				t.Fatalf("%s: %v", got, err)
			}
			declared := n.Plugins[i].Capabilities[capability]
			_, passed := seen.RuntimeConfig[capability]
			if seen.Name != n.Name || declared != passed || len(seen.RuntimeConfig) > 1 || (len(seen.PrevResult) > 0) != (i > 0) {
				t.Errorf("%s becomes %s", config, got)
			}
			for key := range keys {
				if strings.HasPrefix(strings.ToLower(key), "cni.dev/") {
					t.Errorf("key %q of %s", key, got)
				}
			}
		}
	})
}

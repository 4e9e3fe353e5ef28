package delegate_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/delegate"
	"github.com/braid-cni/braid/internal/memo"
	"github.com/braid-cni/braid/internal/nettest"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/resolve"
)

func TestMain(m *testing.M) { os.Exit(nettest.Main(m)) }

// A world is a node with a delegator whose plugins only record, and a cluster of one pod, blue/web.
type world struct {
	t         *testing.T
	dir       string
	log       cnitest.Log
	on        func(plugin, command string, req *cni.Request) error // may be nil
	answer    *resolve.Answer
	resolving error
	reporting error
	mu        sync.Mutex // of what calls note that go on at the same time
	reports   []*resolve.Report
	query     *resolve.Query // the last one
	macs      bool           // results of plugins have them
	observed  []*resolve.Observation
	netns     *nettest.NS
	onReport  func() // unless it is nil
	memory    memo.Memory
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), netns: nettest.NewNS(t)}
	w.answer = &resolve.Answer{
		Pod:         resolve.Pod{Namespace: "blue", Name: "web", UID: "u1"},
		Annotations: map[string]string{conf.AnnotationNetworks: "one,two"},
		Networks: map[string]resolve.Network{
			"blue/one": {Config: `{"cniVersion":"1.1.0","type":"fake-one"}`},
			"blue/two": {Config: `{"cniVersion":"1.1.0","type":"fake-two"}`},
		},
	}
	return w
}

func (w *world) Resolve(_ context.Context, q *resolve.Query) (*resolve.Answer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.query = q
	return w.answer, w.resolving
}

func (w *world) Report(_ context.Context, r *resolve.Report) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, r)
	if w.onReport != nil {
		w.onReport()
	}
	return w.reporting
}

func (w *world) Close() error { return nil }

func (w *world) delegator() *delegate.Delegator {
	own := make(map[string]cni.Plugin)
	for _, name := range []string{"fake-default", "fake-one", "fake-two"} {
		own[name] = &cnitest.Fake{Name: name, Log: &w.log, MACs: w.macs, On: func(_ context.Context, command string, req *cni.Request) error {
			if w.on == nil {
				return nil
			}
			return w.on(name, command, req)
		}}
	}
	return &delegate.Delegator{
		Own: func(cni.Lookup) map[string]cni.Plugin { return own }, Stderr: w.t.Output(), BootID: "boot-1", Memory: &w.memory,
		Resolver: func(*conf.Config, *slog.Logger) (interface {
			resolve.Resolver
			io.Closer
		}, error) {
			return w, nil
		},
		Observer: func(_ *conf.Config, o *resolve.Observation) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.observed = append(w.observed, o)
		},
	}
}

func (w *world) config(keys string) []byte {
	return fmt.Appendf(nil, `{"cniVersion":"1.1.0","name":"pods","type":"braid","kubeconfig":"/nonexistent","cniDir":%q,"logLevel":"debug",
		"delegates":[{"cniVersion":"1.1.0","name":"cluster","type":"fake-default"}]%s}`, w.dir, keys)
}

func (w *world) request(keys string) *cni.Request {
	return &cni.Request{
		Attachment: cni.Attachment{
			ContainerID: "c1", Netns: w.netns.Path(), IfName: "eth0",
			Args: "IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=web;K8S_POD_UID=u1",
		},
		Config: w.config(keys),
	}
}

func (w *world) mustAdd() {
	w.t.Helper()
	if _, err := w.delegator().Add(w.t.Context(), w.request("")); err != nil {
		w.t.Fatal(err)
	}
}

// calls returns what the plugins were asked since the last time.
func (w *world) calls() []string {
	all := w.log.Strings()
	w.log = cnitest.Log{}
	return all
}

func (w *world) wantCalls(want ...string) {
	w.t.Helper()
	if diff := cmp.Diff(append([]string{}, want...), w.calls()); diff != "" {
		w.t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func (w *world) wantRecords(n int) {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.dir, "attachments", "*.json"))
	if err != nil || len(files) != n {
		w.t.Errorf("records: %q, want %d", files, n)
	}
}

// fail makes a plugin fail a command.
func fail(plugin, command string, err error) func(string, string, *cni.Request) error {
	return func(p, c string, _ *cni.Request) error {
		if p == plugin && c == command {
			return err
		}
		return nil
	}
}

func code(err error) uint {
	var coded *types.Error
	if !errors.As(err, &coded) {
		return 0
	}
	return coded.Code
}

func TestAdd(t *testing.T) {
	w := newWorld(t)
	res, err := w.delegator().Add(t.Context(), w.request(""))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range res.Interfaces {
		names = append(names, i.Name)
	}
	if !slices.Equal(names, []string{"eth0", "net1", "net2"}) {
		t.Errorf("interfaces of the result: %q", names)
	}
	calls := w.calls()
	slices.Sort(calls[1:]) // own plugins may overlap
	if !slices.Equal(calls, []string{"fake-default ADD eth0", "fake-one ADD net1", "fake-two ADD net2"}) {
		t.Errorf("calls: %q", calls)
	}
	if len(w.reports) != 1 {
		t.Fatalf("reports: %v", w.reports)
	}
	const status = `[{"name":"cluster","interface":"eth0","default":true},{"name":"blue/one","interface":"net1","default":false},{"name":"blue/two","interface":"net2","default":false}]`
	if got := string(w.reports[0].Status); got != status {
		t.Errorf("status = %s", got)
	}
	want := []resolve.Event{{Type: "Normal", Reason: "AddedInterface", Message: "Add eth0 [] from cluster, net1 [] from blue/one, net2 [] from blue/two"}}
	if got := w.reports[0].Events; !slices.Equal(got, want) {
		t.Errorf("events: %v, want %v", got, want)
	}
	w.wantRecords(1)
}

// TestResultDefault: for runtimes that take every address for a pod IP.
func TestResultDefault(t *testing.T) {
	w := newWorld(t)
	res, err := w.delegator().Add(t.Context(), w.request(`,"result":"default"`))
	if err != nil || len(res.Interfaces) != 1 || res.Interfaces[0].Name != "eth0" {
		t.Errorf("result = %v, %v", res, err)
	}
}

// TestRuntimeConfigIsTheDefaultNetworks: "must not be passed to or applied by network attachments other than the
// cluster-wide default network".
func TestRuntimeConfigIsTheDefaultNetworks(t *testing.T) {
	w := newWorld(t)
	w.answer.Networks["blue/one"] = resolve.Network{Config: `{"cniVersion":"1.1.0","type":"fake-one","capabilities":{"portMappings":true}}`}
	got := make(map[string]bool)
	w.on = func(plugin, command string, req *cni.Request) error {
		got[plugin] = strings.Contains(string(req.Config), "runtimeConfig")
		return nil
	}
	req := w.request(`,"runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":2,"protocol":"tcp"}]}`)
	req.Config = []byte(strings.Replace(string(req.Config), `"type":"fake-default"`, `"type":"fake-default","capabilities":{"portMappings":true}`, 1))
	w.answer.Annotations[conf.AnnotationNetworks] = "one"
	if _, err := w.delegator().Add(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if !got["fake-default"] || got["fake-one"] {
		t.Errorf("runtimeConfig was passed to %v", got)
	}
}

// TestArgsForTheDefaultNetwork: an address or a MAC that the runtime asks for can be that of one interface only.
func TestArgsForTheDefaultNetwork(t *testing.T) {
	w := newWorld(t)
	w.answer.Annotations[conf.AnnotationNetworks] = "one"
	var got []string
	w.on = func(_, command string, req *cni.Request) error {
		got = append(got, command+" "+req.IfName+" "+req.Args)
		return nil
	}
	req := w.request("")
	const pod = "K8S_POD_NAMESPACE=blue;K8S_POD_NAME=web"
	const requests = "IP=10.1.0.9;GATEWAY=10.1.0.1;MAC=02:00:00:00:00:09;"
	req.Args = requests + pod
	d := w.delegator()
	if _, err := d.Add(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Check(t.Context(), req), d.Del(t.Context(), req)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"ADD eth0 " + requests + pod, "ADD net1 " + pod, "CHECK eth0 " + requests + pod, "CHECK net1 " + pod,
		"DEL net1 " + pod, "DEL eth0 " + requests + pod,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
}

// TestNameWithoutNamespace: podman hands over a container's name as K8S_POD_NAME, and means no pod by it.
func TestNameWithoutNamespace(t *testing.T) {
	w := newWorld(t)
	w.answer.Annotations[conf.AnnotationNetworks] = "one"
	var got []string
	w.on = func(plugin, command string, _ *cni.Request) error {
		got = append(got, command+" "+plugin)
		return nil
	}
	req := w.request("")
	req.Args = "IgnoreUnknown=1;K8S_POD_NAME=web"
	if _, err := w.delegator().Add(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ADD fake-default"}, got); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestFailedAddLeavesNothing(t *testing.T) {
	cause := types.NewError(types.ErrTryAgainLater, "pool is empty", "")
	for _, tt := range []struct {
		name    string
		prepare func(*world)
		calls   []string
		code    uint
	}{
		{
			name:    "the default network",
			prepare: func(w *world) { w.on = fail("fake-default", "ADD", cause) },
			calls:   []string{"fake-default ADD eth0", "fake-default DEL eth0"},
			code:    11,
		}, {
			// Its parent is in the pod, so fake-two waits for fake-one, and is never attempted.
			name: "a network, before others",
			prepare: func(w *world) {
				w.on = fail("fake-one", "ADD", cause)
				w.answer.Networks["blue/two"] = resolve.Network{Config: `{"cniVersion":"1.1.0","type":"fake-two","linkInContainer":true}`}
			},
			calls: []string{"fake-default ADD eth0", "fake-one ADD net1", "fake-one DEL net1", "fake-default DEL eth0"},
			code:  11,
		}, {
			name: "the report",
			prepare: func(w *world) {
				w.reporting = &resolve.Error{Reason: resolve.Unavailable, Message: "429"}
				w.answer.Annotations[conf.AnnotationNetworks] = "one"
			},
			calls: []string{"fake-default ADD eth0", "fake-one ADD net1", "fake-one DEL net1", "fake-default DEL eth0"},
			code:  11,
		}, {
			name:    "a pod that is not known yet",
			prepare: func(w *world) { w.resolving = &resolve.Error{Reason: resolve.NotFound, Message: "no pod"} },
			calls:   []string{},
			code:    11,
		}, {
			name:    "a network that does not exist",
			prepare: func(w *world) { delete(w.answer.Networks, "blue/two") },
			calls:   []string{},
			code:    7,
		}, {
			name: "an interface that exists",
			prepare: func(w *world) {
				w.answer.Annotations[conf.AnnotationNetworks] = `[{"name":"one","interface":"lo"}]`
			},
			calls: []string{},
			code:  7,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			tt.prepare(w)
			_, err := w.delegator().Add(t.Context(), w.request(""))
			if err == nil || code(err) != tt.code {
				t.Errorf("error = %v, want code %d", err, tt.code)
			}
			w.wantCalls(tt.calls...)
			w.wantRecords(0)
			if w.resolving == nil && !slices.ContainsFunc(w.reports, func(r *resolve.Report) bool {
				return len(r.Events) == 1 && r.Events[0].Type == "Warning"
			}) {
				t.Errorf("no event tells the failure: %v", w.reports)
			}
		})
	}
}

// TestExecIsForAddressPluginsToo: what an own plugin looks up is executed if the operator wants it so, within the
// deadline of plugins.
func TestExecIsForAddressPluginsToo(t *testing.T) {
	w := newWorld(t)
	d := w.delegator()
	var found []cni.Plugin
	own := d.Own(nil)
	own["host-local"] = &cnitest.Fake{Name: "host-local"}
	d.Own = func(find cni.Lookup) map[string]cni.Plugin {
		w.on = func(plugin, command string, _ *cni.Request) error {
			if plugin == "fake-default" && command == "ADD" {
				found = []cni.Plugin{find("host-local"), find("fake-one")}
			}
			return nil
		}
		return own
	}
	if _, err := d.Add(t.Context(), w.request(`,"exec":["host-local"],"deadlines":{"plugin":"7s"}`)); err != nil {
		t.Fatal(err)
	}
	if binary, ok := found[0].(cni.Exec); !ok || binary.Type != "host-local" || binary.Timeout != 7*time.Second {
		t.Errorf("host-local is %#v, want it executed", found[0])
	}
	if _, ok := found[1].(*cnitest.Fake); !ok {
		t.Errorf("fake-one is %#v, want the own plugin", found[1])
	}
}

// TestBinDirComesFirst: as it does with Multus.
func TestBinDirComesFirst(t *testing.T) {
	w := newWorld(t)
	w.answer.Annotations = nil
	var got []string
	w.on = func(_, _ string, req *cni.Request) error {
		got = req.Path
		return nil
	}
	req := w.request(`,"binDir":"/b"`)
	req.Path = []string{"/a", "/b", "/c"}
	if _, err := w.delegator().Add(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if want := []string{"/b", "/a", "/c"}; !slices.Equal(got, want) {
		t.Errorf("CNI_PATH is %q, want %q", got, want)
	}
}

// TestPanicLeavesNothing: attachments are made by goroutines of their own, where a panic would end the process.
func TestPanicLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.on = func(plugin, command string, _ *cni.Request) error {
		if plugin == "fake-one" && command == "ADD" {
			panic("index out of range")
		}
		return nil
	}
	_, err := w.delegator().Add(t.Context(), w.request(""))
	if err == nil || !strings.Contains(err.Error(), "network blue/one: net1: panic: index out of range") {
		t.Errorf("error = %v", err)
	}
	if calls := w.calls(); !slices.Contains(calls, "fake-one DEL net1") || !slices.Contains(calls, "fake-default DEL eth0") {
		t.Errorf("calls: %q", calls)
	}
	w.wantRecords(0)
}

// TestRetryAfterKill: an ADD that was killed has left a record; the next one undoes it first.
func TestRetryAfterKill(t *testing.T) {
	w := newWorld(t)
	w.answer.Annotations[conf.AnnotationNetworks] = "one"
	// The journal is left as a killed process leaves it: attachments made in part, nothing undone.
	w.mustAdd()
	w.calls()
	edit(t, w, func(r map[string]any) {
		r["done"] = false
		delete(r["attachments"].([]any)[1].(map[string]any), "result")
	})
	w.mustAdd()
	w.wantCalls("fake-one DEL net1", "fake-default DEL eth0", "fake-default ADD eth0", "fake-one ADD net1")
	w.wantRecords(1)
}

// edit changes the only record.
func edit(t *testing.T, w *world, change func(map[string]any)) {
	t.Helper()
	w.rewrite()
	path := filepath.Join(w.dir, "attachments", "c1:eth0.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var r map[string]any
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	change(r)
	if b, err = json.Marshal(r); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAddTwice(t *testing.T) {
	w := newWorld(t)
	w.mustAdd()
	w.calls()
	if _, err := w.delegator().Add(t.Context(), w.request("")); err == nil || !strings.Contains(err.Error(), "DEL it first") {
		t.Errorf("error = %v", err)
	}
	w.wantCalls()
	w.wantRecords(1)
}

// TestAddAfterReboot: the namespace of another boot is gone, whatever is at its path now.
func TestAddAfterReboot(t *testing.T) {
	w := newWorld(t)
	w.answer.Annotations = nil
	w.mustAdd()
	w.calls()
	edit(t, w, func(r map[string]any) { r["bootID"] = "boot-0" })
	var netns string
	w.on = func(_, command string, req *cni.Request) error {
		if command == "DEL" {
			netns = "netns:" + req.Netns
		}
		return nil
	}
	w.mustAdd()
	w.wantCalls("fake-default DEL eth0", "fake-default ADD eth0")
	if netns != "netns:" {
		t.Errorf("DEL got %s, want an empty one", netns)
	}
}

// TestUnknownBoot: a boot id that cannot be read is no sign of a reboot.
func TestUnknownBoot(t *testing.T) {
	w := newWorld(t)
	w.mustAdd()
	w.on = func(plugin, command string, req *cni.Request) error {
		if command == "DEL" && req.Netns != w.netns.Path() {
			t.Errorf("%s DEL got the namespace %q, which is there", plugin, req.Netns)
		}
		return nil
	}
	d := w.delegator()
	d.BootID = ""
	if err := d.Del(t.Context(), w.request("")); err != nil {
		t.Error(err)
	}
	w.wantRecords(0)
}

// TestAnotherNamespaceAtThePath: a path like /proc/PID/ns/net leads to that of another process when the PID is used again. That
// namespace may have the inode of the one which is gone.
func TestAnotherNamespaceAtThePath(t *testing.T) {
	for _, tt := range []struct {
		name string
		undo func(*world) error
	}{
		{"DEL", func(w *world) error { return w.delegator().Del(w.t.Context(), w.request("")) }},
		{"GC", func(w *world) error {
			return w.delegator().GC(w.t.Context(), &cni.Request{Config: w.config(`,"cni.dev/valid-attachments":[]`)})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, sameInode := range []bool{false, true} {
				w := newWorld(t)
				w.mustAdd()
				path := w.netns.Path()
				if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
						t.Error(err)
					}
				})
				if sameInode {
					edit(t, w, func(r map[string]any) { r["netnsInode"] = inode(t, path) })
				}
				w.on = func(plugin, command string, req *cni.Request) error {
					if command == "DEL" && req.Netns != "" {
						t.Errorf("%s %s in the namespace of another: %s", plugin, command, req.Netns)
					}
					return nil
				}
				if err := tt.undo(w); err != nil {
					t.Fatal(err)
				}
				w.wantRecords(0)
			}
		})
	}
}

func TestDelNeedsTheJournalOnly(t *testing.T) {
	const noNetns, gone = "empty CNI_NETNS", "the namespace is gone"
	for _, tt := range []struct {
		name   string
		change func(*world, *cni.Request)
	}{
		{"all as it was", func(*world, *cni.Request) {}},
		{noNetns, func(_ *world, r *cni.Request) { r.Netns = "" }},
		{gone, func(w *world, _ *cni.Request) { w.netns.Remove(w.t) }},
		{"API server stopped", func(w *world, _ *cni.Request) { w.resolving, w.reporting = errors.New("down"), errors.New("down") }},
		{"network edited and gone", func(w *world, _ *cni.Request) { w.answer.Networks = nil }},
		{"configuration without networks", func(w *world, r *cni.Request) {
			r.Config = fmt.Appendf(nil, `{"cniVersion":"1.1.0","name":"pods","type":"braid","cniDir":%q}`, w.dir)
		}},
		{"invalid configuration", func(w *world, r *cni.Request) {
			r.Config = fmt.Appendf(nil, `{"cniVersion":"1.1.0","name":"pods","type":"braid","cniDir":%q,"nonsense":1,"delegates":3}`, w.dir)
		}},
		{"other arguments", func(_ *world, r *cni.Request) { r.Args = "" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.mustAdd()
			w.calls()
			reports := len(w.reports)
			want := w.netns.Path()
			if tt.name == noNetns || tt.name == gone { // the runtime knows
				want = ""
			}
			w.on = func(plugin, _ string, req *cni.Request) error {
				if req.Netns != want {
					t.Errorf("%s gets the namespace %q, want %q", plugin, req.Netns, want)
				}
				return nil
			}
			req := w.request("")
			tt.change(w, req)
			for range 2 {
				if err := w.delegator().Del(t.Context(), req); err != nil {
					t.Fatal(err)
				}
			}
			w.wantCalls("fake-two DEL net2", "fake-one DEL net1", "fake-default DEL eth0")
			w.wantRecords(0)
			if len(w.reports) != reports {
				t.Errorf("DEL wrote to the API: %v", w.reports[reports:])
			}
		})
	}
}

func TestDelWithoutAdd(t *testing.T) {
	w := newWorld(t)
	if err := w.delegator().Del(t.Context(), w.request("")); err != nil {
		t.Error(err)
	}
	w.wantCalls()
}

// A pod that was there before Braid: the plugins of the default network undo it, when the runtime has kept its result.
func TestDelOfWhatOthersMade(t *testing.T) {
	w := newWorld(t)
	req := w.request(`,"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"eth0","sandbox":"/n"}]}`)
	w.on = func(_, _ string, req *cni.Request) error {
		if prev, err := cni.PrevResult(req.Config); err != nil || prev == nil || len(prev.Interfaces) != 1 {
			t.Errorf("the plugin got the result %v, %v", prev, err)
		}
		return nil
	}
	if err := w.delegator().Del(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	w.wantCalls("fake-default DEL eth0")
	w.on = fail("fake-default", "DEL", errors.New("busy"))
	if err := w.delegator().Del(t.Context(), req); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("a DEL that failed: %v", err)
	}
	w.calls()
	// The plugin that has made it is the binary, though Braid has one of the type.
	if err := os.WriteFile(filepath.Join(w.dir, "fake-default"), []byte("#!/bin/sh\necho '{\"code\":123,\"msg\":\"the binary\"}'\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	req.Path = []string{w.dir}
	if err := w.delegator().Del(t.Context(), req); err == nil || !strings.Contains(err.Error(), "the binary") {
		t.Errorf("DEL by the binary: %v", err)
	}
	w.wantCalls()
}

// TestFailedDelIsRemembered: "the failure of one shall not prevent teardown of subsequent attachments", and the next
// DEL has only to do what is left.
func TestFailedDelIsRemembered(t *testing.T) {
	w := newWorld(t)
	w.mustAdd()
	w.calls()
	w.on = fail("fake-one", "DEL", errors.New("keeper is down"))
	if err := w.delegator().Del(t.Context(), w.request("")); err == nil || err.Error() != "network blue/one: net1: plugin fake-one: keeper is down" {
		t.Errorf("error = %v", err)
	}
	w.wantCalls("fake-two DEL net2", "fake-one DEL net1", "fake-default DEL eth0")
	w.wantRecords(1)
	if err := w.delegator().Check(t.Context(), w.request("")); err == nil {
		t.Error("CHECK passes on a pod that is half deleted")
	}
	w.on = nil
	if err := w.delegator().Del(t.Context(), w.request("")); err != nil {
		t.Error(err)
	}
	w.wantCalls("fake-one DEL net1")
	w.wantRecords(0)
}

func TestCorruptRecord(t *testing.T) {
	w := newWorld(t)
	w.mustAdd()
	w.calls()
	path := filepath.Join(w.dir, "attachments", "c1:eth0.json")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.delegator().Del(t.Context(), w.request("")); err != nil {
		t.Error(err)
	}
	w.wantCalls("fake-default DEL eth0") // all that the configuration tells
	if _, err := os.Stat(path + ".corrupt"); err != nil {
		t.Errorf("the record was not kept: %v", err)
	}
}

func TestCheck(t *testing.T) {
	w := newWorld(t)
	d := w.delegator()
	if err := d.Check(t.Context(), w.request("")); code(err) != types.ErrUnknownContainer {
		t.Errorf("CHECK without ADD: %v", err)
	}
	w.mustAdd()
	w.calls()
	w.resolving = errors.New("down")
	if err := d.Check(t.Context(), w.request("")); err != nil {
		t.Error(err)
	}
	w.wantCalls("fake-default CHECK eth0", "fake-one CHECK net1", "fake-two CHECK net2")
	w.on = fail("fake-one", "CHECK", errors.New("address is gone"))
	if err := d.Check(t.Context(), w.request("")); err == nil || err.Error() != "network blue/one: net1: plugin fake-one: address is gone" {
		t.Errorf("error = %v", err)
	}
	w.wantCalls("fake-default CHECK eth0", "fake-one CHECK net1", "fake-two CHECK net2")
}

// TestGC: the runtime's (container, eth0) stands for all attachments of the container; those of others go, and each
// network hears of its own.
func TestGC(t *testing.T) {
	w := newWorld(t)
	w.mustAdd()
	stale := w.request("")
	stale.ContainerID = "c0"
	if _, err := w.delegator().Add(t.Context(), stale); err != nil {
		t.Fatal(err)
	}
	w.calls()
	valid := make(map[string]string)
	w.on = func(plugin, command string, req *cni.Request) error {
		if command == "GC" {
			list, err := cni.ValidAttachments(req.Config)
			if err != nil {
				return err
			}
			valid[plugin] = fmt.Sprint(list)
		}
		return nil
	}
	gc := &cni.Request{Config: w.config(`,"cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]`)}
	if err := w.delegator().GC(t.Context(), gc); err != nil {
		t.Fatal(err)
	}
	w.wantCalls("fake-two DEL net2", "fake-one DEL net1", "fake-default DEL eth0", "fake-default GC", "fake-one GC", "fake-two GC")
	want := map[string]string{"fake-default": "[{c1 eth0}]", "fake-one": "[{c1 net1}]", "fake-two": "[{c1 net2}]"}
	if diff := cmp.Diff(want, valid); diff != "" {
		t.Errorf("valid attachments (-want +got):\n%s", diff)
	}
	w.wantRecords(1)
}

// TestGCDuringAdd: an ADD that GC has to wait for cannot be on the list that the runtime made before, be it that it begins to
// attach or that it has but its answer to give.
func TestGCDuringAdd(t *testing.T) {
	for _, during := range []string{"attaching", "reporting"} {
		t.Run(during, func(t *testing.T) {
			w := newWorld(t)
			gc := &cni.Request{Config: w.config(`,"cni.dev/valid-attachments":[]`)}
			collected := make(chan error)
			collect := func() {
				go func() { collected <- w.delegator().GC(t.Context(), gc) }()
				w.untilAllWait()
			}
			w.on = func(plugin, command string, _ *cni.Request) error {
				if during == "attaching" && plugin == "fake-default" && command == "ADD" {
					collect()
				}
				return nil
			}
			if during == "reporting" {
				w.onReport = collect
			}
			w.mustAdd()
			if err := <-collected; err != nil {
				t.Error(err)
			}
			w.wantRecords(1)
			if err := w.delegator().Check(t.Context(), w.request("")); err != nil {
				t.Errorf("CHECK: %v", err)
			}
			if err := w.delegator().GC(t.Context(), gc); err != nil { // by now it could be
				t.Error(err)
			}
			w.wantRecords(0)
		})
	}
}

// untilAllWait returns when GC has called for its turn: no other container can be locked.
func (w *world) untilAllWait() {
	j, err := journal.Open(filepath.Join(w.dir, "attachments"))
	if err != nil {
		w.t.Error(err)
		return
	}
	now, cancel := context.WithCancel(w.t.Context())
	cancel()
	for {
		unlock, err := j.Lock(now, "another")
		if err != nil {
			return
		}
		unlock()
		time.Sleep(time.Millisecond)
	}
}

// TestGCLeavesOtherNetworksAlone: another entry configuration may share the journal.
func TestGCLeavesOtherNetworksAlone(t *testing.T) {
	w := newWorld(t)
	w.mustAdd()
	w.calls()
	config := strings.Replace(string(w.config(`,"cni.dev/valid-attachments":[]`)), `"name":"pods"`, `"name":"others"`, 1)
	if err := w.delegator().GC(t.Context(), &cni.Request{Config: []byte(config)}); err != nil {
		t.Fatal(err)
	}
	w.wantRecords(1)
	for _, call := range w.calls() {
		if strings.Contains(call, "DEL") {
			t.Errorf("call %s", call)
		}
	}
}

// TestGCGivesWay: an ADD that hangs is a pod's own trouble. GC does not keep all others waiting behind it.
func TestGCGivesWay(t *testing.T) {
	w := newWorld(t)
	hanging, end := make(chan struct{}), make(chan struct{})
	w.on = func(plugin, command string, req *cni.Request) error {
		if plugin == "fake-one" && command == "ADD" && req.ContainerID == "c1" {
			close(hanging)
			<-end
		}
		return nil
	}
	d, added := w.delegator(), make(chan error)
	go func() {
		_, err := d.Add(t.Context(), w.request(""))
		added <- err
	}()
	<-hanging
	gc := &cni.Request{Config: w.config(`,"cni.dev/valid-attachments":[],"deadlines":{"gc":"1s"}`)}
	if err := d.GC(t.Context(), gc); code(err) != types.ErrTryAgainLater {
		t.Errorf("GC while an ADD hangs: %v", err)
	}
	ns := nettest.NewNS(t)
	other := w.request("")
	other.ContainerID, other.Netns = "c2", ns.Path()
	if _, err := d.Add(t.Context(), other); err != nil {
		t.Errorf("another ADD while one hangs: %v", err)
	}
	close(end)
	if err := <-added; err != nil {
		t.Error(err)
	}
	w.wantRecords(2)
	if err := d.GC(t.Context(), gc); err != nil {
		t.Errorf("GC afterwards: %v", err)
	}
	w.wantRecords(0)
}

func TestStatus(t *testing.T) {
	w := newWorld(t)
	kubeconfig := filepath.Join(w.dir, "kubeconfig")
	config := func(keys string) *cni.Request {
		return &cni.Request{Config: []byte(strings.Replace(string(w.config(keys)), "/nonexistent", kubeconfig, 1))}
	}
	d := w.delegator()
	if err := d.Status(t.Context(), config("")); code(err) != types.ErrPluginNotAvailable {
		t.Errorf("without a kubeconfig: %v", err)
	}
	if err := os.WriteFile(kubeconfig, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Status(t.Context(), config("")); err != nil {
		t.Errorf("ready: %v", err)
	}
	if err := d.Status(t.Context(), config(`,"readinessindicatorfile":"/nonexistent"`)); code(err) != types.ErrPluginNotAvailable {
		t.Errorf("default network not ready: %v", err)
	}
	for _, flags := range []uintptr{unix.MS_BIND, unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY} {
		if err := unix.Mount(w.dir, w.dir, "", flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Status(t.Context(), config("")); code(err) != types.ErrPluginNotAvailable {
		t.Errorf("the journal is on a disk that is read-only: %v", err)
	}
	if err := unix.Unmount(w.dir, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	w.on = fail("fake-default", "STATUS", types.NewError(types.ErrLimitedConnectivity, "link is down", ""))
	if err := d.Status(t.Context(), config("")); code(err) != types.ErrLimitedConnectivity {
		t.Errorf("a plugin that is not available: %v", err)
	}
}

// TestAddAndDelRace: a runtime that gave up on an ADD sends DEL while the ADD still runs. Whichever comes first,
// nothing stays after the DEL that follows both.
func TestAddAndDelRace(t *testing.T) {
	w := newWorld(t)
	d := w.delegator()
	done := make(chan error)
	for range 4 {
		go func() {
			_, err := d.Add(t.Context(), w.request(""))
			if err != nil && !strings.Contains(err.Error(), "DEL it first") {
				done <- err
				return
			}
			done <- d.Del(t.Context(), w.request(""))
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	w.wantRecords(0)
	made := 0
	for _, call := range w.calls() {
		switch call {
		case "fake-one ADD net1":
			made++
		case "fake-one DEL net1":
			made--
		}
	}
	if made != 0 {
		t.Errorf("%d attachments more made than undone", made)
	}
}

package cni_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/cni/cnitest"
	"github.com/braid-cni/braid/internal/edge"
	"github.com/braid-cni/braid/internal/nettest"
)

// env is the environment of a valid call, with changes: "NAME=value".
func env(t *testing.T, command string, changes ...string) map[string]string {
	t.Helper()
	vars := map[string]string{
		"CNI_COMMAND":     command,
		"CNI_CONTAINERID": "c1",
		"CNI_NETNS":       nettest.NewNS(t).Path(),
		"CNI_IFNAME":      "eth0",
		"CNI_ARGS":        "K8S_POD_NAME=p",
		"CNI_PATH":        "/opt/cni/bin:/usr/lib/cni",
	}
	for _, change := range changes {
		name, value, _ := strings.Cut(change, "=")
		vars[name] = value
	}
	return vars
}

// An answer is what a binary leaves.
type answer struct {
	exit           int
	stdout, stderr string
}

func run(ctx context.Context, p cni.Plugin, vars map[string]string, stdin string) answer {
	var stdout, stderr bytes.Buffer
	exit := cni.Run(ctx, p, "CNI plugin test", cni.Process{
		Env:    func(name string) string { return vars[name] },
		Stdin:  strings.NewReader(stdin),
		Stdout: &stdout,
		Stderr: &stderr,
	})
	return answer{exit, stdout.String(), stderr.String()}
}

type errorResult struct {
	CNIVersion string `json:"cniVersion"`
	Code       uint   `json:"code"`
	Msg        string `json:"msg"`
	Details    string `json:"details"`
}

// failure decodes the error of an answer.
func (a answer) failure(t *testing.T) errorResult {
	t.Helper()
	var e errorResult
	if err := json.Unmarshal([]byte(a.stdout), &e); err != nil {
		t.Fatalf("standard output %q: %v", a.stdout, err)
	}
	if a.exit != 1 || e.Msg == "" || e.Code == 0 || e.CNIVersion == "" {
		t.Errorf("exit code %d, error result %+v", a.exit, e)
	}
	return e
}

func TestRunRefuses(t *testing.T) {
	const conf = `{"cniVersion": "1.1.0", "name": "n"}`
	tests := []struct {
		name  string
		env   map[string]string
		stdin string
		code  uint
		msg   string // each word of it, separated by "|"
	}{
		{"unknown command", env(t, "UPDATE"), conf, 4, `CNI_COMMAND is "UPDATE"`},
		{"ADD without parameters", map[string]string{"CNI_COMMAND": "ADD"}, conf, 4, "CNI_CONTAINERID is missing|CNI_NETNS is missing|CNI_IFNAME is missing"},
		{"CHECK without namespace", env(t, "CHECK", "CNI_NETNS="), conf, 4, "CNI_NETNS is missing"},
		{"DEL without container", env(t, "DEL", "CNI_CONTAINERID="), conf, 4, "CNI_CONTAINERID is missing"},
		{"GC without path", env(t, "GC", "CNI_PATH="), conf, 4, "CNI_PATH is missing"},
		{"container with slash", env(t, "DEL", "CNI_CONTAINERID=a/b"), conf, 4, `CNI_CONTAINERID is "a/b"`},
		{"container with dash", env(t, "DEL", "CNI_CONTAINERID=-a"), conf, 4, `CNI_CONTAINERID is "-a"`},
		{"interface too long", env(t, "ADD", "CNI_IFNAME=abcdefghijklmnop"), conf, 4, `CNI_IFNAME is "abcdefghijklmnop"`},
		{"interface dot", env(t, "ADD", "CNI_IFNAME=."), conf, 4, `CNI_IFNAME is "."`},
		{"interface dots", env(t, "ADD", "CNI_IFNAME=.."), conf, 4, `CNI_IFNAME is ".."`},
		{"interface with slash", env(t, "ADD", "CNI_IFNAME=a/b"), conf, 4, `CNI_IFNAME is "a/b"`},
		{"interface with colon", env(t, "ADD", "CNI_IFNAME=a:b"), conf, 4, `CNI_IFNAME is "a:b"`},
		{"interface with space", env(t, "ADD", "CNI_IFNAME=a b"), conf, 4, `CNI_IFNAME is "a b"`},
		{"interface pattern", env(t, "ADD", "CNI_IFNAME=eth%d"), conf, 4, `CNI_IFNAME is "eth%d"`},
		{"several", env(t, "ADD", "CNI_IFNAME=..", "CNI_CONTAINERID=/"), conf, 4, "CNI_IFNAME|CNI_CONTAINERID"},
		{"no such namespace", env(t, "ADD", "CNI_NETNS=/nonexistent"), conf, 4, `CNI_NETNS is "/nonexistent"`},
		{"own namespace, ADD", env(t, "ADD", "CNI_NETNS=/proc/thread-self/ns/net"), conf, 8, "CNI_NETNS|network namespace of the host"},
		{"own namespace, CHECK", env(t, "CHECK", "CNI_NETNS=/proc/thread-self/ns/net"), conf, 8, "network namespace of the host"},
		{"own namespace, DEL", env(t, "DEL", "CNI_NETNS=/proc/thread-self/ns/net"), conf, 8, "network namespace of the host"},
		{"empty input", env(t, "ADD"), "", 5, "read configuration from standard input: unexpected EOF"},
		{"huge input", env(t, "ADD"), conf + strings.Repeat(" ", 8<<20), 5, "more than 8388608 bytes"},
		{"garbage input", env(t, "ADD"), "hello", 6, "decode configuration"},
		{"torn input", env(t, "DEL"), conf[:20], 6, "decode configuration"},
		{"two documents", env(t, "ADD"), conf + conf, 6, "decode configuration"},
		{"list for a document", env(t, "ADD"), "[" + conf + "]", 6, "decode configuration"},
		{"version is a number", env(t, "ADD"), `{"cniVersion": 1, "name": "n"}`, 6, "cniVersion"},
		{"no name", env(t, "ADD"), `{"cniVersion": "1.1.0"}`, 7, `name is ""`},
		{"null", env(t, "ADD"), `null`, 7, `name is ""`},
		{"name with space", env(t, "ADD"), `{"cniVersion": "1.1.0", "name": "a b"}`, 7, `name is "a b"`},
		{"name with slash", env(t, "GC"), `{"cniVersion": "1.1.0", "name": "../a"}`, 7, `name is "../a"`},
		{"name with dash", env(t, "STATUS"), `{"cniVersion": "1.1.0", "name": "-a"}`, 7, `name is "-a"`},
		{"future version", env(t, "ADD"), `{"cniVersion": "7.0.0", "name": "n"}`, 1, `cniVersion is "7.0.0"|0.1.0, 0.2.0`},
		{"no version", env(t, "DEL"), `{"cniVersion": "latest", "name": "n"}`, 1, `cniVersion is "latest"`},
		{"CHECK of old version", env(t, "CHECK"), `{"cniVersion": "0.3.1", "name": "n"}`, 1, "CHECK needs 0.4.0"},
		{"GC of old version", env(t, "GC"), `{"cniVersion": "1.0.0", "name": "n"}`, 1, "GC needs 1.1.0"},
		{"STATUS of old version", env(t, "STATUS"), `{"name": "n"}`, 1, `cniVersion is "0.1.0", but STATUS needs 1.1.0`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var fake cnitest.Fake
			got := run(t.Context(), &fake, test.env, test.stdin).failure(t)
			if got.Code != test.code || got.CNIVersion != "1.1.0" {
				t.Errorf("got %+v, want code %d", got, test.code)
			}
			for want := range strings.SplitSeq(test.msg, "|") {
				if !strings.Contains(got.Msg, want) {
					t.Errorf("message %q, want %q in it", got.Msg, want)
				}
			}
			if calls := fake.Calls(); len(calls) != 0 {
				t.Errorf("the plugin was called: %v", calls)
			}
		})
	}
}

// What is optional may be missing, and what the command is not about is not handed on.
func TestRunCalls(t *testing.T) {
	const conf = `{"cniVersion": "1.1.0", "name": "n"}`
	alone := cni.Attachment{ContainerID: "c1", IfName: "eth0"}
	tests := []struct {
		name string
		env  map[string]string
		want cni.Request
	}{
		{"DEL", map[string]string{"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c1", "CNI_IFNAME": "eth0"}, cni.Request{Attachment: alone}},
		{"DEL", env(t, "DEL", "CNI_NETNS=/nonexistent", "CNI_ARGS="), cni.Request{
			Attachment: cni.Attachment{ContainerID: "c1", Netns: "/nonexistent", IfName: "eth0"}, Path: []string{"/opt/cni/bin", "/usr/lib/cni"},
		}},
		{"GC", env(t, "GC", "CNI_PATH=/a"), cni.Request{Path: []string{"/a"}}},
		{"STATUS", env(t, "STATUS", "CNI_PATH="), cni.Request{}},
		{"ADD", env(t, "ADD", "CNI_NETNS=/proc/thread-self/ns/net", "CNI_NETNS_OVERRIDE=true", "CNI_PATH="), cni.Request{
			Attachment: cni.Attachment{ContainerID: "c1", Netns: "/proc/thread-self/ns/net", IfName: "eth0", Args: "K8S_POD_NAME=p"},
		}},
		{"CHECK", env(t, "CHECK", "CNI_NETNS=/proc/thread-self/ns/net", "CNI_NETNS_OVERRIDE=1", "CNI_PATH="), cni.Request{
			Attachment: cni.Attachment{ContainerID: "c1", Netns: "/proc/thread-self/ns/net", IfName: "eth0", Args: "K8S_POD_NAME=p"},
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var fake cnitest.Fake
			got := run(t.Context(), &fake, test.env, conf)
			if got.exit != 0 || (got.stdout != "") != (test.name == "ADD") || got.stderr != "" {
				t.Fatalf("got %+v", got)
			}
			calls := fake.Calls()
			if len(calls) != 1 || calls[0].Command != test.name {
				t.Fatalf("calls %v", calls)
			}
			req := calls[0].Request
			if req.Attachment != test.want.Attachment || !slices.Equal(req.Path, test.want.Path) || string(req.Config) != conf {
				t.Errorf("got %+v, want %+v", req, test.want)
			}
		})
	}
}

// "Plugins must output a JSON object ... cniVersion: The same version supplied on input"
func TestRunPrintsAskedVersion(t *testing.T) {
	for _, v := range append(version.All.SupportedVersions(), "") {
		got := run(t.Context(), &cnitest.Fake{Result: wholeResult()}, env(t, "ADD"), fmt.Sprintf(`{"cniVersion": %q, "name": "n"}`, v))
		var doc struct {
			CNIVersion string           `json:"cniVersion"`
			Interfaces []map[string]any `json:"interfaces"`
			IPs        []map[string]any `json:"ips"`
			IP4        map[string]any   `json:"ip4"`
			IP6        map[string]any   `json:"ip6"`
		}
		if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil || got.exit != 0 || got.stderr != "" {
			t.Errorf("%q: %+v: %v", v, got, err)
			continue
		}
		if v == "" {
			v = "0.1.0"
		}
		if doc.CNIVersion != v {
			t.Errorf("%s: cniVersion is %q", v, doc.CNIVersion)
		}
		if v < "0.3" {
			if doc.IP4["ip"] != "10.1.2.3/24" || doc.IP6["ip"] != "fd00::3/64" || doc.IPs != nil || doc.Interfaces != nil {
				t.Errorf("%s: got %s", v, got.stdout)
			}
			continue
		}
		_, told := doc.IPs[0]["version"]
		_, mtu := doc.Interfaces[1]["mtu"]
		if len(doc.IPs) != 2 || len(doc.Interfaces) != 2 || doc.IP4 != nil || told != (v < "1") || v == "1.1.0" && !mtu {
			t.Errorf("%s: got %s", v, got.stdout)
		}
	}
}

// A result that the asked version cannot express is an error, and its attachment is deleted again.
func TestRunUndoesInexpressibleResult(t *testing.T) {
	fake := &cnitest.Fake{}
	got := run(t.Context(), fake, env(t, "ADD"), `{"cniVersion": "0.2.0", "name": "n"}`)
	if e := got.failure(t); e.CNIVersion != "0.2.0" || !strings.Contains(e.Msg, `convert result to CNI version "0.2.0"`) {
		t.Errorf("got %+v", e)
	}
	if calls := commands(fake); !slices.Equal(calls, []string{"ADD", "DEL"}) {
		t.Errorf("calls %v", calls)
	}
}

func commands(f *cnitest.Fake) (names []string) {
	for _, c := range f.Calls() {
		names = append(names, c.Command)
	}
	return names
}

// Nor is a plugin believed that returns nonsense.
func TestRunRefusesOddResults(t *testing.T) {
	for _, res := range []*types100.Result{
		{Interfaces: []*types100.Interface{nil}},
		{IPs: []*types100.IPConfig{nil}},
		{IPs: []*types100.IPConfig{{}}},
		{Routes: []*types.Route{nil}},
		{Routes: []*types.Route{{}}},
	} {
		fake := &cnitest.Fake{Result: res}
		run(t.Context(), fake, env(t, "ADD"), `{"cniVersion": "0.4.0", "name": "n"}`).failure(t)
		if calls := commands(fake); !slices.Equal(calls, []string{"ADD", "DEL"}) {
			t.Errorf("%+v: calls %v", res, calls)
		}
	}
}

func TestRunUndoesUnprintedResult(t *testing.T) {
	fake := &cnitest.Fake{}
	vars := env(t, "ADD")
	var stderr bytes.Buffer
	exit := cni.Run(t.Context(), fake, "", cni.Process{
		Env:    func(name string) string { return vars[name] },
		Stdin:  strings.NewReader(`{"cniVersion": "1.1.0", "name": "n"}`),
		Stdout: broken{},
		Stderr: &stderr,
	})
	if calls := commands(fake); exit != 1 || !slices.Equal(calls, []string{"ADD", "DEL"}) {
		t.Errorf("exit code %d, calls %v", exit, calls)
	}
	if !strings.Contains(stderr.String(), "nobody listens") {
		t.Errorf("standard error: %q", stderr.String())
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("nobody listens") }

func TestRunErrors(t *testing.T) {
	inner := types.NewError(types.ErrTryAgainLater, "pool is exhausted", "10.0.0.0/30")
	undo := errors.New("undo: delete link: busy")
	tests := []struct {
		name string
		err  error
		want errorResult
	}{
		{"plain", errors.New("no luck"), errorResult{Code: 999, Msg: "no luck"}},
		{"coded", inner, errorResult{Code: 11, Msg: "pool is exhausted", Details: "10.0.0.0/30"}},
		{"context is kept", fmt.Errorf("network blue: net1: %w", inner), errorResult{Code: 11, Msg: "network blue: net1: pool is exhausted", Details: "10.0.0.0/30"}},
		{"joined", errors.Join(fmt.Errorf("network blue: %w", inner), undo), errorResult{Code: 11, Msg: "network blue: pool is exhausted; 10.0.0.0/30; undo: delete link: busy"}},
		{"joined within", fmt.Errorf("pod p: %w", errors.Join(errors.New("one"), errors.Join(errors.New("two"), undo))), errorResult{Code: 999, Msg: "pod p: one; two; undo: delete link: busy"}},
		{"several lines", errors.New("\none\n\n two\n"), errorResult{Code: 999, Msg: "one; two"}},
		{"without code", types.NewError(0, "odd", ""), errorResult{Code: 999, Msg: "odd"}},
		{"a terminal", errors.New("a\x1b[2J\r\u202eb\u0085c\x00 \u00a0\xff"), errorResult{Code: 999, Msg: `a\x1b[2J\r\u202eb\u0085c\x00 \u00a0` + "\ufffd"}},
		{"a terminal, of a plugin", types.NewError(7, "a\x1b]0;x\a", "\x1bc"), errorResult{Code: 7, Msg: `a\x1b]0;x\a`, Details: `\x1bc`}},
		{"without end", errors.New(strings.Repeat("é", 1<<20)), errorResult{Code: 999, Msg: strings.Repeat("é", 16<<10+1) + " ... (cut)"}},
		{"markup", errors.New("a <b> & c"), errorResult{Code: 999, Msg: "a <b> & c"}},
		{"not found", &cni.NotFoundError{Type: "x", Path: []string{"/a", "/b"}}, errorResult{Code: 50, Msg: `plugin "x" not found in CNI_PATH "/a:/b"`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.want.CNIVersion = "1.1.0"
			for _, command := range []string{"ADD", "DEL", "CHECK", "GC", "STATUS"} {
				got := run(t.Context(), failing(test.err), env(t, command), `{"cniVersion": "1.1.0", "name": "n"}`)
				if e := got.failure(t); e != test.want {
					t.Errorf("%s: got %+v, want %+v", command, e, test.want)
				}
				if got.stderr != "" {
					t.Errorf("%s: standard error %q", command, got.stderr)
				}
			}
		})
	}
}

// A failed ADD is not deleted: it has left nothing, and the interface may be somebody else's.
func TestRunTrustsFailedAdd(t *testing.T) {
	fake := failing(errors.New("exists")).(*cnitest.Fake)
	run(t.Context(), fake, env(t, "ADD"), `{"name": "n"}`).failure(t)
	if calls := commands(fake); !slices.Equal(calls, []string{"ADD"}) {
		t.Errorf("calls %v", calls)
	}
}

func TestRunPanics(t *testing.T) {
	for _, command := range []string{"ADD", "DEL", "CHECK", "GC", "STATUS"} {
		fake := &cnitest.Fake{On: func(context.Context, string, *cni.Request) error { panic("oops") }}
		got := run(t.Context(), fake, env(t, command), `{"cniVersion": "1.1.0", "name": "n"}`)
		want := "panic: oops"
		if command == "ADD" { // what it has begun is undone, which panics as well
			want = "panic: oops; undo: DEL: panic: oops"
		}
		if e := got.failure(t); e.Code != 999 || e.Msg != want {
			t.Errorf("%s: got %+v", command, e)
		}
		if !strings.Contains(got.stderr, "main_test.go") {
			t.Errorf("%s: no stack on standard error: %s", command, got.stderr)
		}
	}
}

func TestRunVersion(t *testing.T) {
	for stdin, want := range map[string]string{
		"":                        "1.1.0",
		"garbage":                 "1.1.0",
		`{}`:                      "1.1.0",
		`{"cniVersion": "0.4.0"}`: "0.4.0",
		`{"cniVersion": "9.9.9"}`: "9.9.9",
	} {
		fake := failing(errors.New("not to be called"))
		got := run(t.Context(), fake, map[string]string{"CNI_COMMAND": "VERSION"}, stdin)
		var doc struct {
			CNIVersion        string   `json:"cniVersion"`
			SupportedVersions []string `json:"supportedVersions"`
		}
		if err := json.Unmarshal([]byte(got.stdout), &doc); err != nil || got.exit != 0 {
			t.Errorf("%q: %+v: %v", stdin, got, err)
		}
		if doc.CNIVersion != want || !slices.Equal(doc.SupportedVersions, version.All.SupportedVersions()) {
			t.Errorf("%q: got %+v, want %s", stdin, doc, want)
		}
	}
}

func TestRunByHand(t *testing.T) {
	got := run(t.Context(), &cnitest.Fake{}, nil, "")
	if got.exit != 0 || got.stdout != "" || !strings.HasPrefix(got.stderr, "CNI plugin test\nCNI versions supported: 0.1.0, 0.2.0, ") {
		t.Errorf("got %+v", got)
	}
}

// A runtime that never ends standard input does not hold the plugin beyond its context.
func TestRunInputNeverEnds(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	r, w := io.Pipe()
	defer w.Close()
	vars := env(t, "ADD")
	var stdout bytes.Buffer
	exit := cni.Run(ctx, &cnitest.Fake{}, "", cni.Process{Env: func(name string) string { return vars[name] }, Stdin: r, Stdout: &stdout, Stderr: io.Discard})
	if e := (answer{exit: exit, stdout: stdout.String()}).failure(t); e.Code != types.ErrIOFailure || !strings.Contains(e.Msg, "enough") {
		t.Errorf("got %+v", e)
	}
}

// binary starts a test plugin as a runtime does.
func binary(t *testing.T, name, command string) *exec.Cmd {
	t.Helper()
	path := install(t, name, "hang", "hangs")
	cmd := exec.Command(filepath.Join(path[0], prefix+name))
	cmd.Env = os.Environ()
	for name, value := range env(t, command, "CNI_PATH="+path[0]) {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stdin = strings.NewReader(`{"cniVersion": "1.1.0", "name": "n"}`)
	return cmd
}

// SIGTERM ends the context, so that the plugin undoes what it began, and answers.
func TestMainSignal(t *testing.T) {
	cmd := binary(t, "waits", "ADD")
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	cmd.Stderr = &waiting{found: func(int) { _ = cmd.Process.Signal(syscall.SIGTERM) }}
	_ = cmd.Run()
	e := answer{exit: cmd.ProcessState.ExitCode(), stdout: stdout.String()}.failure(t)
	if !strings.Contains(e.Msg, "terminated") {
		t.Errorf("got %+v", e)
	}
}

// A runtime that went away does not get the result, and the attachment is deleted.
func TestMainClosedOutput(t *testing.T) {
	cmd := binary(t, "loud", "ADD")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	var stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &stderr
	_ = cmd.Run()
	if cmd.ProcessState.ExitCode() != 1 || !strings.HasPrefix(stderr.String(), "called: ADD\ncalled: DEL\n") {
		t.Errorf("%v, standard error: %s", cmd.ProcessState, stderr.String())
	}
}

// The binaries that a plugin executes do not outlive it.
func TestMainKilled(t *testing.T) {
	cmd := binary(t, "proxy", "ADD")
	stderr := &waiting{found: func(int) { _ = cmd.Process.Kill() }}
	cmd.Stderr = stderr
	if err := cmd.Run(); err == nil {
		t.Error("the plugin was not killed")
	}
	waitDead(t, stderr.pid)
}

// A closed standard input is no configuration.
func TestMainClosedInput(t *testing.T) {
	cmd := binary(t, "ok", "ADD")
	// Only a shell starts a process without the descriptor.
	shell := exec.Command("/bin/sh", "-c", `exec "$0" <&-`, cmd.Path)
	shell.Env = cmd.Env
	stdout, _ := shell.Output()
	if e := (answer{exit: shell.ProcessState.ExitCode(), stdout: string(stdout)}).failure(t); e.Code != types.ErrIOFailure {
		t.Errorf("got %+v", e)
	}
}

func FuzzRun(f *testing.F) {
	f.Add("ADD", []byte(`{"cniVersion": "1.1.0", "name": "n", "prevResult": {"ips": [{"address": "10.0.0.1/8"}]}}`))
	f.Add("CHECK", []byte(`{"cniVersion": "0.4.0", "name": "n", "prevResult": {"interfaces": [null]}}`))
	f.Add("VERSION", []byte(`{"cniVersion": "0.2.0"}`))
	f.Add("GC", []byte(`{"cniVersion": "1.1.0", "name": "n", "cni.dev/valid-attachments": [{}]}`))
	f.Add("DEL", []byte(`[`))
	f.Fuzz(func(t *testing.T, command string, stdin []byte) {
		vars := map[string]string{"CNI_COMMAND": command, "CNI_CONTAINERID": "c", "CNI_NETNS": "/dev/null", "CNI_IFNAME": "eth0", "CNI_PATH": "/"}
		fake := &cnitest.Fake{On: func(context.Context, string, *cni.Request) error { return nil }}
		got := run(t.Context(), fake, vars, string(stdin))
		silent := got.exit == 0 && command != "ADD" && command != "VERSION"
		if got.exit != 0 && got.exit != 1 || silent != (got.stdout == "") || !silent && !json.Valid([]byte(got.stdout)) {
			t.Errorf("got %+v", got)
		}
		if strings.Contains(got.stderr, "panic") {
			t.Errorf("panic: %s", got.stderr)
		}
	})
}

// The name of a call is that of this call alone: plugins that it executes have others.
func TestMainCallID(t *testing.T) {
	for name, want := range map[string]string{"": `call ""`, "abc": `call "abc"`} {
		cmd := binary(t, "named", "DEL")
		if name != "" {
			cmd.Env = append(cmd.Env, edge.CallEnv+"="+name)
		}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil || stderr.String() != want+", inherited: false\n" {
			t.Errorf("%q: found %q, %v, want %s", name, stderr.String(), err, want)
		}
	}
}

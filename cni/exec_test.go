package cni_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/cni"
	"github.com/braid-cni/braid/internal/nettest"
)

func request(path []string) *cni.Request {
	return &cni.Request{
		Attachment: cni.Attachment{ContainerID: "c1", Netns: "/dev/null", IfName: "net1", Args: "FOO=BAR;ABC=123"},
		Path:       path,
		Config:     []byte(`{"cniVersion": "1.0.0", "name": "n", "type": "t"}`),
	}
}

func TestExecAnswers(t *testing.T) {
	tests := []struct {
		plugin string
		want   string // in the error; empty for success
		code   uint
	}{
		{plugin: "deaf"},
		{plugin: "noise"},
		{plugin: "silent", code: types.ErrDecodingFailure, want: `decode result: unexpected end of JSON input in result ""`},
		{plugin: "garbage", code: types.ErrDecodingFailure, want: `in result "Segmentation fault, probably"`},
		{plugin: "two", code: types.ErrDecodingFailure, want: "after top-level value"},
		{plugin: "trailing", code: types.ErrDecodingFailure, want: "after top-level value"},
		{plugin: "endless", want: "stopped during ADD: standard output exceeds 1048576 bytes"},
		{plugin: "error", code: types.ErrTryAgainLater, want: "no lease; the server is silent"},
		{plugin: "plainerror", code: types.ErrInternal, want: "something else"},
		{plugin: "resultfirst", code: types.ErrInvalidNetNS, want: "not this namespace"},
		{plugin: "mute", want: "exit status 3 without a message"},
		{plugin: "stderr", want: `exit status 3; standard error: "cannot find\nmy keys"`},
		{plugin: "nonjson", want: `exit status 2; no CNI error in standard output: "panic: oops"`},
		{plugin: "emptyerror", want: `exit status 1; no CNI error in standard output: "{}"`},
		{plugin: "killed", want: "signal: killed; no CNI error in standard output: "},
		{plugin: "panics", want: "panic: at the disco"},
	}
	for _, test := range tests {
		t.Run(test.plugin, func(t *testing.T) {
			t.Parallel()
			req := request(install(t, test.plugin))
			req.Config = append(req.Config, bytes.Repeat([]byte(" "), 1<<20)...) // more than a pipe holds
			res, err := cni.Exec{Type: prefix + test.plugin, Stderr: io.Discard}.Add(t.Context(), req)
			if test.want == "" {
				if err != nil || len(res.IPs) != 1 {
					t.Fatalf("got %v, %v", res, err)
				}
				return
			}
			if err == nil {
				t.Fatalf("no error, result %v", res)
			}
			if !strings.HasPrefix(err.Error(), "plugin testplugin-"+test.plugin+": ") || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q, want %q in it", err, test.want)
			}
			var coded *types.Error
			if errors.As(err, &coded) != (test.code != 0) || coded != nil && coded.Code != test.code {
				t.Errorf("got %#v, want code %d", coded, test.code)
			}
		})
	}
}

// An error keeps what the plugin put into it.
func TestExecKeepsError(t *testing.T) {
	err := cni.Exec{Type: prefix + "error"}.Del(t.Context(), request(install(t, "error")))
	var got *types.Error
	if !errors.As(err, &got) || got.Code != 11 || got.Msg != "no lease" || got.Details != "the server is silent" {
		t.Errorf("got %#v of %v", got, err)
	}
}

func TestExecRefusesResults(t *testing.T) {
	path := install(t, "answers")
	tests := map[string]string{ // what is wrong, by what the plugin prints
		`{"cniVersion": "9.9.9"}`: `unsupported CNI version "9.9.9"`,
		`{"cniVersion": "x"}`:     `unsupported CNI result version "x"`,
		`{"cniVersion": 1}`:       "cannot unmarshal number",
		`[]`:                      "cannot unmarshal array",
		`{"cniVersion": "0.4.0", "interfaces": [null]}`:                        "interfaces[0] is null",
		`{"cniVersion": "0.4.0", "ips": [null]}`:                               "ips[0] has no address",
		`{"cniVersion": "1.0.0", "ips": [{"gateway": "10.0.0.1"}]}`:            "ips[0] has no address",
		`{"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1"}]}`:            "invalid CIDR address",
		`{"cniVersion": "1.0.0", "routes": [{"gw": "10.0.0.1"}]}`:              "routes[0] has no dst",
		`{"cniVersion": "0.2.0", "ip4": {"routes": [{}]}}`:                     "ips[0] has no address",
		`{"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.1/8", "routes": [{}]}}`: "routes[0] has no dst",
	}
	for doc, want := range tests {
		req := request(path)
		req.Args = "answer=" + doc
		if res, err := (cni.Exec{Type: prefix + "answers"}).Add(t.Context(), req); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v, want %q", doc, res, err, want)
		}
	}
}

// Indexes that point nowhere are for the caller to judge.
func TestExecKeepsOddIndexes(t *testing.T) {
	req := request(install(t, "answers"))
	req.Args = `answer={"cniVersion": "1.0.0", "ips": [{"address": "10.0.0.1/8", "interface": -1}, {"address": "10.0.0.2/8", "interface": 99}]}`
	res, err := cni.Exec{Type: prefix + "answers"}.Add(t.Context(), req)
	if err != nil || *res.IPs[0].Interface != -1 || *res.IPs[1].Interface != 99 {
		t.Errorf("got %v, %v", res, err)
	}
}

// "The delegated plugin must receive all the same environment variables that were passed in to the CNI plugin."
func TestExecEnvironment(t *testing.T) {
	t.Setenv("UNRELATED", "stays")
	t.Setenv("CNI_NETNS_OVERRIDE", "1")
	for _, stale := range []string{"CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"} {
		t.Setenv(stale, "stale")
	}
	req := request(append([]string{"/nonexistent"}, install(t, "echo")...))
	req.Netns = ""
	res, err := cni.Exec{Type: prefix + "echo"}.Add(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if res.DNS.Domain != string(req.Config) {
		t.Errorf("standard input was %q, want %q", res.DNS.Domain, req.Config)
	}
	for _, want := range []string{
		"UNRELATED=stays", "CNI_NETNS_OVERRIDE=1",
		"CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_NETNS=", "CNI_IFNAME=net1", "CNI_ARGS=FOO=BAR;ABC=123", "CNI_PATH=" + strings.Join(req.Path, ":"),
	} {
		if !slices.Contains(res.DNS.Options, want) {
			t.Errorf("no %q in the environment %q", want, res.DNS.Options)
		}
	}
	if slices.ContainsFunc(res.DNS.Options, func(v string) bool { return strings.HasSuffix(v, "=stale") }) {
		t.Errorf("stale parameters in the environment %q", res.DNS.Options)
	}
}

func TestExecFindsBinary(t *testing.T) {
	path := install(t, "deaf")
	if err := os.Mkdir(filepath.Join(path[0], "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	notFound := func(typ string, path ...string) {
		t.Helper()
		err := cni.Exec{Type: typ}.Del(t.Context(), request(path))
		var e *cni.NotFoundError
		if !errors.As(err, &e) || e.Type != typ || !slices.Equal(e.Path, path) {
			t.Errorf("%q in %q: got %v", typ, path, err)
		}
		var coded *types.Error
		if !errors.As(err, &coded) || coded.Code != types.ErrPluginNotAvailable {
			t.Errorf("%q in %q: got %v, want code 50", typ, path, err)
		}
	}
	notFound("absent", path...)
	notFound("folder", path...)
	notFound("true")
	notFound("true", "") // must not be looked up in $PATH

	for _, bad := range []string{"", ".", "..", "/bin/true", "../" + filepath.Base(path[0]) + "/" + prefix + "deaf", `a\b`, "a\x00b"} {
		var coded *types.Error
		if err := (cni.Exec{Type: bad}).Del(t.Context(), request(path)); !errors.As(err, &coded) || coded.Code != types.ErrInvalidNetworkConfig {
			t.Errorf("%q: got %v, want code 7", bad, err)
		}
	}

	t.Chdir(path[0])
	for _, relative := range []string{".", "../" + filepath.Base(path[0])} {
		if err := (cni.Exec{Type: prefix + "deaf"}).Del(t.Context(), request([]string{"/nonexistent", relative})); err != nil {
			t.Errorf("relative path: %v", err)
		}
	}
}

func TestExecResultOfAnyVersion(t *testing.T) {
	path := install(t, "ok")
	for _, v := range version.All.SupportedVersions() {
		req := request(path)
		req.Netns = nettest.NewNS(t).Path()
		req.Config = fmt.Appendf(nil, `{"cniVersion": %q, "name": "n"}`, v)
		res, err := cni.Exec{Type: prefix + "ok"}.Add(t.Context(), req)
		if err != nil {
			t.Errorf("%s: %v", v, err)
			continue
		}
		if res.CNIVersion != "1.1.0" || len(res.IPs) != 2 || res.IPs[0].Address.String() != "10.1.2.3/24" || res.IPs[1].Address.String() != "fd00::3/64" ||
			len(res.Routes) != 2 || len(res.DNS.Search) != 1 {
			t.Errorf("%s: got %v", v, res)
		}
		if v >= "0.3" && (len(res.Interfaces) != 2 || *res.IPs[1].Interface != 1) {
			t.Errorf("%s: got %v", v, res)
		}
	}
}

// A result without a version is of that of the configuration, and an empty one is allowed.
func TestExecResultWithoutVersion(t *testing.T) {
	path := install(t, "answers")
	for _, v := range version.All.SupportedVersions() {
		req := request(path)
		req.Config = fmt.Appendf(nil, `{"cniVersion": %q}`, v)
		req.Args = "answer={}"
		res, err := cni.Exec{Type: prefix + "answers"}.Add(t.Context(), req)
		if err != nil || res.CNIVersion != "1.1.0" || len(res.IPs)+len(res.Interfaces)+len(res.Routes) != 0 {
			t.Errorf("%s: got %v, %v", v, res, err)
		}
	}
}

// A plugin is not asked what the version of its configuration does not know.
func TestExecCommandsOfVersions(t *testing.T) {
	path := install(t, "error")
	plugin := cni.Exec{Type: prefix + "error"}
	calls := []struct {
		name  string
		since string
		call  func(context.Context, *cni.Request) error
	}{
		{"DEL", "0.1.0", plugin.Del},
		{"CHECK", "0.4.0", plugin.Check},
		{"GC", "1.1.0", plugin.GC},
		{"STATUS", "1.1.0", plugin.Status},
	}
	for _, v := range version.All.SupportedVersions() {
		for _, c := range calls {
			req := request(path)
			req.Netns = nettest.NewNS(t).Path()
			req.Config = fmt.Appendf(nil, `{"cniVersion": %q, "name": "n"}`, v)
			var coded *types.Error
			err := c.call(t.Context(), req)
			if asked := errors.As(err, &coded) && coded.Code == 11; asked != (v >= c.since) || !asked && err != nil {
				t.Errorf("%s with %s: got %v", c.name, v, err)
			}
		}
	}
	// What cannot be read cannot be decided, except that DEL needs nothing.
	req := request(install(t, "deaf"))
	req.Config = []byte("{")
	deaf := cni.Exec{Type: prefix + "deaf"}
	if err := deaf.Check(t.Context(), req); err == nil {
		t.Error("CHECK passes with a torn configuration")
	}
	if err := deaf.Del(t.Context(), req); err != nil {
		t.Errorf("DEL with a torn configuration: %v", err)
	}
}

// When the context ends, the plugin is killed with all it forked, whoever holds its output.
func TestExecKills(t *testing.T) {
	for _, plugin := range []string{"hangs", "forkshangs"} {
		t.Run(plugin, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			stderr := &waiting{found: func(int) { cancel(errors.New("enough")) }}
			_, err := cni.Exec{Type: prefix + plugin, Stderr: stderr}.Add(ctx, request(install(t, plugin, "hang")))
			if err == nil || !strings.Contains(err.Error(), "stopped during ADD: enough") {
				t.Errorf("got %v", err)
			}
			waitDead(t, stderr.pid)
		})
	}
}

func TestExecTimeout(t *testing.T) {
	plugin := cni.Exec{Type: prefix + "hangs", Stderr: io.Discard, Timeout: 100 * time.Millisecond}
	err := plugin.Del(t.Context(), request(install(t, "hangs")))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "stopped during DEL: not done in 100ms") {
		t.Errorf("got %v", err)
	}
}

// What a plugin leaves running, as some start a daemon, does not keep it from having succeeded.
func TestExecLeftProcess(t *testing.T) {
	stderr := &waiting{found: func(int) {}}
	res, err := cni.Exec{Type: prefix + "forksleaves", Stderr: stderr}.Add(t.Context(), request(install(t, "forksleaves", "hang")))
	if err != nil || len(res.IPs) != 1 {
		t.Errorf("got %v, %v", res, err)
	}
	if err := syscall.Kill(stderr.pid, syscall.SIGKILL); err != nil {
		t.Errorf("the process that the plugin left: %v", err)
	}
	waitDead(t, stderr.pid)
}

func TestExecForwardsStderr(t *testing.T) {
	var stderr bytes.Buffer
	if err := (cni.Exec{Type: prefix + "noise", Stderr: &stderr}).Del(t.Context(), request(install(t, "noise"))); err != nil {
		t.Error(err)
	}
	if !strings.HasPrefix(stderr.String(), "noise noise ") || stderr.Len() != 1<<20 {
		t.Errorf("got %d bytes of %.20q, want 1 MiB", stderr.Len(), stderr.String())
	}
}

// An upgrade of a plugin may be writing its file.
func TestExecBusyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	plugin, req := cni.Exec{Type: "script"}, request([]string{filepath.Dir(path)})
	time.AfterFunc(200*time.Millisecond, func() { f.Close() })
	if err := plugin.Del(t.Context(), req); err != nil {
		t.Errorf("after the file was written: %v", err)
	}
}

// waiting is a standard error on which a plugin tells that it waits.
type waiting struct {
	mu    sync.Mutex
	pid   int
	found func(pid int)
}

func (w *waiting) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := fmt.Sscanf(string(p), "waiting: %d", &w.pid); err == nil {
		w.found(w.pid)
	}
	return len(p), nil
}

// waitDead fails the test if a process lives on.
func waitDead(t *testing.T, pid int) {
	t.Helper()
	if pid == 0 {
		t.Fatal("the plugin has not told its process id")
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return
		}
		// A zombie waits for its parent only.
		if _, state, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(state, "Z") {
			return
		}
	}
	t.Errorf("process %d lives on", pid)
}

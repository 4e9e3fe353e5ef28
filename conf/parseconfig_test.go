package conf_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/internal/memo"
)

func TestDefaults(t *testing.T) {
	got, err := conf.Parse([]byte(`{"name": "pods"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &conf.Config{
		CNIVersion:       "0.1.0",
		Name:             "pods",
		ConfDir:          "/etc/cni/braid/net.d",
		BinDir:           "/opt/cni/bin",
		CNIDir:           "/var/lib/cni/braid",
		DaemonSocket:     "/run/braid/braidd.sock",
		NetworkNamespace: "kube-system",
		SystemNamespaces: []string{"kube-system"},
		GlobalNamespaces: []string{"default"},
		Result:           conf.ResultMerged,
		Log:              conf.Log{Level: slog.LevelWarn, ToStderr: true},
		Deadlines: conf.Deadlines{
			Add: 100 * time.Second, Del: 100 * time.Second, Check: time.Minute, GC: 100 * time.Second, Status: 10 * time.Second,
			Plugin: time.Minute, Resolve: 15 * time.Second,
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// What the runtime puts in is of one call, whatever is remembered of the configuration.
func TestRuntimeKeysAreNotRemembered(t *testing.T) {
	m := new(memo.Memory)
	parse := func(keys string) (*conf.Config, error) {
		return conf.ParseWith(m, []byte(`{"name": "pods", "clusterNetwork": "net", "policy": [{"namespaces": ["*"]}]`+keys+`}`))
	}
	first, err := parse(`, "prevResult": {"cniVersion": "1.0.0"}, "args": {"cni": {}}, "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}],
		"runtimeConfig": {"mac": "02:00:00:00:00:01", "io.kubernetes.cri.pod-annotations": {"a": "b"}}`)
	if err != nil || first.PrevResult == nil || first.Args == nil || len(first.ValidAttachments) != 1 || len(first.RuntimeConfig) != 2 || first.PodAnnotations["a"] != "b" {
		t.Fatalf("got %+v, %v", first, err)
	}
	second, err := parse("")
	if err != nil || second.PrevResult != nil || second.Args != nil || second.ValidAttachments != nil || second.RuntimeConfig != nil || second.PodAnnotations != nil {
		t.Errorf("got %+v, %v", second, err)
	}
	if &first.Policy[0] != &second.Policy[0] {
		t.Error("the rest is not remembered")
	}
	for keys, want := range map[string]string{
		`, "runtimeConfig": 1`:                       "runtimeConfig: found 1",
		`, "prevResult": {}, "prevresult": {}`:       "differ in case only",
		`, "runtimeConfig": {}, "runtimeConfig": {}`: "occurs twice",
		`, "PrevResult": {}`:                         `did you mean "prevResult"`,
		`, "prevResullt": {}`:                        `did you mean "prevResult"`,
	} {
		_, err := parse(keys)
		wantError(t, err, types.ErrInvalidNetworkConfig, want)
	}
}

// A key is as long as it is: the end of one is not taken for the beginning of a value.
func TestOtherKeysAreNotTakenForRemembered(t *testing.T) {
	m := new(memo.Memory)
	if _, err := conf.ParseWith(m, []byte(`{"name":"a","result":"merged"}`)); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`{"name\":\"a\",\"result":"merged"}`, `{"name\u0000\"a\"\u0000result":"merged"}`, `{"name":"a","result":"merged","":1}`} {
		if _, err := conf.ParseWith(m, []byte(text)); err == nil {
			t.Errorf("%s: no error", text)
		}
	}
}

// DEL does not need a valid configuration: the folder of the journal is enough.
func TestInvalidConfigIsEnoughToDelete(t *testing.T) {
	got, err := conf.Parse([]byte(`{"name": "pods", "cniDir": "/srv/cni", "clusterNetwrok": "pods", "delegates": 7, "result": "all"}`))
	wantError(t, err, types.ErrInvalidNetworkConfig, "clusterNetwrok")
	if got.CNIDir != "/srv/cni" || got.BinDir != "/opt/cni/bin" {
		t.Errorf("got cniDir %q and binDir %q", got.CNIDir, got.BinDir)
	}
	for _, input := range []string{"", "null", "{", "[]"} {
		got, err := conf.Parse([]byte(input))
		wantError(t, err, types.ErrDecodingFailure, "")
		if got == nil || got.CNIDir != "/var/lib/cni/braid" {
			t.Errorf("%q: got %+v, want the defaults", input, got)
		}
	}
}

func TestCheckDefaultNetwork(t *testing.T) {
	for input, ok := range map[string]bool{
		`{"name": "pods"}`:                                                    false,
		`{"name": "pods", "prevResult": null}`:                                false,
		`{"name": "pods", "prevResult": {}}`:                                  true,
		`{"name": "pods", "clusterNetwork": "pods"}`:                          true,
		`{"name": "pods", "delegates": [{"name": "pods", "type": "bridge"}]}`: true,
	} {
		c, err := conf.Parse([]byte(input))
		if err != nil {
			t.Fatal(err)
		}
		err = c.CheckDefaultNetwork()
		if ok && err != nil {
			t.Errorf("%s: %v", input, err)
		} else if !ok {
			wantError(t, err, types.ErrInvalidNetworkConfig, `found neither "delegates" nor "clusterNetwork"`)
		}
	}
}

func TestLogLevels(t *testing.T) {
	for level, want := range map[string]slog.Level{
		"panic": conf.LevelPanic, "error": slog.LevelError, "warn": slog.LevelWarn, "warning": slog.LevelWarn,
		"info": slog.LevelInfo, "verbose": slog.LevelInfo, "debug": slog.LevelDebug, "DEBUG": slog.LevelDebug,
	} {
		c, err := conf.Parse([]byte(`{"name": "pods", "logLevel": "` + level + `"}`))
		if err != nil {
			t.Fatal(err)
		}
		if c.Log.Level != want {
			t.Errorf("%s: got %v, want %v", level, c.Log.Level, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	seed(f, "config.txtar")
	m := new(memo.Memory)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := conf.Parse(b)
		if c == nil {
			t.Fatal("no Config")
		}
		for range 2 {
			remembered, again := conf.ParseWith(m, b)
			remembered.Memory = nil
			if fmt.Sprint(err) != fmt.Sprint(again) || !reflect.DeepEqual(c, remembered) {
				t.Errorf("%s decodes to %+v, %v, with a memory to %+v, %v", b, c, err, remembered, again)
			}
		}
		if err != nil {
			return
		}
		if c.Name == "" || c.CNIDir == "" || c.Deadlines.Add <= 0 {
			t.Errorf("%s decodes to %+v", b, c)
		}
		for _, n := range c.Delegates {
			if _, err := json.Marshal(n); err != nil || len(n.Plugins) == 0 {
				t.Errorf("%s has delegate %+v: %v", b, n, err)
			}
		}
	})
}

// The configuration is decoded in every start of the process.
func BenchmarkParse(b *testing.B) {
	config := []byte(`{"cniVersion": "1.1.0", "name": "pods", "type": "braid", "kubeconfig": "/etc/cni/net.d/braid.kubeconfig",
		"capabilities": {"portMappings": true, "bandwidth": true, "io.kubernetes.cri.pod-annotations": true}, "delegates": [
		{"name": "pods", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]]}},
		{"type": "portmap", "capabilities": {"portMappings": true}}]}]}`)
	for name, m := range map[string]*memo.Memory{"anew": nil, "remembered": new(memo.Memory)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := conf.ParseWith(m, config); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package main

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/braid-cni/braid/internal/edge"
)

func TestDaemonSocket(t *testing.T) {
	for config, want := range map[string]string{
		`{}`:                           edge.DefaultDaemonSocket,
		`{"name": "a", "daemon": "b"}`: edge.DefaultDaemonSocket,
		`{"daemonSocket": "/run/x.sock", "name": "a"}`:           "/run/x.sock",
		"{\"a\":[{}],\r\n\t\"daemonSocket\" :\n\"/run/x.sock\"}": "/run/x.sock",
		`{"daemonSocketPath": "/a", "x": "daemonSocket"}`:        edge.DefaultDaemonSocket,
		`{"x": "\"daemonSocket\": \"/a\"", "y": "\\"}`:           edge.DefaultDaemonSocket,
		// What is within is of others, tenants among them.
		`{"runtimeConfig": {"io.kubernetes.cri.pod-annotations": {"daemonSocket": "/evil"}}}`:                          edge.DefaultDaemonSocket,
		`{"delegates": [{"daemonSocket": "/evil"}], "daemonSocket": "/run/x.sock", "args": {"daemonSocket": "/evil"}}`: "/run/x.sock",
		`[{"daemonSocket": "/evil"}]`: edge.DefaultDaemonSocket,

		// Braid reads it, and says what is wrong, if anything is.
		``: edge.DefaultDaemonSocket, // there is nothing to be read
		`{"daemonSocket": "/a", "daemonSocket": "/b"}`: "",
		`{"DaemonSocket": "/a"}`:                       "",
		`{"daemon\u0053ocket": "/a"}`:                  "",
		`{"daemonSocket": "/\u0061"}`:                  "",
		`{"daemonSocket": "a"}`:                        "",
		`{"daemonSocket": ""}`:                         "",
		`{"daemonSocket": null}`:                       "",
		`{"daemonSocket": "/a`:                         "",
		`{"daemonSocket`:                               "",
		`{"daemonSocket":`:                             "",
		`{"daemonSocket": "/a"`:                        "",
		`{"a`:                                          "",
		`{`:                                            "",
		`}`:                                            "",
	} {
		if got, ok := daemonSocket([]byte(config)); ok != (want != "") || ok && string(got) != want {
			t.Errorf("%s: found %q, %t, want %q", config, got, ok, want)
		}
	}
}

// FuzzDaemonSocket: what is found in a configuration is what everybody else finds there.
func FuzzDaemonSocket(f *testing.F) {
	f.Add([]byte(`{"name":"a","daemonSocket":"/run/x.sock","delegates":[{"daemonSocket":"/y","x":[1,2.5e3,true,null,"\"}"]}]}`))
	f.Add([]byte(`{"daemonSocket":"/a","DAEMONSOCKET":"/b"}`))
	f.Add([]byte("{\"daemon\u017focket\":\"/a\"}"))
	f.Add([]byte(`{"\u0064aemonSocket":"/a","args":{"daemonSocket":"/b"}}`))
	f.Fuzz(func(t *testing.T, config []byte) {
		path, ok := daemonSocket(config)
		var c struct {
			DaemonSocket string `json:"daemonSocket"`
		}
		if !ok || !utf8.Valid(config) || json.Unmarshal(config, &c) != nil {
			return
		}
		want := c.DaemonSocket
		if want == "" {
			want = edge.DefaultDaemonSocket
		}
		if string(path) != want {
			t.Errorf("%s: found %q, want %q", config, path, want)
		}
	})
}

func BenchmarkDaemonSocket(b *testing.B) {
	config := []byte(`{"name":"pods","runtimeConfig":{"io.kubernetes.cri.pod-annotations":{"a":"` + strings.Repeat(`{\"name\":\"x\"},`, 100) + `"}}}`)
	b.SetBytes(int64(len(config)))
	for b.Loop() {
		if _, ok := daemonSocket(config); !ok {
			b.Fatal("not found")
		}
	}
}

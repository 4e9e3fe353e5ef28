package conf_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/conf"
)

func TestWith(t *testing.T) {
	for _, test := range []struct {
		name, object string
		set          map[string]any
		want         string
	}{
		{
			name:   "replaces a key in its place and adds new ones at the end",
			object: `{"a": 1, "b": 2, "c": 3}`,
			set:    map[string]any{"b": "two", "z": nil, "e": []int{5}, "d": map[string]bool{"x": true}},
			want:   `{"a":1,"b":"two","c":3,"d":{"x":true},"e":[5]}`,
		},
		{
			name:   "removes keys",
			object: `{"a": 1, "b": 2, "c": 3}`,
			set:    map[string]any{"a": nil, "c": json.RawMessage(nil)},
			want:   `{"b":2}`,
		},
		{
			name:   "keeps big integers, white space and escapes of other values",
			object: `{"n": 9007199254740993, "f": 1.50e+0, "s": "<\u0026>", "o": { "x" : [ 1, 2 ] }, "<&>": 0}`,
			set:    map[string]any{"new": "<&>"},
			want:   `{"n":9007199254740993,"f":1.50e+0,"s":"<\u0026>","o":{ "x" : [ 1, 2 ] },"<&>":0,"new":"<&>"}`,
		},
		{
			name:   "takes raw values as they are",
			object: `{}`,
			set:    map[string]any{"raw": json.RawMessage(`{ "n": 9007199254740993 }`)},
			want:   `{"raw":{ "n": 9007199254740993 }}`,
		},
		{
			name:   "replaces what a plugin would take for the key",
			object: `{"RuntimeConfig": 1, "x": 2, "runtimeconfig": 3, "\u212aey": 4}`,
			set:    map[string]any{"runtimeConfig": true, "key": nil},
			want:   `{"runtimeConfig":true,"x":2}`,
		},
		{name: "changes nothing", object: `{"a": null, "a": 1}`, want: `{"a":null,"a":1}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := conf.With([]byte(test.object), test.set)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestWithRefuses(t *testing.T) {
	for _, object := range []string{``, `null`, `[]`, `"a"`, `{"a"`, `{"a": }`, `{"a": 1,}`, `{"a": 1`} {
		if got, err := conf.With([]byte(object), nil); err == nil {
			t.Errorf("%s: got %s, want an error", object, got)
		}
	}
	for name, value := range map[string]any{"a channel": make(chan int), "raw bytes that are no JSON": json.RawMessage("{")} {
		if got, err := conf.With([]byte(`{}`), map[string]any{"a": value}); err == nil {
			t.Errorf("%s: got %s, want an error", name, got)
		}
	}
}

func mustParse(t *testing.T, config string) *conf.Network {
	t.Helper()
	n, err := conf.ParseNetwork([]byte(config), "")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWithCNIArgs(t *testing.T) {
	n := mustParse(t, `{"name": "blue", "plugins": [
		{"type": "a", "args": {"other": 1, "cni": {"a": 1, "b": 2}}},
		{"type": "b", "args": {"cni": null}},
		{"type": "c", "args": null},
		{"type": "d", "x": 9007199254740993}
	]}`)
	before := mustMarshal(n)
	got, err := n.WithCNIArgs(map[string]json.RawMessage{"b": json.RawMessage(`3`), "c": json.RawMessage(`9007199254740993`)})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"cniVersion":"0.1.0","name":"blue","plugins":[` +
		`{"type":"a","args":{"other":1,"cni":{"a":1,"b":3,"c":9007199254740993}}},` +
		`{"type":"b","args":{"cni":{"b":3,"c":9007199254740993}}},` +
		`{"type":"c","args":{"cni":{"b":3,"c":9007199254740993}}},` +
		`{"type":"d","x":9007199254740993,"args":{"cni":{"b":3,"c":9007199254740993}}}]}`
	if diff := cmp.Diff(want, mustMarshal(got)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if after := mustMarshal(n); after != before {
		t.Errorf("the network itself became %s", after)
	}
}

func TestWithCNIArgsRefuses(t *testing.T) {
	for args, want := range map[string]string{
		`"x"`:          `network blue: plugin a: args: found "x", want an object`,
		`[1]`:          `network blue: plugin a: args: found [1], want an object`,
		`{"cni": []}`:  `network blue: plugin a: args: cni: found [], want an object`,
		`{"cni": "x"}`: `network blue: plugin a: args: cni: found "x", want an object`,
	} {
		n := mustParse(t, `{"name": "blue", "type": "a", "args": `+args+`}`)
		_, err := n.WithCNIArgs(map[string]json.RawMessage{"b": json.RawMessage(`3`)})
		wantError(t, err, types.ErrInvalidNetworkConfig, want)
	}
}

func wantError(t *testing.T, err error, code uint, text string) {
	t.Helper()
	cniErr, ok := errors.AsType[*types.Error](err)
	if !ok || cniErr.Code != code || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want code %d and %q", err, code, text)
	}
}

func TestSupports(t *testing.T) {
	n := mustParse(t, `{"name": "blue", "plugins": [
		{"type": "a", "capabilities": {"ips": false}},
		{"type": "b", "capabilities": {"ips": true, "mac": false}}
	]}`)
	for capability, want := range map[string]bool{"ips": true, "mac": false, "portMappings": false} {
		if got := n.Supports(capability); got != want {
			t.Errorf("%s: got %v, want %v", capability, got, want)
		}
	}
}

func TestNetworkAsJSON(t *testing.T) {
	n := mustParse(t, `{"cniVersion": "1.0.0", "name": "blue", "disableCheck": true, "disableGC": true, "loadOnlyInlinedPlugins": true,
		"plugins": [{"type": "a", "n": 9007199254740993, "capabilities": {"ips": true}, "ipam": {"type": "static"}}]}`)
	type record struct{ Network *conf.Network }
	b, err := json.Marshal(record{n})
	if err != nil {
		t.Fatal(err)
	}
	var back record
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	back.Network.Plugins[0].Bytes = n.Plugins[0].Bytes // the JSON package takes the white space out
	if diff := cmp.Diff(n, back.Network); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if want := `{"type":"a","n":9007199254740993,`; !strings.Contains(string(b), want) {
		t.Errorf("got %s, want %s in it", b, want)
	}
}

func TestParseList(t *testing.T) {
	folder := func(plugins ...string) func(string) ([]json.RawMessage, error) {
		return func(name string) (list []json.RawMessage, err error) {
			if name != "blue" {
				return nil, fmt.Errorf("asked for %s", name)
			}
			for _, p := range plugins {
				list = append(list, json.RawMessage(p))
			}
			return list, nil
		}
	}
	unreadable := func(string) ([]json.RawMessage, error) { return nil, errors.New("/net.d/blue: permission denied") }

	for _, test := range []struct {
		name, list string
		load       func(string) ([]json.RawMessage, error)
		want, err  string
	}{
		{name: "appends", list: `{"name": "blue", "plugins": [{"type": "a"}]}`, load: folder(`{"type": "b"}`, `{"type": "c"}`), want: "a b c"},
		{name: "only from the folder", list: `{"name": "blue"}`, load: folder(`{"type": "b"}`), want: "b"},
		{name: "inlined only", list: `{"name": "blue", "loadOnlyInlinedPlugins": true, "plugins": [{"type": "a"}]}`, load: unreadable, want: "a"},
		{name: "no plugin at all", list: `{"name": "blue"}`, load: folder(), err: `found neither "type" nor "plugins"`},
		{name: "unreadable", list: `{"name": "blue", "plugins": [{"type": "a"}]}`, load: unreadable, err: "/net.d/blue: permission denied"},
		{name: "invalid", list: `{"name": "blue", "plugins": [{"type": "a"}]}`, load: folder(`{}`), err: "plugins[1].type: missing"},
		{name: "a name that is a path", list: `{"name": "../blue", "plugins": [{"type": "a"}]}`, load: unreadable, err: `name: found "../blue"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			n, err := conf.ParseList([]byte(test.list), test.load)
			if test.err != "" {
				wantError(t, err, types.ErrInvalidNetworkConfig, test.err)
				if strings.Contains(fmt.Sprint(err), "permission") && test.name != "unreadable" {
					t.Errorf("the folder was read: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range n.Plugins {
				got = append(got, p.Type)
			}
			if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// What encoding/json itself cannot take, or takes for something else, is refused too. See also TestLimits.
func TestHostileNetwork(t *testing.T) {
	_, err := conf.ParseNetwork([]byte(`{"type": "a", "x": `+strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)+`}`), "blue")
	wantError(t, err, types.ErrDecodingFailure, "exceeded max depth")
	_, err = conf.ParseNetwork([]byte("{\"type\": \"a\xff\"}"), "blue")
	wantError(t, err, types.ErrDecodingFailure, "text is not valid UTF-8")
}

// A message goes to a log and to an event. It is short and has no control characters, whatever the input.
func TestMessagesAreBounded(t *testing.T) {
	evil := strings.Repeat("\x1b[2J\u202e\n", 1000)
	quoted, err := json.Marshal(evil)
	if err != nil {
		t.Fatal(err)
	}
	for _, input := range []string{
		`[{"name": ` + string(quoted) + `}]`,
		`[{"name": "a", "ips": {` + string(quoted) + `: 1}}]`,
		`[{"name": "a", "cni-args": {` + string(quoted) + `: 1, ` + string(quoted) + `: 2}}]`,
		strings.TrimSuffix(strings.Repeat(evil+",", 64), ","),
		`"` + evil,
	} {
		_, err := parseSelections(input, "default")
		if err == nil {
			t.Fatalf("%.40q is accepted", input)
		}
		if msg := err.Error(); len(msg) > 8<<10 || strings.ContainsAny(msg, "\x1b\n\u202e") {
			t.Errorf("%d bytes: %.300q", len(msg), msg)
		}
	}
}

func FuzzParseNetwork(f *testing.F) {
	seed(f, "network.txtar")
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := conf.ParseNetwork(b, "blue")
		if err != nil {
			return
		}
		for _, p := range n.Plugins {
			if !json.Valid(p.Bytes) || strings.ContainsAny(p.Type+p.IPAM, `/\`) || p.Type == "" {
				t.Errorf("plugin %+v of %s", p, b)
			}
		}
		first := mustMarshal(n)
		var back conf.Network
		if err := json.Unmarshal([]byte(first), &back); err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		if second := mustMarshal(back); first != second {
			t.Errorf("%s became %s", first, second)
		}
		if _, err := n.WithCNIArgs(map[string]json.RawMessage{"a": json.RawMessage("1")}); err != nil {
			wantError(t, err, types.ErrInvalidNetworkConfig, "args")
		}
	})
}

// Append is With for a key that is not there.
func TestAppend(t *testing.T) {
	for _, object := range []string{`{"a":1}`, `{"a":{"b":[9007199254740993]},"":null}`} {
		for key, value := range map[string]any{"b": json.RawMessage(`{"c":"<"}`), "c": map[string]any{"<": 1}, "\x00\"": 1.5, "d": []string{}} {
			got, err := conf.Append([]byte(object), key, value)
			if err != nil {
				t.Fatal(err)
			}
			want, err := conf.With([]byte(object), map[string]any{key: value})
			if err != nil || string(got) != string(want) {
				t.Errorf("got %s, want %s, %v", got, want, err)
			}
		}
	}
}

func FuzzWith(f *testing.F) {
	f.Add([]byte(`{"a": 1, "b": {"c": [1, 2.50]}, "": null}`), "b")
	f.Add([]byte(`{"a": "<&>", "A": 9007199254740993}`), "c")
	f.Fuzz(func(t *testing.T, object []byte, key string) {
		var before map[string]json.RawMessage
		if json.Unmarshal(object, &before) != nil || before == nil || conf.CheckJSON(object, 1<<20) != nil {
			return
		}
		var kept map[string]json.RawMessage
		with, err := conf.With(object, map[string]any{key: 7})
		if err != nil {
			t.Fatalf("set %q in %s: %v", key, object, err)
		}
		if err := json.Unmarshal(with, &kept); err != nil {
			t.Fatalf("%s: %v", with, err)
		}
		for k := range before {
			if strings.EqualFold(k, key) {
				delete(before, k)
			}
		}
		before[strings.ToValidUTF8(key, "\ufffd")] = json.RawMessage("7")
		if strings.ToValidUTF8(key, "\ufffd") == key && !reflect.DeepEqual(before, kept) {
			t.Errorf("set %q in %s: got %s", key, object, with)
		}
	})
}

// A network as tenants write it, decoded once for each text.
func BenchmarkParseNetwork(b *testing.B) {
	text := []byte(`{"cniVersion":"1.1.0","name":"net1","type":"macvlan","master":"eth1","mode":"bridge",
		"ipam":{"type":"host-local","ranges":[[{"subnet":"10.2.0.0/16","rangeStart":"10.2.1.1"}]],"routes":[{"dst":"10.3.0.0/16"}]}}`)
	c, err := conf.Parse([]byte(`{"name":"pods"}`))
	if err != nil {
		b.Fatal(err)
	}
	n, err := conf.ParseNetwork(text, "net1")
	if err != nil {
		b.Fatal(err)
	}
	for name, do := range map[string]func() error{
		"check JSON":   func() error { return conf.CheckJSON(text, conf.MaxNetwork) },
		"parse":        func() error { _, err := conf.ParseNetwork(text, "net1"); return err },
		"check policy": func() error { return c.CheckPolicy(conf.Use{Namespace: "blue", Pod: "blue"}, n, false) },
		"with":         func() error { _, err := conf.With(text, map[string]any{"name": "other"}); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := do(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

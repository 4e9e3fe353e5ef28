package conf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var documents = []string{
	`{}`, ` { } `, `[]`, `[ ]`, `null`, `true`, ` -1.5e3 `, `""`, `"\\"`, `{"a":1}`, "\t{\n\r \"a\" :\t[ 1 , {\"b\":2 } , [ ] ] , \"c\":\"}\\\"]\" }\n",
	`{"a":1,"a":2}`, `{"a":1,"A":2}`, `{"a":{"b":[0,{"c":1,"\u0043":2}]}}`, `{"\ud800":1,"\ud801":2}`, `{"\u212a":1,"k":2}`, "{\"\xff\":1,\"\xfe\":2}",
	`{"a":"\\\"","b":"\\"}`, `[{"a":1},{"a":1}]`, `{"a":{},"b":[],"c":{"d":{}}}`, `{"":{"":1}}`, `{"a":nul}`, `{"a":1`, `{"a"}`, `{"a":1}x`, `{"a":1} {}`, ``, ` `,
	`{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "macvlan", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/8"}]]}}]}`,
	strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth), strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1),
	strings.Repeat(`{"a":`, maxDepth) + "1" + strings.Repeat("}", maxDepth), strings.Repeat(`{"a":`, maxDepth+1) + "1" + strings.Repeat("}", maxDepth+1),
}

// The walks through documents find what the Decoder of encoding/json finds, and complain in the same words.
func FuzzScan(f *testing.F) {
	for _, doc := range documents {
		f.Add([]byte(doc))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		before := bytes.Clone(doc)
		members, err := membersOf(doc)
		if json.Valid(doc) {
			want, wantErr := decodedMembers(doc)
			if diff := cmp.Diff(want, members, cmp.AllowUnexported(member{})); diff != "" || fmt.Sprint(err) != fmt.Sprint(wantErr) {
				t.Errorf("members of %q: found error %v, want %v (-want +got):\n%s", doc, err, wantErr, diff)
			}
			if err, want := checkKeys(doc), decodedKeys(doc); fmt.Sprint(err) != fmt.Sprint(want) {
				t.Errorf("keys of %q: found error %v, want %v", doc, err, want)
			}
		} else if err == nil {
			t.Errorf("members of %q: found %v, want an error", doc, members)
		}
		if !bytes.Equal(before, doc) {
			t.Errorf("%q was changed to %q", before, doc)
		}
	})
}

// What is appended to a value must not get into the document that it is of.
func TestMembersAreApart(t *testing.T) {
	doc := []byte(`{"a":[1],"b":2}`)
	members, err := membersOf(doc)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(members[0].value, "xxxx"...)
	if string(doc) != `{"a":[1],"b":2}` {
		t.Errorf("found %s", doc)
	}
}

func BenchmarkCheckJSON(b *testing.B) {
	doc := []byte(`{"cniVersion": "1.0.0", "name": "n", "type": "macvlan", "master": "eth0", "mode": "bridge", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/8"}]]}}`)
	b.ReportAllocs()
	for b.Loop() {
		if err := CheckJSON(doc, MaxNetwork); err != nil {
			b.Fatal(err)
		}
	}
}

// decodedMembers is membersOf by the Decoder of encoding/json.
func decodedMembers(object []byte) ([]member, error) {
	dec := json.NewDecoder(bytes.NewReader(object))
	dec.UseNumber()
	token, err := dec.Token()
	if err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	if token != json.Delim('{') {
		return nil, fmt.Errorf("found %s, want an object", quote(json.RawMessage(object)))
	}
	var members []member
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("read object: %w", err)
		}
		m := member{key: key.(string)}
		if err := dec.Decode(&m.value); err != nil {
			return nil, fmt.Errorf("read key %s: %w", quote(m.key), err)
		}
		members = append(members, m)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("read object: %w", err)
	}
	return members, nil
}

// decodedKeys is checkKeys by the Decoder of encoding/json.
func decodedKeys(doc []byte) error {
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	var levels []level
	for {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if token == json.Delim('}') || token == json.Delim(']') {
			levels = levels[:len(levels)-1]
			next(levels)
			continue
		}
		if n := len(levels); n > 0 && levels[n-1].keys != nil && !levels[n-1].value {
			if err := levels[n-1].addKey(token.(string)); err != nil {
				return fmt.Errorf("%s%w", path(levels[:n-1]), err)
			}
			continue
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, level{keys: map[string]string{}})
		case json.Delim('['):
			levels = append(levels, level{})
		default:
			next(levels)
			continue
		}
		if len(levels) > maxDepth {
			return fmt.Errorf("more than %d objects and lists within each other", maxDepth)
		}
	}
}

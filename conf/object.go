package conf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A member is one key of a JSON object. The value is kept as it was written.
type member struct {
	key   string
	value json.RawMessage
}

// writeObject is the inverse of membersOf.
func writeObject(members []member) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, m := range members {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := marshal(m.key)
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(m.value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// marshal is json.Marshal that leaves <, > and & as they are.
func marshal(v any) (json.RawMessage, error) {
	switch v := v.(type) {
	case json.RawMessage:
		if !json.Valid(v) {
			return nil, errors.New("value is no JSON document")
		}
		return v, nil
	case string:
		if isPlain(v) {
			return json.RawMessage(`"` + v + `"`), nil
		}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// isPlain tells whether a string stands in JSON for itself.
func isPlain[T ~string | ~[]byte](s T) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// With returns a copy of a JSON object in which the keys of set have the values of set. A nil value, or an empty
// json.RawMessage, removes the key. Every other key keeps its place, and its value byte for byte; integers beyond 2^53
// stay what they are.
//
// Keys that differ from one of set in case only are removed: most plugins would take them for the same key.
//
// "Runtimes must preserve unknown fields in plugin configuration objects when transforming for execution."
func With(object []byte, set map[string]any) ([]byte, error) {
	members, err := membersOf(object)
	if err != nil {
		return nil, err
	}
	replaced := make(map[string]*member, len(set))
	values := make([]member, 0, len(set))
	for _, key := range slices.Sorted(maps.Keys(set)) {
		m := member{key: key}
		if raw, isRaw := set[key].(json.RawMessage); set[key] != nil && (!isRaw || len(raw) > 0) {
			if m.value, err = marshal(set[key]); err != nil {
				return nil, fmt.Errorf("set key %q: %w", key, err)
			}
		}
		values = append(values, m)
		replaced[fold(key)] = &values[len(values)-1]
	}

	var kept []member
	for _, m := range members {
		v, ok := replaced[fold(m.key)]
		switch {
		case !ok:
			kept = append(kept, m)
		case v.value != nil: // the first of the name gives its place
			kept = append(kept, *v)
			v.value = nil
		}
	}
	for _, v := range values {
		if v.value != nil {
			kept = append(kept, v)
		}
	}
	return writeObject(kept)
}

// Append returns what [With] does for a key that the object does not have, at less cost: the object has other keys, and no
// blanks around it, and a value that is a json.RawMessage is taken for a document.
func Append(object []byte, key string, value any) ([]byte, error) {
	name, err := marshal(key)
	raw, isRaw := value.(json.RawMessage)
	if err == nil && !isRaw {
		raw, err = marshal(value)
	}
	if err != nil {
		return nil, fmt.Errorf("set key %q: %w", key, err)
	}
	b := make([]byte, 0, len(object)+len(name)+len(raw)+len(`,:`))
	b = append(b, object[:len(object)-1]...)
	b = append(append(append(b, ','), name...), ':')
	return append(append(b, raw...), '}'), nil
}

// An object reads the members of a JSON object, and complains about those that are wrong.
type object struct {
	path    string // put before the keys in complaints: "", "plugins[0]."
	members []member
	*complaints
	known []string // the keys that were asked for
}

// openObject complains, and returns an object without members, if the value is no object.
func openObject(value json.RawMessage, path string, c *complaints) (o *object, ok bool) {
	o = &object{complaints: c}
	var err error
	if o.members, err = membersOf(value); err != nil {
		c.addf(path, "%v", err)
	}
	if o.path = path; path != "" {
		o.path += "."
	}
	return o, err == nil
}

// divide makes two objects of one: that of the members for which second says so, and that of the others.
func (o *object) divide(second func(member) bool) (*object, *object) {
	a, b := *o, *o
	a.members, b.members = make([]member, 0, len(o.members)), nil
	for _, m := range o.members {
		if second(m) {
			b.members = append(b.members, m)
		} else {
			a.members = append(a.members, m)
		}
	}
	return &a, &b
}

// text is the same for objects with the same members only.
func (o *object) text() string {
	size := 0
	for _, m := range o.members {
		size += len(m.key) + len(m.value) + len(`"":,`)
	}
	b := make([]byte, 0, size)
	for _, m := range o.members {
		b = append(strconv.AppendQuote(b, m.key), ':')
		b = append(append(b, m.value...), ',')
	}
	return string(b)
}

// raw returns the value of a key. A key that is null counts as absent, as in the Kubernetes API.
func (o *object) raw(key string) (json.RawMessage, bool) {
	if !o.knows(key) {
		o.known = append(o.known, key)
	}
	for _, m := range o.members {
		if m.key == key && string(m.value) != "null" {
			return m.value, true
		}
	}
	return nil, false
}

// read decodes the value of a key, and reports whether there is one and it has the type of into. Values of another
// type are complained about, with want to say what would be right.
func (o *object) read(key string, into any, want string) bool {
	raw, ok := o.raw(key)
	if !ok {
		return false
	}
	if s, isString := into.(*string); isString { // it is at hand, most often
		if found, ok := stringOf(raw); ok {
			*s = found
			return true
		}
	}
	if err := json.Unmarshal(raw, into); err != nil {
		o.mismatch(o.path+key, raw, want)
		return false
	}
	return true
}

// readName decodes a string that must be valid. If the key is absent, the value that into has already is judged.
func (o *object) readName(key string, into *string, valid func(string) bool, want string) {
	_, found := o.raw(key)
	switch {
	case found && !o.read(key, into, want):
	case !found && *into == "":
		o.addf(o.path+key, "missing, want %s", want)
	case !valid(*into):
		o.mismatch(o.path+key, *into, want)
	}
}

// readOptional is readName for a key that may be absent.
func (o *object) readOptional(key string, into *string, valid func(string) bool, want string) {
	if _, found := o.raw(key); found {
		o.readName(key, into, valid, want)
	}
}

// readPath reads an absolute path: a plugin does not know the folder that it is started in. An empty one counts as
// absent.
func (o *object) readPath(key string, into *string) {
	var path string
	o.readOptional(key, &path, func(s string) bool { return s == "" || filepath.IsAbs(s) }, "an absolute path")
	if path != "" {
		*into = path
	}
}

// readNames reads a list of strings that must be valid.
func (o *object) readNames(key string, into *[]string, valid func(string) bool, want string) {
	var names []string
	if !o.read(key, &names, "a list of strings") {
		return
	}
	for i, name := range names {
		if !valid(name) {
			o.mismatch(fmt.Sprintf("%s%s[%d]", o.path, key, i), name, want)
		}
	}
	*into = names
}

// knows reports whether the key was asked for.
func (o *object) knows(key string) bool { return slices.Contains(o.known, key) }

// misspelt complains about members whose key differs in case only from one that was asked for: plugins would act on
// them although they were not seen here.
func (o *object) misspelt() {
	for _, m := range o.members {
		for _, key := range o.known {
			if m.key != key && strings.EqualFold(m.key, key) {
				o.addf("", "unknown key %s, did you mean %q?", quote(o.path+m.key), o.path+key)
			}
		}
	}
}

package journal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
)

// version is that of the record format. A later version of Braid may add keys without a higher one: who does not know
// them keeps them. A higher one says that a record means something else than it would mean to this version.
const version = 1

// A NewerError says that a record is of a newer version of the format. Such a record is not to be rewritten or removed:
// what this version does not know would be lost. [Journal.SetAside] keeps it.
type NewerError struct {
	Path    string
	Version int
	// Record has what could be read of it, as if it were of this version. What it does not have may exist all the same.
	Record *Record
}

func (e *NewerError) Error() string {
	return fmt.Sprintf("record %s is of a newer Braid: it has version %d of the format, this one knows versions up to %d",
		e.Path, e.Version, version)
}

// newer returns a *NewerError if the record in a file is of a newer version, else nil. Nothing but its version has to be
// as this version knows it.
func newer(path string, b []byte) error {
	var head struct {
		Version int `json:"version"`
	}
	if json.Unmarshal(b, &head) != nil || head.Version <= version {
		return nil
	}
	e := &NewerError{Path: path, Version: head.Version, Record: new(Record)}
	var members map[string]json.RawMessage
	if json.Unmarshal(b, &members) == nil {
		e.Record = salvage(members)
	}
	e.Record.ContainerID, e.Record.IfName, _ = strings.Cut(strings.TrimSuffix(filepath.Base(path), ".json"), ":")
	return e
}

// salvage decodes what can be decoded of a record, and of its attachments.
func salvage(members map[string]json.RawMessage) *Record {
	r := new(Record)
	for key, value := range members {
		if key == "attachments" {
			continue
		}
		_ = decode(mustMarshal(map[string]json.RawMessage{key: value}), r) // what is not as it should be stays empty
	}
	var attachments []json.RawMessage
	_ = json.Unmarshal(members["attachments"], &attachments)
	for _, b := range attachments {
		var a Attachment
		if decode(b, &a) == nil && a.Network != nil && a.IfName != "" {
			r.Attachments = append(r.Attachments, a)
		}
	}
	return r
}

// decode is json.Unmarshal, but for numbers: what the capabilities ask for may be more than a float64 can tell.
func decode(b []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(to)
}

func mustMarshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // of what has just been decoded
	}
	return b
}

// Unknown are the keys of a record or an attachment that this version does not know, with their values. While versions
// of Braid replace each other on a node, the one must not lose what the other needs.
type Unknown map[string]json.RawMessage

// Not made at the start: an ADD reads no record.
var recordKeys, attachmentKeys = keysOf(Record{}), keysOf(Attachment{})

func keysOf(v any) func() map[string]bool {
	return sync.OnceValue(func() map[string]bool {
		keys := make(map[string]bool)
		for t, i := reflect.TypeOf(v), 0; i < t.NumField(); i++ {
			if key, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); key != "-" {
				keys[key] = true
			}
		}
		return keys
	})
}

func unknown(known map[string]bool, members map[string]json.RawMessage) (u Unknown) {
	for key, value := range members {
		if !known[key] {
			if u == nil {
				u = make(Unknown)
			}
			u[key] = value
		}
	}
	return u
}

// noteUnknown fills in Unknown, of a record that has been decoded.
func (r *Record) noteUnknown(b []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return err
	}
	r.Unknown = unknown(recordKeys(), members)
	var attachments []map[string]json.RawMessage
	if err := json.Unmarshal(members["attachments"], &attachments); err != nil || len(attachments) != len(r.Attachments) {
		return err
	}
	for i, a := range attachments {
		r.Attachments[i].Unknown = unknown(attachmentKeys(), a)
	}
	return nil
}

// encode is the inverse.
func (r *Record) encode() ([]byte, error) {
	b, err := json.Marshal(r)
	if err != nil || !r.hasUnknown() {
		return b, err
	}
	var members map[string]json.RawMessage
	var attachments []map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(members["attachments"], &attachments); err != nil {
		return nil, err
	}
	for i := range attachments {
		for key, value := range r.Attachments[i].Unknown {
			attachments[i][key] = value
		}
	}
	if members["attachments"], err = json.Marshal(attachments); err != nil {
		return nil, err
	}
	for key, value := range r.Unknown {
		members[key] = value
	}
	return json.Marshal(members)
}

func (r *Record) hasUnknown() bool {
	for i := range r.Attachments {
		if len(r.Attachments[i].Unknown) > 0 {
			return true
		}
	}
	return len(r.Unknown) > 0
}

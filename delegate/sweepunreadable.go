package delegate

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"

	"github.com/braid-cni/braid/journal"
)

// unreadable judges the records that cannot be read, and returns those to be undone. Other is what else is wrong with the
// journal.
//
// Such a record keeps GC from telling the networks what is valid, until the DEL of its container. A runtime that never
// sends that would be rid of neither, so the sweep does what the DEL would: it undoes the operator's networks, and sets
// the record aside. But only if what can be read of the record says, as that of a sound one would, that the container is
// gone. Of an empty file nothing can be said, and a record of a newer version of Braid is left to that one.
func (s *sweep) unreadable(err error) (candidates []Finding, other error) {
	var others []error
	for _, err := range flatten(err) {
		if r, _ := partOf(err); r == nil {
			others = append(others, err)
			continue
		}
		f, j := s.judgeUnreadable(err)
		if s.decide(&f, j) {
			candidates = append(candidates, f)
		} else {
			s.found(f)
		}
	}
	return candidates, errors.Join(others...)
}

// partOf returns what can be read of a record that cannot be read as a whole, and why it cannot; nil if the error is
// another one.
func partOf(err error) (*journal.Record, string) {
	var corrupt *journal.CorruptError
	var newer *journal.NewerError
	switch {
	case errors.As(err, &corrupt):
		return readable(corrupt.Path), corrupt.Err.Error()
	case errors.As(err, &newer):
		return newer.Record, newer.Error()
	}
	return nil, ""
}

// stillUnreadable judges a record again that could not be read, when its container is locked.
func (s *sweep) stillUnreadable(err error, f *Finding) (undo bool) {
	now, j := s.judgeUnreadable(err)
	if !now.Is(f.RecordKey) {
		f.Action = Busy
		return false
	}
	return s.decide(f, j)
}

func (s *sweep) judgeUnreadable(err error) (Finding, judgement) {
	r, reason := partOf(err)
	at := look(r)
	j := s.judge(r, at, &s.procs)
	j.reason = reason + "; " + j.reason
	switch {
	case s.o.Unreadable:
		j = judgement{verdict: Dead, reason: reason, certain: true}
	case isNewer(err), r.Netns == "", r.NetnsInode == 0, r.BootID == "":
		j = judgement{verdict: Unreadable, reason: reason}
	case j.certain && at.state == there:
		// The boot ID alone does not outweigh a namespace that is there, in a file that something has happened to.
		j = judgement{verdict: Unreadable, reason: j.reason + ", but its namespace is there"}
	case !j.stale():
		j.verdict = Unreadable
	}
	return findingOf(r), j
}

func isNewer(err error) bool {
	var newer *journal.NewerError
	return errors.As(err, &newer)
}

// readable returns what can be read of the beginning of a record that is damaged, up to its attachments.
func readable(path string) *journal.Record {
	name := strings.TrimSuffix(filepath.Base(path), ".json")
	id, ifName, _ := strings.Cut(name, ":")
	nothing := &journal.Record{ContainerID: id, IfName: ifName}
	b, err := journal.ReadRaw(path)
	if err != nil {
		return nothing
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nothing
	}
	members := make(map[string]json.RawMessage)
	for d.More() {
		var value json.RawMessage
		key, err := d.Token()
		if err == nil {
			err = d.Decode(&value)
		}
		if err != nil {
			break
		}
		if key, ok := key.(string); ok && key != "attachments" {
			members[key] = value
		}
	}
	r := new(journal.Record)
	if b, err = json.Marshal(members); err != nil || json.Unmarshal(b, r) != nil {
		return nothing
	}
	if r.ContainerID != id || r.IfName != ifName {
		return nothing // of another container, or torn before it says
	}
	return r
}

// flatten returns the errors that have been joined.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var list []error
	for _, err := range joined.Unwrap() {
		list = append(list, flatten(err)...)
	}
	return list
}

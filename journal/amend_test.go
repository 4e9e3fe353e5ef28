package journal_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/journal"
)

// begun writes the record of an ADD that has made nothing yet, and returns the one of its end.
func begun(t *testing.T, j *journal.Journal) *journal.Record {
	t.Helper()
	r := record(t, "c1")
	result := r.Attachments[0].Result
	r.Attachments[0].Result = nil
	durable, err := j.Begin(r)
	if err == nil {
		err = durable()
	}
	if err != nil {
		t.Fatal(err)
	}
	r.Done, r.Pending, r.Attachments[0].Result = true, json.RawMessage(`{"pod":{"name":"a"}}`), result
	return r
}

func get(t *testing.T, j *journal.Journal) *journal.Record {
	t.Helper()
	r, err := j.Get("c1", "eth0")
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantRecord(t *testing.T, what string, want, got *journal.Record) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// TestFinish: the record is as Finish was given it, in the file that Begin has made.
func TestFinish(t *testing.T) {
	j, dir := open(t)
	path := filepath.Join(dir, "c1:eth0.json")
	r := begun(t, j)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Finish(r); err != nil {
		t.Fatal(err)
	}
	wantRecord(t, "finished", r, get(t, j))
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("it is another file (%v)", err)
	}
	if err := j.Reported(t.Context(), "c1", "eth0", r.Pending); err != nil {
		t.Fatal(err)
	}
	r.Pending = nil
	wantRecord(t, "reported", r, get(t, j))
	if err := j.Put(get(t, j)); err != nil {
		t.Fatal(err)
	}
	wantRecord(t, "written anew", r, get(t, j))
	if b, err := os.ReadFile(path); err != nil || bytes.Count(b, []byte("\n")) != 0 {
		t.Errorf("written anew it still has lines: %s (%v)", b, err)
	}
	if err := j.Remove("c1", "eth0"); err != nil {
		t.Fatal(err)
	}
	if err := j.Finish(r); err != nil { // somebody has taken it away
		t.Fatal(err)
	}
	wantRecord(t, "finished, being gone", r, get(t, j))
}

// TestTornFinish: whatever a kill or a loss of power leaves of an amendment, the record is as it was before, and can be
// finished all the same.
func TestTornFinish(t *testing.T) {
	j, dir := open(t)
	path := filepath.Join(dir, "c1:eth0.json")
	finished := begun(t, j)
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	unfinished := get(t, j)
	if err := j.Finish(finished); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := len(first); n < len(whole)-1; n++ {
		zeros := make([]byte, len(whole)-n)
		written := bytes.Clone(whole) // but for a hole
		copy(written[len(first):n+1], make([]byte, n))
		for what, content := range map[string][]byte{"cut": whole[:n], "zeros": append(bytes.Clone(whole[:n]), zeros...), "hole": written} {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			wantRecord(t, what, unfinished, get(t, j))
			if pending, err := j.Pending("c1", "eth0"); err != nil || pending != nil {
				t.Errorf("%s: found %s pending (%v), want nothing", what, pending, err)
			}
			if n%50 == 0 {
				if err := j.Finish(finished); err != nil {
					t.Fatal(err)
				}
				wantRecord(t, what+", finished", finished, get(t, j))
			}
			if t.Failed() {
				t.Fatalf("%q", content)
			}
		}
	}
}

// TestBadAmendment: what is written whole and is none of ours makes the record one that cannot be read.
func TestBadAmendment(t *testing.T) {
	j, dir := open(t)
	path := filepath.Join(dir, "c1:eth0.json")
	begun(t, j)
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`{"done":"yes"}`, `{"results":[null,null]}`, `{"results":{}}`, `[]`, `1`} {
		if err := os.WriteFile(path, []byte(string(first)+"\n"+line+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var corrupt *journal.CorruptError
		if _, err := j.Get("c1", "eth0"); !errors.As(err, &corrupt) || !strings.Contains(err.Error(), "amendment: ") {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// TestUnknownInAmendment: what a later version has added is kept.
func TestUnknownInAmendment(t *testing.T) {
	j, dir := open(t)
	path := filepath.Join(dir, "c1:eth0.json")
	begun(t, j)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("\n" + `{"done":true,"later":{"n":9007199254740993},"pending":{}}` + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		r := get(t, j)
		if string(r.Unknown["later"]) != `{"n":9007199254740993}` || !r.Done || string(r.Pending) != "{}" {
			t.Errorf("found %+v", r)
		}
		if err := j.Put(r); err != nil {
			t.Fatal(err)
		}
	}
}

// Finish adds nothing beyond the bound of a record, nor by way of a link.
func TestFinishIsBounded(t *testing.T) {
	j, dir := open(t)
	r := begun(t, j)
	r.Pending = json.RawMessage(`"` + strings.Repeat("x", 16<<20) + `"`)
	if err := j.Finish(r); err == nil || !strings.Contains(err.Error(), "at most 16777216 are possible") {
		t.Errorf("too large: %v", err)
	}
	if got := get(t, j); got.Done {
		t.Error("something was written")
	}
	path, victim := filepath.Join(dir, "c1:eth0.json"), filepath.Join(dir, "victim")
	if err := errors.Join(os.Rename(path, victim), os.Symlink(victim, path)); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(victim)
	if err != nil {
		t.Fatal(err)
	}
	r.Pending = nil
	if err := j.Finish(r); err == nil {
		t.Error("written by way of a link")
	}
	if after, err := os.ReadFile(victim); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the victim was changed (%v)", err)
	}
}

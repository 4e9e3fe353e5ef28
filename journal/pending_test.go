package journal_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/journal"
)

func TestReported(t *testing.T) {
	j, _ := open(t)
	r := record(t, "c1")
	r.Pending = json.RawMessage(`{"pod": {"name": "a<b"}}`)
	if err := j.Put(r); err != nil {
		t.Fatal(err)
	}
	get := func() *journal.Record {
		t.Helper()
		r, err := j.Get("c1", "eth0")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	pending := get().Pending
	// A later ADD has something else pending, or nothing.
	for _, other := range []string{`{}`, ``} {
		if err := j.Reported(t.Context(), "c1", "eth0", json.RawMessage(other)); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(string(pending), string(get().Pending)); diff != "" {
			t.Errorf("%q is taken for what is pending (-want +got):\n%s", other, diff)
		}
	}
	// The ADD still has the lock.
	unlock, err := j.Lock(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := j.Reported(ctx, "c1", "eth0", pending); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("under lock: found %v, want %v", err, context.DeadlineExceeded)
	}
	unlock()
	for range 2 {
		if err := j.Reported(t.Context(), "c1", "eth0", pending); err != nil {
			t.Error(err)
		}
	}
	want := record(t, "c1")
	want.Version = 1
	got := get()
	if diff := cmp.Diff(string(must(t, want)), string(must(t, got))); diff != "" {
		t.Errorf("the rest of the record (-want +got):\n%s", diff)
	}
	// A DEL has been faster.
	if err := j.Remove("c1", "eth0"); err != nil {
		t.Fatal(err)
	}
	if err := j.Reported(t.Context(), "c1", "eth0", pending); err != nil {
		t.Error(err)
	}
	if _, err := j.Get("c1", "eth0"); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("found %v, want %v", err, journal.ErrNotFound)
	}
}

func must(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What looks like the line of a finished ADD and is none, or has keys that look like its own, is read as by Get.
func TestPendingLines(t *testing.T) {
	j, dir := open(t)
	r := record(t, "c1")
	if err := j.Put(r); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "c1:eth0.json")
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, lines := range []string{
		`{"done":true,"results":[{"cniVersion":"1.1.0"}],"pending":{"a":[],"pending":{}}}`,
		`{"done":true,"results":[{"cniVersion":"1.1.0","later":[],"pending":{}}]}`,
		`{"done":true,"results":[{"cniVersion":"1.1.0","later":"],\"pending\":{}"}],"pending":{"a":"],\"pending\":1"}}`,
		`{"done":true,"results":[{"cniVersion":"1.1.0"}],"pending":{"a":1},"later":{"b":2}}`,
		`{"done":true,"results":[{"cniVersion":"1.1.0"}],"pending":{"a":1}}` + "\n" + `{"done":true}`,
		`{"done":true,"results":[{"cniVersion":"1.1.0"}],"pending":{"a":1}}` + "\n" + `{"done":true,"results":[{"cniVersion":"1.1.0"}],"pending":{"b`,
		`{"done":true,"results":[{"cniVersion":"1.1.0"}],"pending":null}`,
		`{"done":true,"results":[{"cniVer` + "\x00\x00" + `n":"1.1.0"}],"pending":{"a":1}}`, // a hole that the loss of power has left
	} {
		if err := os.WriteFile(path, append(append(bytes.Clone(first), '\n'), lines+"\n"...), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := j.Get("c1", "eth0")
		if err != nil {
			t.Fatalf("%s: %v", lines, err)
		}
		if got, err := j.Pending("c1", "eth0"); err != nil || !bytes.Equal(got, r.Pending) {
			t.Errorf("%s: found %s and %v, want %s", lines, got, err, r.Pending)
		}
	}
}

// Pending says what Get says.
func TestPending(t *testing.T) {
	j, dir := open(t)
	if _, err := j.Pending("c1", "eth0"); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("no record: found %v, want %v", err, journal.ErrNotFound)
	}
	for _, want := range []string{``, `{"pod":{"name":"a<b"}}`} {
		r := record(t, "c1")
		r.Pending = json.RawMessage(want)
		if err := j.Put(r); err != nil {
			t.Fatal(err)
		}
		r, err := j.Get("c1", "eth0")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := j.Pending("c1", "eth0"); err != nil || !bytes.Equal(got, r.Pending) {
			t.Errorf("found %s and %v, want %s", got, err, r.Pending)
		}
	}
	finished := begun(t, j)
	if got, err := j.Pending("c1", "eth0"); err != nil || got != nil {
		t.Errorf("begun: found %s and %v, want nothing", got, err)
	}
	if err := j.Finish(finished); err != nil {
		t.Fatal(err)
	}
	if got, err := j.Pending("c1", "eth0"); err != nil || !bytes.Equal(got, finished.Pending) {
		t.Errorf("finished: found %s and %v, want %s", got, err, finished.Pending)
	}
	if err := j.Reported(t.Context(), "c1", "eth0", finished.Pending); err != nil {
		t.Fatal(err)
	}
	if got, err := j.Pending("c1", "eth0"); err != nil || got != nil {
		t.Errorf("reported: found %s and %v, want nothing", got, err)
	}
	path := filepath.Join(dir, "c1:eth0.json")
	for content, want := range map[string]any{
		`{"version":1,"pend`:                new(*journal.CorruptError),
		`{"version":1}x`:                    new(*journal.CorruptError),
		`{"version":1}` + "\n[]\n":          new(*journal.CorruptError),
		`{"version":2,"pending":{"a":"b"}}`: new(*journal.NewerError),
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := j.Pending("c1", "eth0"); err == nil || !errors.As(err, want) {
			t.Errorf("%s: found %v, want a %T", content, err, want)
		}
	}
}

package lease

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestClockIsSet: whatever the wall clock is set to while there is no keeper, a lease has as much time left as it had, less what
// has really passed.
func TestClockIsSet(t *testing.T) {
	s, err := CreateStore(filepath.Join(t.TempDir(), "leases"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	key := Key{"c1", "lan", "net1"}
	r := &Record{Spec: Spec{Key: key, IPv4: true}, IPv4: &Binding{}}
	r.IPv4.Lease.SetTimes(time.Now(), 0, 0, 800*time.Second)
	if before := r.IPv4.Lease.Renew; before == before.Round(0) { // which takes the monotonic reading away
		t.Error("the times of a running keeper are by the wall clock")
	}
	for _, by := range []time.Duration{0, -10 * 365 * 24 * time.Hour, 10 * 365 * 24 * time.Hour, -time.Minute, time.Minute} {
		if err := s.Put(r); err != nil {
			t.Fatal(err)
		}
		// As if the clock had been set by that much: what is on disk is of a clock that was different.
		path := s.path(key)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		disk := new(Record)
		if err := json.Unmarshal(b, disk); err != nil {
			t.Fatal(err)
		}
		if disk.Booted.IsZero() {
			t.Fatalf("the record does not say when the node was booted: %s", b)
		}
		disk.Booted = disk.Booted.Add(-by)
		disk = disk.withTimes(func(t time.Time) time.Time { return t.Add(-by) })
		if b, err = json.Marshal(disk); err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Get(key)
		if err != nil {
			t.Fatal(err)
		}
		for what, at := range map[time.Duration]time.Time{
			400 * time.Second: got.IPv4.Lease.Renew, 700 * time.Second: got.IPv4.Lease.Rebind, 800 * time.Second: got.IPv4.Lease.Expire,
		} {
			if left := time.Until(at); left > what+2*clockNoise || left < what-time.Minute {
				t.Errorf("clock set by %s: %s are left, want %s", by, left, what)
			}
		}
		if !r.IPv4.Lease.Renew.After(time.Now()) {
			t.Error("Put has changed the record")
		}
	}
}

// TestNewerLease: what a newer version has written is left to it, and what is damaged goes.
func TestNewerLease(t *testing.T) {
	s, err := CreateStore(filepath.Join(t.TempDir(), "leases"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	key := Key{"c1", "lan", "net1"}
	if err := s.Put(&Record{Spec: Spec{Key: key, IPv4: true}, IPv4: &Binding{}}); err != nil {
		t.Fatal(err)
	}
	path := s.path(key)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Replace(b, []byte(`"version": 1,`), []byte(`"version": 99,`), 1)
	if bytes.Equal(newer, b) {
		t.Fatalf("no version in %s", b)
	}
	if err := os.WriteFile(path, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := s.All(); len(all) != 0 || err == nil {
		t.Errorf("All: %v, %v", all, err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, newer) {
		t.Errorf("the record of a newer version: %v, %s", err, after)
	}
	if err := os.WriteFile(path, []byte(`{"version": `), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err := s.All(); len(all) != 0 || err == nil {
		t.Errorf("All: %v, %v", all, err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a damaged record stays: %v", err)
	}
}

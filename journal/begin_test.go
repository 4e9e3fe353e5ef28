package journal_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/braid-cni/braid/journal"
)

// TestLostRecord: a record that the power was too fast for is none, whatever is left of it, and goes with the next Tidy. One
// that had been made durable is missed.
func TestLostRecord(t *testing.T) {
	j, dir := open(t)
	path := filepath.Join(dir, "c1:eth0.json")
	durable, err := j.Begin(record(t, "c1"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := j.Get("c1", "eth0"); err != nil || got.Done { // for who finds what a killed process has left
		t.Errorf("begun: %v, %v", got, err)
	}
	if err := errors.Join(durable(), durable()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("when it is durable: %v, %v", info.Mode(), err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	exists := func() bool {
		_, err := os.Lstat(path)
		return err == nil
	}
	for name, content := range map[string][]byte{"empty": nil, "zeroes": make([]byte, len(whole)), "cut": whole[:len(whole)/2]} {
		t.Run(name, func(t *testing.T) {
			lose := func(mode os.FileMode) {
				t.Helper()
				if err := errors.Join(os.WriteFile(path, content, 0o600), os.Chmod(path, mode)); err != nil {
					t.Fatal(err)
				}
			}
			lose(0o600)
			var corrupt *journal.CorruptError
			if _, err := j.Get("c1", "eth0"); !errors.As(err, &corrupt) {
				t.Errorf("Get of one that was durable: %v", err)
			}
			if err := j.Tidy(); err != nil || !exists() {
				t.Errorf("Tidy with one that was durable: %v, it is there: %v", err, exists())
			}

			lose(0o400)
			_, getErr := j.Get("c1", "eth0")
			_, pendingErr := j.Pending("c1", "eth0")
			if !errors.Is(getErr, journal.ErrNotFound) || !errors.Is(pendingErr, journal.ErrNotFound) {
				t.Errorf("Get: %v, Pending: %v", getErr, pendingErr)
			}
			if all, err := j.All(); len(all) != 0 || err != nil {
				t.Errorf("All = %v, %v", all, err)
			}
			unlock, err := j.Lock(t.Context(), "c1")
			if err != nil {
				t.Fatal(err)
			}
			if err := j.Tidy(); err != nil || !exists() {
				t.Errorf("Tidy with c1 locked: %v, it is there: %v", err, exists())
			}
			unlock()
			if err := j.Tidy(); err != nil || exists() {
				t.Errorf("Tidy: %v, it is there: %v", err, exists())
			}

			lose(0o400)
			if unlock, err = j.LockAll(t.Context()); err != nil || exists() {
				t.Errorf("LockAll: %v, it is there: %v", err, exists())
			}
			unlock()

			lose(0o400)
			if durable, err := j.Begin(record(t, "c1")); err != nil || durable() != nil {
				t.Errorf("Begin: %v", err)
			}
			if _, err := j.Get("c1", "eth0"); err != nil {
				t.Errorf("Get of the next: %v", err)
			}
			if err := j.Tidy(); err != nil || !exists() {
				t.Errorf("Tidy with the next: %v, it is there: %v", err, exists())
			}
		})
	}
}

package delegate_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/braid-cni/braid/cni"
)

// TestSignalsAreHeardFirst: the cluster is asked meanwhile, but nothing is made, and nothing of before undone, until a signal would have
// it undone.
func TestSignalsAreHeardFirst(t *testing.T) {
	w := newWorld(t)
	w.on = func(plugin, _ string, _ *cni.Request) error {
		if plugin == "fake-one" {
			return errors.New("it neither makes nor undoes anything")
		}
		return nil
	}
	if _, err := w.delegator().Add(t.Context(), w.request("")); err == nil {
		t.Fatal("the first ADD has no error")
	}
	w.wantRecords(1)
	w.calls()
	w.on, w.query = nil, nil
	synctest.Test(t, func(t *testing.T) {
		heard, done := make(chan struct{}), make(chan error)
		go func() {
			_, err := w.delegator().Add(cni.WithHeard(t.Context(), heard), w.request(""))
			done <- err
		}()
		synctest.Wait()
		w.wantCalls()
		if w.query == nil {
			t.Error("nobody has been asked for the pod meanwhile")
		}
		close(heard)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
	calls := w.calls()
	if len(calls) != 4 || calls[0] != "fake-one DEL net1" || calls[1] != "fake-default ADD eth0" {
		t.Errorf("calls: %q", calls)
	}
}

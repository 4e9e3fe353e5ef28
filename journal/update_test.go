package journal_test

import (
	"errors"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/journal"
)

// TestUpdate: the result of a finished attachment is changed, and that of no other one.
func TestUpdate(t *testing.T) {
	rename := func(res *types100.Result) { res.Interfaces[0].Name = "changed" }
	for name, tt := range map[string]struct {
		is              func(*journal.Record) // besides the record of a finished ADD
		network, ifName string
		want            error
	}{
		"the attachment":            {func(*journal.Record) {}, "blue", "net1", nil},
		"another network":           {func(*journal.Record) {}, "red", "net1", journal.ErrNotFound},
		"another interface":         {func(*journal.Record) {}, "blue", "net2", journal.ErrNotFound},
		"it has not been made":      {func(r *journal.Record) { r.Attachments[0].Result = nil }, "blue", "net1", journal.ErrNotFound},
		"what could not be undone":  {func(r *journal.Record) { r.Done = false }, "blue", "net1", journal.ErrNotFound},
		"of two, which is the last": {func(r *journal.Record) { r.Attachments = append(other(r), r.Attachments...) }, "blue", "net1", nil},
	} {
		t.Run(name, func(t *testing.T) {
			j, _ := open(t)
			want := record(t, "c1")
			want.Done = true
			tt.is(want)
			if err := j.Put(want); err != nil {
				t.Fatal(err)
			}
			if err := j.Update(t.Context(), "c1", tt.network, tt.ifName, rename); !errors.Is(err, tt.want) {
				t.Errorf("found %v, want %v", err, tt.want)
			}
			if tt.want == nil {
				rename(want.Attachments[len(want.Attachments)-1].Result)
			}
			wantRecord(t, "updated", want, get(t, j))
		})
	}
	j, _ := open(t)
	if err := j.Update(t.Context(), "c1", "blue", "net1", rename); !errors.Is(err, journal.ErrNotFound) {
		t.Errorf("no record: found %v, want %v", err, journal.ErrNotFound)
	}
}

// other returns an attachment to the same network as the only one of a record, by another interface.
func other(r *journal.Record) []journal.Attachment {
	a := r.Attachments[0]
	a.IfName, a.Result = "net0", &types100.Result{CNIVersion: "1.1.0", Interfaces: []*types100.Interface{{Name: "net0", Sandbox: "/n"}}}
	return []journal.Attachment{a}
}

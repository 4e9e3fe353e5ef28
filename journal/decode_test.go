package journal_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/internal/memo"
	"github.com/braid-cni/braid/journal"
)

// TestRemembered: records of one network have it together, and nothing else.
func TestRemembered(t *testing.T) {
	j, _ := open(t)
	for _, id := range []string{"c1", "c2"} {
		if err := j.Put(record(t, id)); err != nil {
			t.Fatal(err)
		}
	}
	var want, got []*journal.Record
	get := func(into *[]*journal.Record) {
		for _, id := range []string{"c1", "c2", "c1"} {
			r, err := j.Get(id, "eth0")
			if err != nil {
				t.Fatal(err)
			}
			*into = append(*into, r)
		}
	}
	get(&want)
	j.Memory = new(memo.Memory)
	get(&got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("with a memory (-without +with):\n%s", diff)
	}
	a, b := &got[0].Attachments[0], &got[2].Attachments[0]
	if a.Network != b.Network || a.Result == b.Result {
		t.Errorf("network %p and %p, result %p and %p: want one network and two results", a.Network, b.Network, a.Result, b.Result)
	}
}

// Once for each DEL and CHECK, in a process that stays.
func BenchmarkGetRemembered(b *testing.B) {
	m := new(memo.Memory)
	benchmarkRead(b, func(j *journal.Journal, containerID, ifName string) (*journal.Record, error) {
		j.Memory = m
		return j.Get(containerID, ifName)
	})
}

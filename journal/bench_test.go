package journal_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/braid-cni/braid/journal"
)

// withAttachments returns a record of a pod with n networks.
func withAttachments(b *testing.B, n int) *journal.Record {
	b.Helper()
	r := record(b, "c1")
	one := r.Attachments[0]
	r.Attachments = nil
	for i := range n {
		one.IfName = fmt.Sprint("net", i)
		r.Attachments = append(r.Attachments, one)
	}
	return r
}

// Once before the first attachment is made, and once when all are. The sync to the disk is included.
func BenchmarkPut(b *testing.B) {
	for _, n := range []int{1, 9} {
		b.Run(fmt.Sprintf("%d networks", n), func(b *testing.B) {
			j, _ := open(b)
			r := withAttachments(b, n)
			for b.Loop() {
				if err := j.Put(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What one ADD writes: the record, which is synced to the disk, and what has become of it.
func BenchmarkAdd(b *testing.B) {
	for _, n := range []int{1, 9} {
		b.Run(fmt.Sprintf("%d networks", n), func(b *testing.B) {
			j, _ := open(b)
			finished := withAttachments(b, n)
			begun := *finished
			begun.Attachments = slices.Clone(finished.Attachments)
			for i := range begun.Attachments {
				begun.Attachments[i].Result = nil
			}
			for b.Loop() {
				durable, err := j.Begin(&begun)
				if err == nil {
					err = errors.Join(durable(), j.Finish(finished), j.Remove("c1", "eth0"))
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Once for each DEL and CHECK.
func BenchmarkGet(b *testing.B) { benchmarkRead(b, (*journal.Journal).Get) }

// Twice for each ADD, in the daemon, and once more when the report is taken out.
func BenchmarkPending(b *testing.B) {
	benchmarkRead(b, func(j *journal.Journal, containerID, ifName string) (json.RawMessage, error) {
		pending, err := j.Pending(containerID, ifName)
		if err == nil && len(pending) == 0 {
			err = errors.New("nothing is pending")
		}
		return pending, err
	})
}

func benchmarkRead[T any](b *testing.B, read func(j *journal.Journal, containerID, ifName string) (T, error)) {
	for _, n := range []int{1, 9} {
		b.Run(fmt.Sprintf("%d networks", n), func(b *testing.B) {
			j, _ := open(b)
			r := withAttachments(b, n)
			if err := j.Put(r); err != nil {
				b.Fatal(err)
			}
			r.Done, r.Pending = true, fmt.Appendf(nil, `{"status":%q}`, strings.Repeat("network-status", 20*n))
			if err := j.Finish(r); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := read(j, "c1", "eth0"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Once for each call, while other containers are at work.
func BenchmarkLock(b *testing.B) {
	j, _ := open(b)
	for i := range 100 {
		unlock, err := j.Lock(b.Context(), fmt.Sprint("other", i))
		if err != nil {
			b.Fatal(err)
		}
		defer unlock()
	}
	for b.Loop() {
		unlock, err := j.Lock(b.Context(), "c1")
		if err != nil {
			b.Fatal(err)
		}
		unlock()
	}
}

package lease

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// The times of a lease are counted by clocks that nobody sets, while a keeper runs: those that it has from time.Now do. On disk
// they are by the wall clock, which can be set while no keeper runs, by years. A record says when the node was booted by the
// wall clock as it was then: what that is now says how far the clock has been set since.

// booted returns when the node was booted, by the wall clock of now.
func booted() (time.Time, error) {
	var since unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &since); err != nil {
		return time.Time{}, fmt.Errorf("read the time since boot: %w", err)
	}
	return time.Now().Round(0).Add(-time.Duration(since.Nano())), nil
}

// clockNoise is what two readings of the clocks differ by although nobody has set one: they are not read at once, and the wall
// clock is slewed.
const clockNoise = time.Second

// toWall puts the times of the leases by the wall clock as it is now.
func (r *Record) toWall(now time.Time) *Record {
	return r.withTimes(func(t time.Time) time.Time { return now.Round(0).Add(t.Sub(now)) })
}

// fromWall puts times of a record that has been read by the wall clock as it is now.
func (r *Record) fromWall(booted time.Time) *Record {
	set := booted.Sub(r.Booted)
	if r.Booted.IsZero() || set.Abs() < clockNoise {
		return r
	}
	return r.withTimes(func(t time.Time) time.Time { return t.Add(set) })
}

func (r *Record) withTimes(change func(time.Time) time.Time) *Record {
	changed := *r
	for _, b := range []**Binding{&changed.IPv4, &changed.IPv6} {
		if *b == nil {
			continue
		}
		binding := **b
		for _, t := range []*time.Time{&binding.Lease.Renew, &binding.Lease.Rebind, &binding.Lease.Expire} {
			if !t.IsZero() {
				*t = change(*t)
			}
		}
		*b = &binding
	}
	return &changed
}

package status

import (
	"testing"
	"time"
)

func TestDue(t *testing.T) {
	start := time.Now()
	after := func(d time.Duration) time.Time { return start.Add(d) }
	for name, tt := range map[string]struct{ busy, want time.Duration }{
		"a quiet node":         {busy: -time.Hour, want: 2 * time.Second},
		"an ADD before":        {busy: -time.Second, want: 2 * time.Second},
		"an ADD since":         {busy: time.Second, want: 3 * time.Second},
		"one ADD after other":  {busy: 9 * time.Second, want: 10 * time.Second},
		"a clock that went on": {busy: time.Hour, want: 10 * time.Second},
	} {
		q := New(Options{Delay: 2 * time.Second, MaxDelay: 10 * time.Second})
		q.busy.Store(after(tt.busy).UnixNano())
		if got := q.due(start).Sub(start).Round(time.Millisecond); got != tt.want {
			t.Errorf("%s: due after %s, want %s", name, got, tt.want)
		}
	}
}

package main

import (
	"math"
	"slices"
)

// A Sample is one call of a plugin.
type Sample struct {
	Wall float64 // milliseconds
	CPU  float64 // milliseconds, of all processes that the call has started and of the peer's daemon until its next call
	Err  string  `json:",omitempty"`
}

// A Series is one measured curve's point: all samples of one peer at one place. Samples with the same index of the
// series of one place were taken one after the other.
type Series struct {
	Section string // what was varied
	Kind    string // of the networks
	X       int    // how much of it
	Peer    string
	Op      string // ADD or DEL
	Samples []Sample
}

// Results are all that a run has found.
type Results struct {
	Quick   bool
	Machine []string // lines that say where
	Peers   []string
	Notes   []string
	Series  []*Series
	Storms  []Storm
	Counts  []Count
	Values  map[string]float64 // single figures, by name
}

// A Storm is many pods at once.
type Storm struct {
	Kind, Peer, Op   string
	Networks, AtOnce int
	Pods, Failed     int
	PodsPerSecond    float64
	P50, P99, Max    float64 // milliseconds
	CPUPerPod        float64 // milliseconds
	Error            string  `json:",omitempty"` // of the first that failed
}

// A Count is what one call needs.
type Count struct {
	Kind, Peer, Op string
	Networks       int
	Processes      int
	Requests       map[string]int // of the API server, by verb and resource
	PeakKiB        int            // of the largest process
}

func (r *Results) series(section, kind string, x int, peer, op string) *Series {
	for _, s := range r.Series {
		if s.Section == section && s.Kind == kind && s.X == x && s.Peer == peer && s.Op == op {
			return s
		}
	}
	s := &Series{Section: section, Kind: kind, X: x, Peer: peer, Op: op}
	r.Series = append(r.Series, s)
	return s
}

// find is series without making one.
func (r *Results) find(section, kind string, x int, peer, op string) *Series {
	for _, s := range r.Series {
		if s.Section == section && s.Kind == kind && s.X == x && s.Peer == peer && s.Op == op && len(s.walls()) > 0 {
			return s
		}
	}
	return nil
}

func (s *Series) walls() (ms []float64) {
	for _, x := range s.Samples {
		if x.Err == "" {
			ms = append(ms, x.Wall)
		}
	}
	return ms
}

func (s *Series) failed() int { return len(s.Samples) - len(s.walls()) }

// cpu is a mean: what the kernel says of a daemon comes in steps of 10 ms, which even out.
func (s *Series) cpu() float64 {
	sum, n := 0.0, 0
	for _, x := range s.Samples {
		if x.Err == "" {
			sum, n = sum+x.CPU, n+1
		}
	}
	return sum / float64(n)
}

// paired returns the median of the ratios of samples that were taken one after the other.
func paired(a, b *Series) float64 {
	if a == nil || b == nil {
		return math.NaN()
	}
	return median(pairs(a, b, func(x, y float64) float64 { return x / y }))
}

// pairedDiff returns the median of their differences.
func pairedDiff(a, b *Series) float64 {
	if a == nil || b == nil {
		return math.NaN()
	}
	return median(pairs(a, b, func(x, y float64) float64 { return x - y }))
}

func pairs(a, b *Series, f func(x, y float64) float64) (v []float64) {
	for i := range min(len(a.Samples), len(b.Samples)) {
		if x, y := a.Samples[i], b.Samples[i]; x.Err == "" && y.Err == "" {
			v = append(v, f(x.Wall, y.Wall))
		}
	}
	return v
}

func median(v []float64) float64 { return quantile(v, 0.5) }

// quantile interpolates between the two nearest.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(v))
	at := q * float64(len(s)-1)
	low := int(at)
	if low+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[low] + (at-float64(low))*(s[low+1]-s[low])
}

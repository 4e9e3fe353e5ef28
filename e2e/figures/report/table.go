package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/braid-cni/braid/e2e/figures"
)

// tiers come in this order, others after them.
var tiers = []string{"test-crash", "test-storm", "test", "fuzz", "conformance", "race"}

// table has a line for each thing that was counted. What was counted of several kinds, "points: ADD" and "points: DEL", is
// one line.
func table(list []figures.Figure) string {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b figures.Figure) int {
		return cmp.Or(cmp.Compare(place(a.Tier), place(b.Tier)), cmp.Compare(a.Tier, b.Tier))
	})
	type line struct{ tier, what string }
	var lines []line
	counts := make(map[line][]string)
	for _, f := range list {
		what, kind, _ := strings.Cut(f.What, ": ")
		l := line{f.Tier, what}
		if counts[l] == nil {
			lines = append(lines, l)
		}
		counts[l] = append(counts[l], strings.TrimSpace(thousands(f.Count)+" "+kind))
	}
	var b strings.Builder
	b.WriteString("| | what was counted | how often |\n|---|---|---|\n")
	last := ""
	for _, l := range lines {
		tier := ""
		if l.tier != last {
			tier, last = "`make "+l.tier+"`", l.tier
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", tier, cell(l.what), cell(strings.Join(counts[l], ", ")))
	}
	return b.String()
}

func place(tier string) int {
	if i := slices.Index(tiers, tier); i >= 0 {
		return i
	}
	return len(tiers)
}

func cell(s string) string { return strings.NewReplacer("|", "\\|", "\n", " ").Replace(s) }

// thousands sets the digits of a number apart.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

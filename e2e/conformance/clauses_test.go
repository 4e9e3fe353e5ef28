//go:build conformance

package conformance

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// clausesTSV has a line for each row: number, section, keyword, clause. The clauses are quoted from the standards.
//
//go:embed clauses.tsv
var clausesTSV string

// A clause is one row of the report.
type clause struct{ row, section, keyword, text string }

func clauses() (list []clause) {
	for line := range strings.Lines(clausesTSV) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(f) != 4 {
			panic(fmt.Sprintf("clauses.tsv: %q has %d fields, want 4", line, len(f)))
		}
		list = append(list, clause{f[0], f[1], f[2], f[3]})
	}
	return list
}

// tests has the test of each row.
var tests = map[string]func(*T){}

// row says how a row is asked.
func row(id string, ask func(*T)) struct{} {
	if tests[id] != nil {
		panic("two tests for row " + id)
	}
	tests[id] = ask
	return struct{}{}
}

// notApplicable says why nobody can be asked the rows.
func notApplicable(why string, ids ...string) {
	for _, id := range ids {
		row(id, func(t *T) { t.NotApplicable(why) })
	}
}

// sortedRows returns the rows that have a test: A1, A2, …, B190.
func sortedRows() []string {
	return slices.SortedFunc(maps.Keys(tests), compareRows)
}

func compareRows(a, b string) int {
	if a[0] != b[0] {
		return int(a[0]) - int(b[0])
	}
	x, _ := strconv.Atoi(a[1:]) // the report complains about rows that are not in clauses.tsv
	y, _ := strconv.Atoi(b[1:])
	return x - y
}

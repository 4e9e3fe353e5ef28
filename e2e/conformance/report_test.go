//go:build conformance

package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/braid-cni/braid/e2e/figures"
)

// results are kept beside the tests, so that the report has those of other implementations too.
type results struct {
	Name     string             `json:"name"`
	Version  string             `json:"version"`
	Verdicts map[string]verdict `json:"verdicts"`
}

// report writes the results and the report, if every row was asked.
func (s *suite) report() {
	rows := map[string][]string{}
	for _, row := range slices.SortedFunc(maps.Keys(s.verdicts), compareRows) {
		result := s.verdicts[row].Result
		rows[result] = append(rows[result], row)
	}
	for _, result := range []string{pass, fail, different, absent} {
		s.t.Logf("%s: %3d %-9s %s", s.impl.name, len(rows[result]), result, strings.Join(rows[result], " "))
	}
	if impostor, ok := impostors[s.impl.name]; ok {
		for _, row := range rows[pass] {
			if !slices.Contains(impostor.passes, row) {
				s.t.Errorf("row %s is passed by an implementation that does nothing", row)
			}
		}
		return
	}
	if len(s.verdicts) != len(clauses()) {
		return
	}
	for result, of := range rows {
		kind := strings.Replace(result, absent, "not applicable", 1)
		figures.Note(s.t, "conformance", fmt.Sprintf("clauses asked of %s: %s", s.impl.name, kind), len(of))
	}
	if os.Getenv(reportEnv) != "1" {
		return
	}
	mine := results{Name: s.impl.name, Version: os.Getenv(versionEnv), Verdicts: s.verdicts}
	b, err := json.MarshalIndent(mine, "", "  ")
	if err == nil {
		err = os.MkdirAll("results", 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join("results", s.impl.name+".json"), append(b, '\n'), 0o644)
	}
	if err == nil {
		err = render("results", "../../docs/conformance.md")
	}
	if err != nil {
		s.t.Error(err)
	}
}

// render writes the report of all results.
func render(dir, to string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return err
	}
	var all []results
	for _, f := range files {
		var r results
		b, err := os.ReadFile(f)
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b results) int { return strings.Compare(a.Name, b.Name) })
	return os.WriteFile(to, []byte(markdown(all)), 0o644)
}

func markdown(all []results) string {
	var b strings.Builder
	b.WriteString(intro)
	b.WriteString("| |")
	for _, r := range all {
		fmt.Fprintf(&b, " %s |", strings.TrimSpace(r.Name+" "+r.Version))
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(all)) + "\n")
	for _, what := range []string{pass, fail, different, absent} {
		fmt.Fprintf(&b, "| %s |", what)
		for _, r := range all {
			n := 0
			for _, v := range r.Verdicts {
				if v.Result == what {
					n++
				}
			}
			fmt.Fprintf(&b, " %d |", n)
		}
		b.WriteString("\n")
	}
	title := map[byte]string{'A': "Network CRD standard 1.3", 'B': "CNI 1.1.0 and its conventions"}
	last := byte(0)
	for _, c := range clauses() {
		if c.row[0] != last {
			last = c.row[0]
			fmt.Fprintf(&b, "\n## %s\n\n| row | § | | clause |", title[last])
			for _, r := range all {
				fmt.Fprintf(&b, " %s |", r.Name)
			}
			b.WriteString(" why |\n|---|---|---|---|" + strings.Repeat("---|", len(all)) + "---|\n")
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |", c.row, cell(c.section), cell(c.keyword), cell(c.text))
		var why []string
		for _, r := range all {
			v := r.Verdicts[c.row]
			fmt.Fprintf(&b, " %s |", v.Result)
			if v.Why != "" && !strings.HasSuffix(strings.Join(why, ""), v.Why) {
				why = append(why, r.Name+": "+v.Why)
			} else if v.Why != "" {
				why[len(why)-1] = strings.Replace(why[len(why)-1], ":", ", "+r.Name+":", 1)
			}
		}
		fmt.Fprintf(&b, " %s |\n", cell(strings.Join(why, "<br>")))
	}
	return b.String()
}

func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ", "<nil>", "nil", "*", "\\*").Replace(s)
}

const intro = `# Conformance

Every clause of the [Network Custom Resource Definition De-facto Standard](https://github.com/k8snetworkplumbingwg/multi-net-spec) 1.3
(rows A) and of [CNI 1.1.0](https://www.cni.dev/docs/spec/), its conventions and its notes on upgrades (rows B), with what the built
binaries do. ` + "`make conformance`" + ` asks every row again, of the binaries, with an API server, in network namespaces, and writes this
page; [e2e/conformance](../e2e/conformance) has the tests, named by the row.

- **pass**: the test of the row asserts the clause, and it holds.
- **fail**: it does not.
- **different**: it does not, and that is a decision; the reason is beside it.
- **n/a**: the clause is about somebody else, or is a permission that nobody can fail.

Clauses are quoted, but for what is in parentheses. The third column has the keyword of the standard; a step is one of the
protocol that has none. Braid is asked twice: as the plugin alone (braid), and with the node daemon, which answers from its
cache (braid+daemon, ` + "`make conformance IMPL=braid+daemon`" + `).

The same tests are put to another implementation with ` + "`make conformance IMPL=multus`" + `, which builds Multus (the thin plugin), or
` + "`IMPL=/path/binary`" + `: the same configurations, the same API server, full rights there, and the reference plugins for interfaces and
addresses. What is asked of those plugins is n/a for it. What is beside a **fail** is the first complaint of the test.
` + "`IMPL=yes`" + ` and ` + "`IMPL=no`" + ` try the tests themselves, with a program that agrees to everything and one that refuses everything, and does
nothing: a row that they pass would show nothing.

`

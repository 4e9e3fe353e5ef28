package metrics

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"sigs.k8s.io/yaml"
)

const (
	manual    = "../../docs/monitoring.md"
	alerts    = "../../deploy/monitoring/alerts.yaml"
	dashboard = "../../deploy/monitoring/dashboard.json"
)

// gathered returns all metrics of a scenario that has each.
func gathered(t *testing.T) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := scenario(t).registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]*dto.MetricFamily{}
	for _, f := range families {
		byName[f.GetName()] = f
	}
	return byName
}

func labelsOf(f *dto.MetricFamily) []string {
	names := map[string]bool{}
	for _, m := range f.Metric {
		for _, l := range m.Label {
			names[l.GetName()] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// The table of the manual is what the registry says.
func TestManual(t *testing.T) {
	var table strings.Builder
	all := gathered(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		f := all[name]
		if !strings.HasPrefix(name, "braid_") {
			continue
		}
		var labels []string
		for _, l := range labelsOf(f) {
			labels = append(labels, "`"+l+"`")
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", name, strings.ToLower(f.GetType().String()), strings.Join(labels, ", "),
			strings.TrimSuffix(f.GetHelp(), "."))
	}
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	const head = "| metric | type | labels | meaning |\n|---|---|---|---|\n"
	before, rest, found := strings.Cut(string(text), head)
	rows := regexp.MustCompile(`^(\|.*\n)*`).FindString(rest)
	if !found {
		t.Fatalf("%s has no table of metrics", manual)
	}
	if *update {
		if err := os.WriteFile(manual, []byte(before+head+table.String()+rest[len(rows):]), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(table.String(), rows); diff != "" {
		t.Errorf("%s, -want +got (go test -update writes it anew):\n%s", manual, diff)
	}
}

// Every event of the manual is one that some package writes.
func TestEvents(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, pattern := range []string{"../../delegate/*.go", "../install/*.go", "../sweep/*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(file, "_test.go") {
				source.Write(b)
			}
		}
	}
	rows := regexp.MustCompile(`(?m)^\| (?:pod|node) \| ([^|]*) \|`).FindAllStringSubmatch(string(text), -1)
	reasons := 0
	for _, row := range rows {
		for reason := range strings.SplitSeq(row[1], ", ") {
			reasons++
			if name := strings.Trim(reason, "`"); !strings.Contains(source.String(), `"`+name+`"`) {
				t.Errorf("%s has an event %s, which nobody writes", manual, name)
			}
		}
	}
	if reasons < 10 {
		t.Errorf("%s has %d events: the table is not found", manual, reasons)
	}
}

type alertRule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func rules(t *testing.T) (list []alertRule) {
	t.Helper()
	b, err := os.ReadFile(alerts)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []alertRule `json:"rules"`
		} `json:"groups"`
	}
	if err := yaml.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	for _, g := range file.Groups {
		list = append(list, g.Rules...)
	}
	if len(list) < 10 {
		t.Fatalf("%s has %d rules", alerts, len(list))
	}
	return list
}

// Every alert is of metrics that exist, tells what to do, and is in the manual with its severity.
func TestAlerts(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("../../deploy/monitoring/alerts_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all := gathered(t)
	list := rules(t)
	for _, r := range list {
		checkQuery(t, all, r.Alert, r.Expr)
		for _, key := range []string{"summary", "description", "runbook"} {
			if r.Annotations[key] == "" {
				t.Errorf("%s has no %s", r.Alert, key)
			}
		}
		if row := fmt.Sprintf("\n| `%s` | %s | ", r.Alert, r.Labels["severity"]); !strings.Contains(string(text), row) {
			t.Errorf("%s has no row like %q", manual, row)
		}
		if !strings.Contains(string(tests), fmt.Sprintf("alertname=%q", r.Alert)) {
			t.Errorf("no test of %s fires", r.Alert)
		}
	}
	if n := strings.Count(string(text), "\n| `Braid"); n != len(list) {
		t.Errorf("%s has %d alerts, want %d", manual, n, len(list))
	}
}

type grafanaPanel struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct{ H, W, X, Y int }
	Targets []struct {
		Expr  string `json:"expr"`
		RefID string `json:"refId"`
	} `json:"targets"`
}

func panels(t *testing.T) []grafanaPanel {
	t.Helper()
	b, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		UID    string         `json:"uid"`
		Panels []grafanaPanel `json:"panels"`
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	if d.UID == "" || len(d.Panels) < 10 {
		t.Fatalf("%s has %d panels", dashboard, len(d.Panels))
	}
	return d.Panels
}

// Every panel of the dashboard is of metrics that exist and has a place of its own, and every metric is on it.
func TestDashboard(t *testing.T) {
	all := gathered(t)
	shown := map[string]bool{}
	ids := map[int]bool{}
	places := map[[2]int]string{}
	for _, p := range panels(t) {
		if ids[p.ID] {
			t.Errorf("%s: id %d is there twice", p.Title, p.ID)
		}
		ids[p.ID] = true
		if p.GridPos.W < 1 || p.GridPos.H < 1 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s is at %+v", p.Title, p.GridPos)
		}
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := places[[2]int{x, y}]; other != "" {
					t.Fatalf("%s covers %s", p.Title, other)
				}
				places[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			maps.Copy(shown, checkQuery(t, all, p.Title, target.Expr))
		}
	}
	for name := range all {
		if strings.HasPrefix(name, "braid_") && !shown[name] && !strings.Contains(name, "_duration_") {
			t.Errorf("%s is not on the dashboard", name)
		}
	}
}

var (
	selector = regexp.MustCompile(`\b((?:braid|process|go)_\w+)(\{[^}]*\})?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
	grouping = regexp.MustCompile(`\b(?:by|on) \(([^)]*)\)`)
)

// checkQuery fails if a query is of a metric, a label or a value that there is not. It returns the metrics.
func checkQuery(t *testing.T, all map[string]*dto.MetricFamily, where, expr string) map[string]bool {
	t.Helper()
	used := map[string]bool{}
	labels := []string{"instance", "job", "le"} // of Prometheus
	for _, s := range selector.FindAllStringSubmatch(grouping.ReplaceAllString(expr, ""), -1) {
		name := s[1]
		f := all[name]
		if base := strings.TrimSuffix(name, "_bucket"); f == nil && base != name {
			if f = all[base]; f != nil && f.GetType() != dto.MetricType_HISTOGRAM {
				f = nil
			}
			name = base
		}
		if f == nil {
			t.Errorf("%s: there is no metric %s", where, s[1])
			continue
		}
		used[name] = true
		labels = append(labels, labelsOf(f)...)
		for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
			checkMatcher(t, f, where, m[1], m[2], m[3])
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for l := range strings.SplitSeq(g[1], ",") {
			if l = strings.TrimSpace(l); !slices.Contains(labels, l) {
				t.Errorf("%s: nothing has the label %s: %s", where, l, expr)
			}
		}
	}
	return used
}

// checkMatcher fails if a metric has no such label, or one that has a fixed set of values not that value.
func checkMatcher(t *testing.T, f *dto.MetricFamily, where, label, operator, value string) {
	t.Helper()
	fixed := map[string][]string{
		"outcome": {success, failure}, "verb": slices.Concat(cniVerbs, apiVerbs), "source": {Cache, Live},
		"reason": {Missing, Changed, Shadowed},
	}
	switch known, ok := fixed[label]; {
	case label == "instance" || label == "job":
	case !slices.Contains(labelsOf(f), label):
		t.Errorf("%s: %s has no label %s", where, f.GetName(), label)
	case ok && operator == "=" && !slices.Contains(known, value):
		t.Errorf("%s: %s is never %q, one of %q only", where, label, value, known)
	}
}

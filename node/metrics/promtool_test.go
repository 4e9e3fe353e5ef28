//go:build deploy

package metrics

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// promtool runs Prometheus' own tool.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	bin := os.Getenv("BRAID_PROMTOOL")
	if bin == "" {
		t.Fatal("BRAID_PROMTOOL is not set: want the path that hack/promtool prints")
	}
	cmd := exec.Command(bin, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	t.Logf("promtool %s\n%s", strings.Join(args, " "), out)
	if err != nil {
		t.Error(err)
	}
}

func TestPromtool(t *testing.T) {
	t.Run("rules", func(t *testing.T) { promtool(t, "", "check", "rules", "--lint-fatal", alerts) })
	t.Run("rule tests", func(t *testing.T) { promtool(t, "", "test", "rules", "../../deploy/monitoring/alerts_test.yaml") })
	t.Run("metrics", func(t *testing.T) { promtool(t, ofBraid(scrape(t, scenario(t))), "check", "metrics") })
	t.Run("dashboard", func(t *testing.T) { promtool(t, "", "check", "rules", "--lint-fatal", recorded(t)) })
}

// recorded writes the queries of the dashboard as rules, so that their syntax can be checked.
func recorded(t *testing.T) string {
	t.Helper()
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var list []rule
	variables := strings.NewReplacer("$__rate_interval", "5m", "$instance", "node-1|node-2")
	for _, p := range panels(t) {
		for _, target := range p.Targets {
			list = append(list, rule{fmt.Sprintf("panel:%d:%s", p.ID, target.RefID), variables.Replace(target.Expr)})
		}
	}
	b, err := yaml.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": list}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "dashboard.yaml")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

//go:build node

package node

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// samples are what the daemon tells Prometheus: lines of NAME{LABELS} VALUE.
type samples string

func metrics(t *testing.T) samples {
	t.Helper()
	answer, err := http.Get("http://127.0.0.1:9477/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return samples(content)
}

// lines returns the samples of a metric that have all the labels.
func (s samples) lines(name string, labels ...string) string {
	var found strings.Builder
next:
	for line := range strings.Lines(string(s)) {
		if rest, ok := strings.CutPrefix(line, name); !ok || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		for _, label := range labels {
			if !strings.Contains(line, label) {
				continue next
			}
		}
		found.WriteString(line)
	}
	return found.String()
}

// sum adds up the values of the samples of a metric that have all the labels.
func (s samples) sum(name string, labels ...string) (sum float64) {
	for line := range strings.Lines(s.lines(name, labels...)) {
		fields := strings.Fields(line)
		value, err := strconv.ParseFloat(fields[len(fields)-1], 64)
		if err != nil {
			panic(err)
		}
		sum += value
	}
	return sum
}

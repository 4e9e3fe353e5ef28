//go:build conformance

package conformance

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// Results of a row.
const (
	pass      = "pass"
	fail      = "fail"
	different = "different"
	absent    = "n/a"
)

// A verdict is what came of a row.
type verdict struct {
	Result string `json:"result"`
	Why    string `json:"why,omitempty"` // unless it passed
}

// T is the test of one row. It keeps its own verdict: a row that another implementation fails is a result, and no
// failure of the test.
type T struct {
	*testing.T
	suite *suite
	id    string

	mu      sync.Mutex
	verdict verdict
	nodes   int
}

// verdict of a complaint: the first one counts.
func (t *T) complain(message string) {
	t.Helper()
	t.mu.Lock()
	if t.verdict.Result != fail {
		t.verdict = verdict{fail, message}
	}
	t.mu.Unlock()
	if t.suite.impl.own {
		t.T.Error(message)
		return
	}
	t.Log(message)
}

func (t *T) Error(args ...any) {
	t.Helper()
	t.complain(strings.TrimSuffix(fmt.Sprintln(args...), "\n"))
}

func (t *T) Errorf(format string, args ...any) { t.Helper(); t.complain(fmt.Sprintf(format, args...)) }

func (t *T) Fatal(args ...any) {
	t.Helper()
	t.Error(args...)
	t.FailNow()
}

func (t *T) Fatalf(format string, args ...any) {
	t.Helper()
	t.Errorf(format, args...)
	t.FailNow()
}

func (t *T) FailNow() {
	if t.suite.impl.own {
		t.T.FailNow()
	}
	t.SkipNow()
}

// Differs notes that the implementation does something else than the clause says, on purpose. It does not end the row.
func (t *T) Differs(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.verdict.Result == pass {
		t.verdict = verdict{different, why}
	}
}

// NotApplicable ends the row: it cannot be asked.
func (t *T) NotApplicable(why string) {
	t.Helper()
	t.mu.Lock()
	if t.verdict.Result == pass {
		t.verdict = verdict{absent, why}
	}
	t.mu.Unlock()
	t.SkipNow()
}

// Plugin ends the row unless the implementation brings interface and address plugins of its own.
func (t *T) Plugin() {
	t.Helper()
	if !t.suite.impl.plugins {
		t.NotApplicable("it has no plugins of its own for interfaces or addresses")
	}
}

var changing = []struct {
	found *regexp.Regexp
	put   string
}{
	{regexp.MustCompile(`/\S*/(TestClauses|braid-conformance)[^/\s]*/\S*?([^/\s"']*)(["'\s,:;)]|$)`), "…/$2$3"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}`), "UID"},
	{regexp.MustCompile(`net:\[\d+\]`), "net:[N]"},
	{regexp.MustCompile(`\bc[0-9a-f]{8}\b`), "CONTAINER"},
	{regexp.MustCompile(`\bpod-[0-9a-f]{8}\b`), "POD"},
	{regexp.MustCompile(`\b0x[0-9a-f]+\b`), "0xN"},
	{regexp.MustCompile(`nic[0-9a-f]{8}`), "nic"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z?`), "TIME"},
}

// stable is a message without what differs from run to run, on one line.
func stable(message string) string {
	for _, c := range changing {
		message = c.found.ReplaceAllString(message, c.put)
	}
	message = strings.Join(strings.Fields(message), " ")
	if r := []rune(message); len(r) > 240 {
		message = string(r[:239]) + "…"
	}
	return message
}

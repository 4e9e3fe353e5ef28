package main

import (
	"testing"

	"github.com/braid-cni/braid/e2e/figures"
)

func TestTable(t *testing.T) {
	got := table([]figures.Figure{
		{Tier: "fuzz", What: "inputs", Count: 1234567},
		{Tier: "test-crash", What: "kills: ADD", Count: 1350},
		{Tier: "test-crash", What: "kills: DEL", Count: 12},
		{Tier: "another", What: "a|b", Count: 3},
	})
	want := `| | what was counted | how often |
|---|---|---|
| ` + "`make test-crash`" + ` | kills | 1,350 ADD, 12 DEL |
| ` + "`make fuzz`" + ` | inputs | 1,234,567 |
| ` + "`make another`" + ` | a\|b | 3 |
`
	if got != want {
		t.Errorf("found\n%swant\n%s", got, want)
	}
}

func TestKnown(t *testing.T) {
	makefile := "fuzz: ## every target\n"
	if err := known([]figures.Figure{{Tier: "fuzz"}}, makefile); err != nil {
		t.Error(err)
	}
	if err := known([]figures.Figure{{Tier: "fuz"}}, makefile); err == nil {
		t.Error("a tier without a target is no error")
	}
}

func TestReplace(t *testing.T) {
	page := "before\n" + begin + "old\n" + end + "after\n"
	want := "before\n" + begin + "\nnew\n\n" + end + "after\n"
	if got, err := replace(page, "new\n"); got != want || err != nil {
		t.Errorf("found %q, %v; want %q", got, err, want)
	}
	if again, err := replace(want, "new\n"); again != want || err != nil {
		t.Errorf("the second time: %q, %v", again, err)
	}
	if _, err := replace("no markers", "new"); err == nil {
		t.Error("a page without markers is no error")
	}
}

package delegate

import (
	"fmt"
	"strings"
	"testing"
)

func TestEventsAreFewAndFit(t *testing.T) {
	if got := events("AddedInterface", "Add ", nil); got != nil {
		t.Errorf("nothing is added, and told: %v", got)
	}
	var what []string
	for i := range 40 {
		what = append(what, fmt.Sprintf("net%d [10.%d.0.2/16] from default/a-name-that-is-somewhat-long", i, i))
	}
	what = append(what, strings.Repeat("x", 2*maxMessage)) // too long by itself: cut off by who writes it
	list := events("AddedInterface", "Add ", what)
	var told []string
	for _, e := range list {
		told = append(told, strings.TrimPrefix(e.Message, "Add "))
		if !strings.HasPrefix(e.Message, "Add net") && !strings.HasPrefix(e.Message, "Add xxx") || e.Reason != "AddedInterface" || e.Type != "Normal" {
			t.Errorf("event %v", e)
		}
	}
	if all := strings.Join(told, ", "); all != strings.Join(what, ", ") {
		t.Errorf("the events together tell %q", all)
	}
	if len(list) != 4 { // 40 of 58 bytes in three, and the last
		t.Errorf("%d events", len(list))
	}
	for _, e := range list[:len(list)-1] {
		if len(e.Message) > maxMessage {
			t.Errorf("a message of %d bytes", len(e.Message))
		}
	}
}

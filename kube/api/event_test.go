package api

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/resolve"
)

func TestJoined(t *testing.T) {
	long := strings.Repeat("x", maxMessage-3)
	add := func(message string) resolve.Event {
		return resolve.Event{Type: "Normal", Reason: "AddedInterface", Message: message}
	}
	careful := resolve.Event{Type: "Warning", Reason: "Careful", Message: "d"}
	for _, tt := range []struct {
		name       string
		have, want []resolve.Event
	}{
		{"none", nil, nil},
		{"one", []resolve.Event{add("a")}, []resolve.Event{add("a")}},
		{"all alike", []resolve.Event{add("a"), add("b"), add("c")}, []resolve.Event{add("a; b; c")}},
		{"another between", []resolve.Event{add("a"), careful, add("b"), add("c")}, []resolve.Event{add("a"), careful, add("b; c")}},
		{"as much as there is room", []resolve.Event{add(long), add("a"), add("b")}, []resolve.Event{add(long + "; a"), add("b")}},
		{"no room", []resolve.Event{add(long), add("ab"), add("c")}, []resolve.Event{add(long), add("ab; c")}},
	} {
		if diff := cmp.Diff(tt.want, joined(tt.have)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

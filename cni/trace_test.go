package cni_test

import (
	"strings"
	"testing"

	"github.com/braid-cni/braid/cni"
)

func TestTraceParent(t *testing.T) {
	const trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
	for _, tt := range []struct {
		text        string
		ok, sampled bool
	}{
		{"00-" + trace + "-" + span + "-01", true, true},
		{"00-" + trace + "-" + span + "-00", true, false},
		{"00-" + trace + "-" + span + "-03", true, true}, // a flag that is not known yet
		{"01-" + trace + "-" + span + "-01-more", true, true},
		{"00-" + trace + "-" + span + "-01-more", false, false},
		{"ff-" + trace + "-" + span + "-01", false, false},
		{"00-" + strings.ToUpper(trace) + "-" + span + "-01", false, false},
		{"00-" + strings.Repeat("0", 32) + "-" + span + "-01", false, false},
		{"00-" + trace + "-" + strings.Repeat("0", 16) + "-01", false, false},
		{"00-" + trace + "-" + span, false, false},
		{"00-" + trace + "-" + span[1:] + "-01", false, false},
		{"", false, false},
	} {
		got, ok := cni.ParseTraceParent(tt.text)
		if ok != tt.ok {
			t.Errorf("%q: valid %v, want %v", tt.text, ok, tt.ok)
			continue
		}
		if ok && (got.TraceID != trace || got.SpanID != span || got.Sampled != tt.sampled) {
			t.Errorf("%q: found %+v", tt.text, got)
		}
	}
	parent, _ := cni.ParseTraceParent("00-" + trace + "-" + span + "-01")
	child := parent.Child()
	if child.TraceID != trace || child.SpanID == span || !child.Sampled {
		t.Errorf("child of %s is %s", parent, child)
	}
	if again, ok := cni.ParseTraceParent(child.String()); !ok || again != child {
		t.Errorf("%s does not read back: %v", child, again)
	}
}

package conf_test

import (
	"strings"
	"testing"

	"github.com/braid-cni/braid/conf"
)

func TestIsPod(t *testing.T) {
	long := strings.Repeat("a", 253)
	for name, want := range map[string]bool{
		"web": true, "web-0.db": true, long: true, "1": true, long + "a": false, "": false, ".": false, "..": false, "a..b": false, "-a": false, "a-": false,
		"a.-b": false, "A": false, "a/b": false, "a_b": false, "a b": false, "\u0430": false, "a\n": false,
	} {
		if got := conf.IsPod("blue", name); got != want {
			t.Errorf("%.40q: found %v", name, got)
		}
	}
	for namespace, want := range map[string]bool{"blue": true, long[:63]: true, long[:64]: false, "a.b": false, "": false, "../x": false} {
		if got := conf.IsPod(namespace, "web"); got != want {
			t.Errorf("namespace %.70q: found %v", namespace, got)
		}
	}
}

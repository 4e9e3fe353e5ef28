package worker

import (
	"testing"

	"github.com/braid-cni/braid/worker/protocol"
)

// TestVariables: a call has the variables that a process of Go would have, of an environment as the runtime left it.
func TestVariables(t *testing.T) {
	env, _, ok := call([]string{protocol.Place(protocol.Own, ""), "{}",
		"CNI_ARGS", "CNI_COMMAND=ADD", "CNI_COMMAND=DEL", "CNI_ARGS=a=b", "CNI_ARGS=c", "=d", "CNI_NETNS"})
	if !ok {
		t.Fatal("it is no call")
	}
	for name, want := range map[string]string{"CNI_COMMAND": "ADD", "CNI_ARGS": "a=b", "CNI_NETNS": "", "": "d"} {
		if got := env(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

package client

import "testing"

// The worker gets what a call consists of, and no more of the environment.
func TestEnvironment(t *testing.T) {
	for name, want := range map[string]bool{"CNI_ARGS": true, "CNI_COMMAND": true, "TRACEPARENT": true, "BRAID_CALL": true, "SECRET": false, "PATH": false, "": false} {
		if IsPassed(name) != want {
			t.Errorf("%q is passed: %t", name, !want)
		}
	}
}

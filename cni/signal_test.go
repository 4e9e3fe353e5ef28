package cni

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
)

type statusFunc struct {
	Plugin
	called func()
}

func (s statusFunc) Status(context.Context, *Request) error {
	s.called()
	return nil
}

// A plugin has nothing to do before a signal would reach it: what it began could not be undone.
func TestSignalsAreHeardFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		heard := make(chan struct{})
		called, exit := false, make(chan int)
		env := map[string]string{"CNI_COMMAND": "STATUS", "CNI_PATH": "/opt/cni/bin"}
		var out bytes.Buffer
		go func() {
			exit <- Run(t.Context(), statusFunc{called: func() { called = true }}, "test", Process{
				Env:   func(name string) string { return env[name] },
				Stdin: strings.NewReader(`{"cniVersion": "1.1.0", "name": "n", "type": "test"}`), Stdout: &out, Stderr: &out, heard: heard,
			})
		}()
		synctest.Wait()
		if called {
			t.Error("the plugin was called before")
		}
		close(heard)
		if code := <-exit; code != 0 || !called {
			t.Errorf("exit code %d, called %v: %s", code, called, &out)
		}
	})
}

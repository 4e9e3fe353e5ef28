package protocol

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/internal/program"
)

func TestProgram(t *testing.T) {
	for _, p := range []*program.Program{
		{Name: "third", Timeout: time.Minute, Stdin: []byte("a \x00 configuration"), Dirs: []string{"/a", "", "/b"}, Env: []string{"CNI_COMMAND=ADD", "CNI_ARGS="}},
		{Name: "", Stdin: []byte{}, Dirs: []string{}, Env: []string{}},
		{Name: "x", Stdin: []byte{}, Dirs: []string{"/a"}, Env: []string{}},
		{Name: "x", Stdin: []byte{}, Dirs: []string{}, Env: []string{"A=B"}},
	} {
		m := EncodeProgram(p)
		got, err := DecodeProgram(m)
		if err != nil || m[0] != Execute {
			t.Errorf("%q: %v", m, err)
		}
		if diff := cmp.Diff(p, got); diff != "" {
			t.Errorf("program (-want +got):\n%s", diff)
		}
	}
	for _, m := range [][]string{
		nil, {Execute}, {Execute, "x", "1", ""}, {Execute, "x", "soon", "", "0"}, {Execute, "x", "1", "", "some"}, {Execute, "x", "1", "", "-1"},
		{Execute, "x", "1", "", "1"}, {Execute, "x", "1", "", "3", "/a", "/b"},
	} {
		if _, err := DecodeProgram(m); !errors.Is(err, ErrMessage) {
			t.Errorf("%q: found %v", m, err)
		}
	}
}

func TestExecuted(t *testing.T) {
	for _, want := range []error{
		nil, program.ErrNotFound, &program.NotStartedError{Err: errors.New("no")}, &program.StoppedError{Cause: errors.New("enough")},
		&program.FailedError{State: "exit status 3", Exited: true, Stdout: []byte("out"), Stderr: []byte{}},
		&program.FailedError{State: "signal: killed", Stdout: []byte{}, Stderr: []byte("err")}, errors.New("a pipe"),
	} {
		m := EncodeExecuted([]byte("output"), want)
		stdout, err := DecodeExecuted(m)
		if m[0] != Executed || (want == nil) != (string(stdout) == "output") {
			t.Errorf("%v: found %q in %q", want, stdout, m)
		}
		if want == nil || err == nil {
			if err != want {
				t.Errorf("found %v, want %v", err, want)
			}
			continue
		}
		if err.Error() != want.Error() || reflect.TypeOf(err) != reflect.TypeOf(want) {
			t.Errorf("found %T %v, want %T %v", err, err, want, want)
		}
		if a, ok := errors.AsType[*program.FailedError](want); ok {
			b, _ := errors.AsType[*program.FailedError](err)
			if diff := cmp.Diff(*a, *b); diff != "" {
				t.Errorf("failure (-want +got):\n%s", diff)
			}
		}
		if errors.Is(want, program.ErrNotFound) != errors.Is(err, program.ErrNotFound) {
			t.Errorf("found %v, want %v", err, want)
		}
	}
	for _, m := range [][]string{nil, {Executed, "done"}, {Executed, "done", ""}, {Executed, "exited", "", "out"}, {Executed, "", ""}, {Executed, "well", ""}} {
		if _, err := DecodeExecuted(m); !errors.Is(err, ErrMessage) {
			t.Errorf("%q: found %v", m, err)
		}
	}
}

package main

import (
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/braid-cni/braid/kube/kubetest"
	"github.com/braid-cni/braid/resolve"
)

// TestMain lets the test binary be braidd, for scripts and for a resolve.Child.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"braidd": main})
}

func TestScripts(t *testing.T) {
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{Dir: "testdata", Setup: func(e *testscript.Env) error {
		e.Setenv("EXAMPLES", examples)
		return nil
	}})
}

// The whole way of a kubeconfig that is not plain: a plugin's child process, which asks an API server.
func TestResolveFromAPIServer(t *testing.T) {
	s := kubetest.New(t)
	s.AddManifests("../../examples/manifests")
	braidd, err := exec.LookPath("braidd")
	if err != nil {
		t.Fatal(err)
	}
	child := &resolve.Child{Path: braidd, Args: []string{"resolve", "--kubeconfig", s.Kubeconfig()}, Stderr: io.Discard}
	defer child.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a := s.WholeWay(ctx, t, child, "default", "web")

	s.Stop()
	ctx, cancel = context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err = child.Resolve(ctx, &resolve.Query{Pod: a.Pod})
	if e, ok := err.(*resolve.Error); !ok || e.Reason != resolve.Unavailable {
		t.Errorf("without an API server: found %v, want %s", err, resolve.Unavailable)
	}
}

func TestResolveEndsAtSIGTERM(t *testing.T) {
	cmd := exec.Command("braidd", "resolve", "--manifests", t.TempDir())
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// It has its signal handler by the time it answers.
	if _, err := io.WriteString(stdin, "{}\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer kill.Stop()
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("found %v, want exit status 1", err)
	}
}

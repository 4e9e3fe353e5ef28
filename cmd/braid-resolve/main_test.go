package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/braid-cni/braid/kube/kubetest"
	"github.com/braid-cni/braid/resolve"
)

// TestMain lets the test binary be braid-resolve, and a braidd that says how it was called.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"braid-resolve": main,
		"braidd":        func() { fmt.Println("braidd", os.Args[1:]) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}

// The whole way: a plugin's child process, which asks an API server.
func TestResolve(t *testing.T) {
	s := kubetest.New(t)
	s.AddManifests("../../examples/manifests")
	program, err := exec.LookPath("braid-resolve")
	if err != nil {
		t.Fatal(err)
	}
	child := &resolve.Child{Path: program, Args: []string{"--kubeconfig", s.Kubeconfig()}, Stderr: io.Discard}
	defer child.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s.WholeWay(ctx, t, child, "default", "web")
}

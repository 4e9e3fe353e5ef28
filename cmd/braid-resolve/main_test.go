package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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

	a, err := child.Resolve(ctx, &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web"}})
	if err != nil {
		t.Fatal(err)
	}
	if want := string(s.Pod("default", "web").UID); a.Pod.UID != want || len(a.Networks) == 0 {
		t.Errorf("found UID %q and networks %v, want %q and some", a.Pod.UID, a.Networks, want)
	}
	events := []resolve.Event{{Type: "Normal", Reason: "AddedInterface", Message: "Add eth0, net1"}}
	if err := child.Report(ctx, &resolve.Report{Pod: a.Pod, Status: []byte("[]"), Events: events}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("[]", s.Status("default", "web")); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if e := s.Events(); len(e) != 1 {
		t.Errorf("found events %v, want one", e)
	}
	if n := s.Connections(); n != 1 {
		t.Errorf("found %d connections, want one for the whole ADD", n)
	}
}

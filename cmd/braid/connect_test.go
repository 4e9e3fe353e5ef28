package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/kube/direct"
	"github.com/braid-cni/braid/resolve"
)

// Who is asked, and with which words the child is started, which cmd/braidd has to know.
func TestConnect(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	child := func(c *resolve.Child, args ...string) {
		t.Helper()
		want := &resolve.Child{Path: filepath.Join(filepath.Dir(self), "braidd"), Args: args}
		if diff := cmp.Diff([]any{want.Path, want.Args}, []any{c.Path, c.Args}); diff != "" {
			t.Errorf("child (-want +got):\n%s", diff)
		}
	}

	r, err := connect(&conf.Config{Manifests: "/m", CNIDir: "/s", PodResources: "/p"}, log)
	if err != nil {
		t.Fatal(err)
	}
	child(r.(*resolve.Child), "resolve", "--pod-resources", "/p", "--manifests", "/m", "--status-dir", "/s/status")

	r, err = connect(&conf.Config{Kubeconfig: "/k", CNIDir: "/s", DaemonSocket: "/d"}, log)
	if err != nil {
		t.Fatal(err)
	}
	n := r.(*resolve.Node)
	server := n.Fallback.(*direct.Resolver)
	child(server.Child, "resolve", "--kubeconfig", "/k")
	if diff := cmp.Diff([]string{"/d", "/k", "/s/session"}, []string{n.Socket, server.Kubeconfig, server.Session}); diff != "" {
		t.Errorf("node (-want +got):\n%s", diff)
	}
}

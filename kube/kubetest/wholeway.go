package kubetest

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/resolve"
)

// WholeWay has what a plugin asks resolve a pod of the server, and report on it, and looks at what has arrived.
func (s *Server) WholeWay(ctx context.Context, t testing.TB, r resolve.Resolver, namespace, name string) *resolve.Answer {
	t.Helper()
	a, err := r.Resolve(ctx, &resolve.Query{Pod: resolve.Pod{Namespace: namespace, Name: name}})
	if err != nil {
		t.Fatal(err)
	}
	if want := string(s.Pod(namespace, name).UID); a.Pod.UID != want || len(a.Networks) == 0 {
		t.Errorf("found UID %q and networks %v, want %q and some", a.Pod.UID, a.Networks, want)
	}
	events := []resolve.Event{{Type: "Normal", Reason: "AddedInterface", Message: "Add eth0, net1"}}
	if err := r.Report(ctx, &resolve.Report{Pod: a.Pod, Status: []byte("[]"), Events: events}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("[]", s.Status(namespace, name)); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
	if e := s.Events(); len(e) != 1 {
		t.Errorf("found events %v, want one", e)
	}
	if n := s.Connections(); n != 1 {
		t.Errorf("found %d connections, want one for the whole ADD", n)
	}
	return a
}

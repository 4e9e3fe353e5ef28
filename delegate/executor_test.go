package delegate_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/internal/program"
)

// TestExecutor: who executes nothing has the process do it that waits. When that has ended, what takes a plugin of somebody else is
// left in the record, and nothing else.
func TestExecutor(t *testing.T) {
	w := newWorld(t)
	req := w.third()
	d := w.forCaller(waiting)
	var executed []string
	d.Executor = func(ctx context.Context, p *program.Program) ([]byte, error) {
		what := p.Name
		for _, e := range p.Env {
			if name, value, _ := strings.Cut(e, "="); name == "CNI_COMMAND" || name == "CNI_IFNAME" {
				what += " " + value
			}
		}
		executed = append(executed, what)
		return program.Run(ctx, p)
	}
	for _, verb := range []string{"ADD", "CHECK", "DEL", "ADD"} {
		if err := call(w, d, verb, req); err != nil {
			t.Errorf("%s: %v", verb, err)
		}
	}
	if diff := cmp.Diff([]string{"third ADD net2", "third CHECK net2", "third DEL net2", "third ADD net2"}, executed); diff != "" {
		t.Errorf("executed (-want +got):\n%s", diff)
	}
	d.Executor = func(context.Context, *program.Program) ([]byte, error) { return nil, errEnded }
	if err := call(w, d, "DEL", req); !errors.Is(err, errEnded) || !strings.Contains(err.Error(), "net2") {
		t.Errorf("DEL of a process that has ended: %v", err)
	}
	if r, err := w.journal().Get(req.ContainerID, req.IfName); err != nil {
		t.Error(err)
	} else if len(r.Attachments) != 1 || r.Attachments[0].IfName != "net2" {
		t.Errorf("the record has %d attachments, want that of net2", len(r.Attachments))
	}
	if err := call(w, w.delegator(), "DEL", req); err != nil {
		t.Error(err)
	}
	w.wantRecords(0)
}

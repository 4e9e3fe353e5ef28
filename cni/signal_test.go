package cni

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/internal/nettest"
)

// A calledPlugin notes what it was called for.
type calledPlugin struct {
	Plugin
	calls []string
}

func (p *calledPlugin) Status(context.Context, *Request) error {
	p.calls = append(p.calls, "STATUS")
	return nil
}

func (p *calledPlugin) Add(context.Context, *Request) (*types100.Result, error) {
	p.calls = append(p.calls, "ADD")
	return nil, errors.New("no result")
}

type latePlugin struct{ *calledPlugin }

func (latePlugin) HearsLate() {}

func (p latePlugin) Add(ctx context.Context, r *Request) (*types100.Result, error) {
	p.calls = append(p.calls, "ADD begins")
	Hear(ctx)
	Hear(ctx)
	return p.calledPlugin.Add(ctx, r)
}

// A plugin changes nothing before a signal would reach it: what it began could not be undone.
func TestSignalsAreHeardFirst(t *testing.T) {
	ns := nettest.NewNS(t).Path()
	for _, tt := range []struct {
		command string
		late    bool
		before  []string
		calls   []string
	}{
		{"STATUS", false, nil, []string{"STATUS"}},
		{"STATUS", true, nil, []string{"STATUS"}},
		{"ADD", false, nil, []string{"ADD"}},
		{"ADD", true, []string{"ADD begins"}, []string{"ADD begins", "ADD"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			called := new(calledPlugin)
			var p Plugin = called
			if tt.late {
				p = latePlugin{called}
			}
			env := map[string]string{
				"CNI_COMMAND": tt.command, "CNI_PATH": "/opt/cni/bin", "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0", "CNI_NETNS": ns,
			}
			heard, done := make(chan struct{}), make(chan struct{})
			var out bytes.Buffer
			go func() {
				defer close(done)
				Run(t.Context(), p, "test", Process{
					Env:   func(name string) string { return env[name] },
					Stdin: strings.NewReader(`{"cniVersion": "1.1.0", "name": "n", "type": "test"}`), Stdout: &out, Stderr: &out, heard: heard,
				})
			}()
			synctest.Wait()
			if diff := cmp.Diff(tt.before, called.calls); diff != "" {
				t.Errorf("%s, late %v, before signals are heard (-want +got):\n%s", tt.command, tt.late, diff)
			}
			close(heard)
			<-done
			if diff := cmp.Diff(tt.calls, called.calls); diff != "" {
				t.Errorf("%s, late %v (-want +got):\n%s%s", tt.command, tt.late, diff, &out)
			}
		})
	}
}

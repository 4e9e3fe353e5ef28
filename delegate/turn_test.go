package delegate_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/cni"
)

// A turner prepares, and waits for its turn.
type turner struct {
	cni.Plugin
	prepare func(ifName string) error
}

func (turner) TakesTurns() {}

func (p turner) Add(ctx context.Context, req *cni.Request) (*types100.Result, error) {
	if err := cni.Recorded(ctx); err != nil {
		return nil, err
	}
	if err := p.prepare(req.IfName); err != nil {
		return nil, err
	}
	if err := cni.Turn(ctx); err != nil {
		return nil, err
	}
	return p.Plugin.Add(ctx, req)
}

// TestTurns: the networks after the default one prepare while that is attached, and are made when it is there; or not at all, if
// either fails.
func TestTurns(t *testing.T) {
	errDefault, errOne := errors.New("no default network"), errors.New("no address")
	for _, tt := range []struct {
		name             string
		failing, lacking error // the default network, and what fake-one prepares
		want             error
		not              string // part of the error
		calls            string
	}{
		{"all goes well", nil, nil, nil, "", "fake-default ADD eth0, fake-one ADD net1, fake-two ADD net2"},
		{"no default network", errDefault, nil, errDefault, "cancel", "fake-default ADD eth0"},
		{"nothing to prepare", nil, errOne, errOne, "cancel", "fake-default ADD eth0"},
		{"neither", errDefault, errOne, errDefault, "address", "fake-default ADD eth0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			d := w.delegator()
			fakes := d.Own(nil)
			var prepared sync.WaitGroup
			prepared.Add(2)
			for _, name := range []string{"fake-one", "fake-two"} {
				fakes[name] = turner{fakes[name], func(ifName string) error {
					defer prepared.Done()
					if ifName == "net1" {
						return tt.lacking
					}
					return nil
				}}
			}
			var came time.Time
			w.on = func(plugin, command string, _ *cni.Request) error {
				if plugin == "fake-default" && command == "ADD" {
					prepared.Wait() // they do not wait for it
					came = time.Now()
					return tt.failing
				}
				return nil
			}
			_, err := d.Add(t.Context(), w.request(""))
			if !errors.Is(err, tt.want) || err != nil && tt.not != "" && strings.Contains(err.Error(), tt.not) {
				t.Errorf("found %v, want %v", err, tt.want)
			}
			var added []string
			for _, call := range w.calls() {
				if strings.Contains(call, "ADD") {
					added = append(added, call)
				}
			}
			if got := strings.Join(added, ", "); got != tt.calls && got != swapped(tt.calls) {
				t.Errorf("found %s, want %s", got, tt.calls)
			}
			if tt.want != nil {
				w.wantRecords(0)
				return
			}
			w.wantRecords(1)
			for _, call := range w.observed[0].Plugins {
				if call.Type != "fake-default" && call.Start.Before(came) {
					t.Errorf("%s is said to have begun %s before its turn", call.Type, came.Sub(call.Start))
				}
			}
		})
	}
}

// swapped is what comes of two that go together, in the other order.
func swapped(calls string) string {
	parts := strings.Split(calls, ", ")
	if len(parts) != 3 {
		return calls
	}
	return fmt.Sprintf("%s, %s, %s", parts[0], parts[2], parts[1])
}

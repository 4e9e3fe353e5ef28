package dhcp_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/braid-cni/braid/ipam/dhcp/keeper"
	"github.com/braid-cni/braid/ipam/dhcp/lease"
	"github.com/braid-cni/braid/node/leases"
)

// part runs the keeper of a daemon, which waits until an earlier one has ended.
func (w *world) part() (p *leases.Part, stop func()) {
	p = leases.New(keeper.Options{Socket: w.socket, Log: w.logger()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.Errorf("the keeper ends with %v", err)
		}
	})
	w.Cleanup(stop)
	return p, stop
}

func (w *world) keeps(p *leases.Part) {
	w.Helper()
	w.eventually("the daemon keeps leases", func() bool { _, err := p.State(); return err == nil })
}

// When a daemon is upgraded its keeper ends, and that of the next takes over. Leases go on, and every ADD succeeds: one that
// waits for a server meanwhile, and one that comes when there is no keeper.
func testHandOver(t *testing.T) {
	w := newWorld(t)
	s := w.server(router)
	old, stop := w.part()
	w.keeps(old)
	before := w.pod("").add()

	s.set(func(s *fakeServer) { s.answer = silent })
	during, between := w.pod(""), w.pod("")
	added := make(chan error)
	go func() { added <- during.tryAdd(t.Context()) }()
	w.eventually("the server is asked", func() bool { return len(s.received(dhcpv4.MessageTypeDiscover)) == 2 })
	next, stopNext := w.part()
	w.eventually("the next one waits", func() bool { _, err := next.State(); return errors.Is(err, lease.ErrBusy) })
	stopNext()
	stop()
	go func() { added <- between.tryAdd(t.Context()) }()
	time.Sleep(200 * time.Millisecond) // as if the next daemon were slow to start
	next, _ = w.part()
	w.keeps(next)
	s.set(func(s *fakeServer) { s.answer = nil })
	for range 2 {
		if err := <-added; err != nil {
			t.Errorf("ADD: %v", err)
		}
	}
	for _, p := range []*pod{before, during, between} {
		if err := p.check(); err != nil {
			t.Errorf("CHECK: %v", err)
		}
	}
	if n, _ := next.State(); n != 3 {
		t.Errorf("the next one keeps %d leases, want 3", n)
	}
	for _, p := range []*pod{before, during, between} {
		p.del()
	}
	w.eventually("all leases are released", func() bool { return s.clients() == 0 })
}

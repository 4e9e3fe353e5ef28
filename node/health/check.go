package health

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// checkTime is how long a check may take. One that takes longer has failed: something it needs is stuck.
const checkTime = time.Second

// Live adds a check to /healthz: whether a part of the daemon is stuck, so that only a restart would help. That something
// outside is missing, as the API server, is for [Server.Ready].
func (s *Server) Live(name string, check func() error) { s.add(&s.live, name, check) }

// Ready adds a check to /readyz: whether the daemon has what it needs to answer the plugin.
func (s *Server) Ready(name string, check func() error) { s.add(&s.ready, name, check) }

func (s *Server) add(to *[]*check, name string, do func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	*to = append(*to, &check{name: name, do: do})
}

func (s *Server) checks(of *[]*check) []*check {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(*of)
}

// A check is asked by one goroutine at a time: one that is stuck does not hold up another with every request.
type check struct {
	name string
	do   func() error

	mu      sync.Mutex
	running *call // nil if nobody is asking
}

// A call of a check. What came of it is there when done is closed.
type call struct {
	done chan struct{}
	err  error
}

// start asks, unless that is under way.
func (c *check) start() *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running != nil {
		return c.running
	}
	r := &call{done: make(chan struct{})}
	c.running = r
	go func() {
		r.err = c.do()
		c.mu.Lock()
		c.running = nil
		c.mu.Unlock()
		close(r.done)
	}()
	return r
}

type result struct {
	name string
	err  error
}

// run asks all checks at the same time.
func run(checks []*check) (results []result) {
	var calls []*call
	for _, c := range checks {
		calls = append(calls, c.start())
	}
	timeout := time.NewTimer(checkTime)
	defer timeout.Stop()
	late := false
	for i, r := range calls {
		if !late {
			select {
			case <-r.done:
			case <-timeout.C:
				late = true
			}
		}
		results = append(results, result{checks[i].name, r.outcome()})
	}
	return results
}

func (r *call) outcome() error {
	select {
	case <-r.done:
		return r.err
	default:
		return fmt.Errorf("no answer within %s", checkTime)
	}
}

// answer writes a line for each check.
func answer(w http.ResponseWriter, checks []*check) {
	var text strings.Builder
	status := http.StatusOK
	for _, r := range run(checks) {
		if r.err == nil {
			fmt.Fprintf(&text, "ok      %s\n", r.name)
			continue
		}
		status = http.StatusServiceUnavailable
		fmt.Fprintf(&text, "failed  %s: %s\n", r.name, strings.ReplaceAll(r.err.Error(), "\n", "; "))
	}
	if status == http.StatusOK {
		text.WriteString("ok\n")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text.String()))
}

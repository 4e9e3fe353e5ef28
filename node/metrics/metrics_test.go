package metrics

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/resolve"
)

var update = flag.Bool("update", false, "write golden files")

// scenario has every metric of Braid at least once, with values that do not depend on the time.
func scenario(t *testing.T) *Metrics {
	m := New("v1.2.3")
	m.Observe(&resolve.Observation{Verb: "ADD", Outcome: resolve.Success, Seconds: 0.042, Plugins: []resolve.PluginCall{
		{Type: "bridge", Network: "default/blue", Interface: "eth0", Verb: "ADD", Outcome: resolve.Success, Seconds: 0.021},
		{Type: "portmap", Network: "default/blue", Interface: "eth0", Verb: "ADD", Outcome: resolve.Success, Seconds: 0.012},
	}})
	m.Observe(&resolve.Observation{Verb: "ADD", Outcome: "11", Seconds: 30.5, Plugins: []resolve.PluginCall{
		{Type: "macvlan", Network: "lan", Interface: "net1", Verb: "ADD", Outcome: "11", Seconds: 30},
		{Type: "macvlan", Network: "lan", Interface: "net1", Verb: "DEL", Outcome: resolve.Success, Seconds: 0.01},
	}})
	m.Observe(&resolve.Observation{Verb: "DEL", Outcome: "117", Seconds: 0.3, Worker: true})

	m.Resolved(Cache, nil, 80*time.Microsecond)
	m.Resolved(Live, &resolve.Error{Reason: resolve.Unavailable}, 15*time.Second)
	m.AnnotationMismatch()
	m.Connections(func() float64 { return 3 })
	m.Refused()

	m.Reports(func() float64 { return 2 }, func() float64 { return 12.5 })
	m.ReportTried(true)
	m.ReportTried(false)
	m.ReportWritten(40 * time.Millisecond)

	m.APIRequest("patch", "pods/status", "409", 9*time.Millisecond)
	m.APIRequest("get", "pods", NoAnswer, 5*time.Second)
	m.Informer("pods", func() float64 { return 17 }, func() bool { return true })
	m.Informer("network-attachment-definitions", func() float64 { return 5 }, func() bool { return false })

	m.DHCPLeases(func() float64 { return 4 })
	m.DHCPLeaseChanged(false)
	m.DHCPLeaseChanged(true)
	m.Swept(2, 1, nil)
	m.Repaired(3, 1)
	m.ConfigurationRepaired(Shadowed)
	m.Ready(func() bool { return true })
	m.Spans(func() float64 { return 12 }, func() float64 { return 1 })
	m.Journal(journalOf(t))
	return m
}

// journalOf makes a journal with two pods, and the reservations of one of their networks under a root.
func journalOf(t *testing.T) (j *journal.Journal, root string) {
	t.Helper()
	root = t.TempDir()
	j, err := journal.Open(filepath.Join(root, "journal"))
	if err != nil {
		t.Fatal(err)
	}
	network, err := conf.ParseNetwork([]byte(`{"cniVersion": "1.1.0", "name": "blue", "type": "bridge",
		"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/28"}], [{"subnet": "2001:db8::/64"}]]}}`), "blue")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if err := j.Put(&journal.Record{
			Network: "pods", ContainerID: fmt.Sprintf("c%d", i), IfName: "eth0", Netns: "/n", Done: i == 0,
			Attachments: []journal.Attachment{{Name: "default/blue", IfName: "eth0", Network: network}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	folder := filepath.Join(root, "var/lib/cni/networks/blue")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"10.1.0.2", "10.1.0.3", "2001:db8::2", "lock"} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return j, root
}

func scrape(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	b, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("GET /metrics: %d, %v: %s", w.Code, err, b)
	}
	return string(b)
}

// ofBraid returns the lines of Braid's own metrics.
func ofBraid(exposition string) string {
	own := regexp.MustCompile(`(?m)^(# (HELP|TYPE) )?braid_.*\n`).FindAllString(exposition, -1)
	return regexp.MustCompile(`goversion="[^"]*"`).ReplaceAllString(strings.Join(own, ""), `goversion="go1"`)
}

func TestExposition(t *testing.T) {
	m := scenario(t)
	got, golden := ofBraid(scrape(t, m)), "testdata/exposition.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-want +got (go test -update writes it anew):\n%s", diff)
	}
	problems, err := testutil.GatherAndLint(m.registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("conventions of Prometheus: %v, %v", problems, err)
	}
	for _, standard := range []string{"go_goroutines ", "process_resident_memory_bytes ", "process_start_time_seconds "} {
		if !strings.Contains(scrape(t, m), "\n"+standard) {
			t.Errorf("no %s", standard)
		}
	}
}

func TestSwept(t *testing.T) {
	m := New("")
	last := func() float64 { return testutil.ToFloat64(m.sweepSucceeded) }
	m.Swept(0, 1, nil)
	m.Swept(0, 0, errors.New("the journal cannot be read"))
	if last() != 0 || testutil.ToFloat64(m.sweeps.WithLabelValues(failure)) != 2 {
		t.Errorf("failures are a success of %v", last())
	}
	before := float64(time.Now().Unix())
	if m.Swept(3, 0, nil); last() < before || testutil.ToFloat64(m.sweepUndone) != 3 {
		t.Errorf("success at %v, want now, %v", last(), before)
	}
}

// Whatever tenants, plugins and API servers say, there are only so many time series, and all can be shown.
func TestCardinality(t *testing.T) {
	m := New("\xff")
	series := func() int {
		t.Helper()
		n, err := testutil.GatherAndCount(m.registry)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	attack := func(round int) {
		for i := range 1000 {
			text := fmt.Sprintf("\xff\"\n{x=\"%d-%d\"}", round, i)
			outcomes := []string{resolve.Success, fmt.Sprint(i), text, "-1", ""}
			for _, outcome := range outcomes {
				o := &resolve.Observation{Verb: text, Outcome: outcome, Seconds: -1}
				for _, plugin := range []string{text, fmt.Sprintf("plugin-%d-%d", round, i), "bridge", strings.Repeat("x", i), "../bin/sh", ""} {
					o.Plugins = append(o.Plugins, resolve.PluginCall{Type: plugin, Verb: o.Verb, Outcome: outcome})
				}
				m.Observe(o)
			}
			m.Resolved(text, &resolve.Error{Reason: text}, -1)
			m.Resolved(text, errors.New(text), 0)
			m.APIRequest(text, text, text, 0)
			m.APIRequest(text, text, fmt.Sprint(i), 0)
			m.ConfigurationRepaired(text)
		}
	}
	attack(0)
	first := series()
	attack(1)
	if second := series(); second != first {
		t.Errorf("%d series after the first thousand, %d after the second", first, second)
	}
	if len(m.plugins.known) != maxPluginTypes {
		t.Errorf("%d plugins that are not well known are told apart, want %d", len(m.plugins.known), maxPluginTypes)
	}
	if text := scrape(t, m); len(text) > 1<<20 {
		t.Errorf("/metrics has %d bytes", len(text))
	}
}

// A plugin that no node has never takes the place of one that some have.
func TestPluginTypes(t *testing.T) {
	var p pluginTypes
	for i := range 1000 {
		if got := p.label(fmt.Sprintf("invented%d", i), false); got != other {
			t.Fatalf("a plugin that has never succeeded is called %q", got)
		}
	}
	for _, plugin := range []string{"acme", "bridge"} {
		if got := p.label(plugin, true); got != plugin {
			t.Errorf("%s is called %q", plugin, got)
		}
		if got := p.label(plugin, false); got != plugin {
			t.Errorf("%s is called %q when it fails", plugin, got)
		}
	}
}

func TestPools(t *testing.T) {
	m := New("")
	m.Pools(func() (pools []Pool) {
		for i := range 1000 {
			pools = append(pools, Pool{Network: fmt.Sprintf("ns/\xffnet%d", i), Size: 1000, Used: float64(i)})
		}
		return append(pools, pools[999], Pool{Network: "empty"})
	})
	text := scrape(t, m)
	if got := strings.Count(text, "\nbraid_pool_addresses{"); got != maxPools {
		t.Errorf("%d pools are shown, want %d", got, maxPools)
	}
	for _, want := range []string{`braid_pool_used_addresses{network="ns/?net999",set="0"} 999`, "braid_pools_omitted 745"} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}

// The journal is read once for all that is shown of it, and a record that cannot be read hides no other.
func TestJournal(t *testing.T) {
	j, root := journalOf(t)
	reads := 0
	s := &journalState{root: root, read: func() ([]*journal.Record, error) {
		reads++
		records, err := j.All()
		return records, errors.Join(err, errors.New("one is corrupt"))
	}}
	for range 3 {
		want := counts{records: 2, attachments: 2, unfinished: 1, pools: []Pool{
			{"default/blue", 0, 13, 2}, {"default/blue", 1, 1<<64 - 2, 1},
		}}
		if diff := cmp.Diff(want, s.get(), cmp.AllowUnexported(counts{})); diff != "" {
			t.Fatalf("-want +got:\n%s", diff)
		}
	}
	if reads != 1 {
		t.Errorf("read %d times", reads)
	}
	s.at = time.Now().Add(-2 * journalAge)
	if s.get(); reads != 2 {
		t.Errorf("read %d times after a while", reads)
	}
}

func TestTransport(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodPatch {
			w.WriteHeader(http.StatusConflict)
		}
	}))
	m := New("")
	client := http.Client{Transport: m.Transport(http.DefaultTransport)}
	for _, c := range []struct{ method, path, verb, resource, code string }{
		{"GET", "/api/v1/namespaces/default/pods/web", "get", "pods", "200"},
		{"GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", "list", "pods", "200"},
		{"GET", "/api/v1/pods?watch=true", "watch", "pods", "200"},
		{"PATCH", "/api/v1/namespaces/default/pods/web/status", "patch", "pods/status", "409"},
		{"POST", "/api/v1/namespaces/default/events", "create", "events", "200"},
		{"POST", "/api/v1/namespaces/kube-system/serviceaccounts/braid/token", "create", "serviceaccounts/token", "200"},
		{"GET", "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions?watch=1", "watch", "network-attachment-definitions", "200"},
		{"GET", "/apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions/blue", "get", "network-attachment-definitions", "200"},
		{"GET", "/api/v1/namespaces/default", "get", "other", "200"},
		{"GET", "/version", "other", "other", "200"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, server.URL+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		counter := m.apiRequests.WithLabelValues(c.verb, c.resource, c.code)
		before := testutil.ToFloat64(counter)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := testutil.ToFloat64(counter) - before; got != 1 {
			t.Errorf("%s %s counts %v times as %s %s %s", c.method, c.path, got, c.verb, c.resource, c.code)
		}
	}
	server.Close()
	if resp, err := client.Get(server.URL + "/api/v1/pods"); err == nil {
		resp.Body.Close()
		t.Fatal("a server that is closed answers")
	}
	if got := testutil.ToFloat64(m.apiRequests.WithLabelValues("list", "pods", NoAnswer)); got != 1 {
		t.Errorf("no answer counts %v times", got)
	}
}

// All methods, and scrapes, at the same time.
func TestConcurrency(t *testing.T) {
	m := scenario(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 200 {
				m.Observe(&resolve.Observation{Verb: "ADD", Outcome: resolve.Success, Plugins: []resolve.PluginCall{
					{Type: fmt.Sprintf("p%d", n), Verb: "ADD", Outcome: resolve.Success},
				}})
				m.Resolved(Cache, nil, time.Millisecond)
				m.APIRequest("get", "pods", "200", time.Millisecond)
				m.Swept(1, 0, nil)
			}
			if i%4 == 0 {
				scrape(t, m)
			}
		})
	}
	wg.Wait()
	if got := testutil.ToFloat64(m.calls.WithLabelValues("ADD", success, "")); got != 1+8*200 {
		t.Errorf("%v ADDs are counted, want %d", got, 1+8*200)
	}
}

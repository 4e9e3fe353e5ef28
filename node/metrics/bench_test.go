package metrics

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/resolve"
)

func BenchmarkObserve(b *testing.B) {
	m := New("")
	o := &resolve.Observation{Verb: "ADD", Outcome: resolve.Success, Seconds: 0.04, Plugins: []resolve.PluginCall{
		{Type: "bridge", Verb: "ADD", Outcome: resolve.Success, Seconds: 0.02},
		{Type: "macvlan", Verb: "ADD", Outcome: resolve.Success, Seconds: 0.02},
	}}
	for b.Loop() {
		m.Observe(o)
	}
}

// BenchmarkScrape is of a node with 250 pods of three networks, each with a /20 that is half full; nothing is remembered
// from one scrape to the next.
func BenchmarkScrape(b *testing.B) {
	root := b.TempDir()
	j, err := journal.Open(filepath.Join(root, "journal"))
	if err != nil {
		b.Fatal(err)
	}
	var attachments []journal.Attachment
	for i := range 3 {
		name := fmt.Sprintf("net%d", i)
		network, err := conf.ParseNetwork(fmt.Appendf(nil, `{"cniVersion": "1.1.0", "type": "bridge",
			"ipam": {"type": "host-local", "subnet": "10.%d.0.0/20"}}`, i), name)
		if err != nil {
			b.Fatal(err)
		}
		attachments = append(attachments, journal.Attachment{Name: name, IfName: name, Network: network, Result: &types100.Result{CNIVersion: "1.1.0"}})
		folder := filepath.Join(root, "var/lib/cni/networks", name)
		if err := os.MkdirAll(folder, 0o755); err != nil {
			b.Fatal(err)
		}
		for n := range 2048 {
			if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("10.%d.%d.%d", i, n/256, n%256)), nil, 0o600); err != nil {
				b.Fatal(err)
			}
		}
	}
	for i := range 250 {
		if err := j.Put(&journal.Record{ContainerID: fmt.Sprint("c", i), IfName: "eth0", Done: true, Attachments: attachments}); err != nil {
			b.Fatal(err)
		}
	}
	m := New("")
	s := &journalState{read: j.All, root: root}
	m.Pools(func() []Pool {
		s.at = s.at.Add(-journalAge)
		return s.get().pools
	})
	for b.Loop() {
		w := httptest.NewRecorder()
		m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		if w.Code != http.StatusOK {
			b.Fatal(w.Code)
		}
	}
}

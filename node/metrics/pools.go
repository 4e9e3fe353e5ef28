package metrics

import (
	"cmp"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/ipam/hostlocal"
	"github.com/braid-cni/braid/journal"
)

// A Pool is the addresses that a network has on this node. A network with addresses of several ranges per attachment, as
// one with IPv4 and IPv6, has a pool for each, numbered as in its configuration.
type Pool struct {
	Network    string // "namespace/name" of the NetworkAttachmentDefinition, or the network's name
	Set        int
	Size, Used float64 // addresses
}

func (p *Pool) full() float64 { return p.Used / max(p.Size, 1) }

// maxPools is how many pools are shown: those that are the fullest.
const maxPools = 256

// Pools asks for the pools of the networks on this node.
func (m *Metrics) Pools(read func() []Pool) {
	m.registry.MustRegister(&poolCollector{
		read: read,
		size: prometheus.NewDesc("braid_pool_addresses", "Addresses that a network has for pods of this node.", []string{"network", "set"}, nil),
		used: prometheus.NewDesc("braid_pool_used_addresses", "Addresses of a network that are reserved on this node.", []string{"network", "set"}, nil),
		omitted: prometheus.NewDesc("braid_pools_omitted", "Pools that are not shown, because "+strconv.Itoa(maxPools)+
			" others are fuller.", nil, nil),
	})
}

type poolCollector struct {
	read                func() []Pool
	size, used, omitted *prometheus.Desc
}

var _ prometheus.Collector = (*poolCollector)(nil)

// Describe implements [prometheus.Collector].
func (c *poolCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- c.size
	ch <- c.used
	ch <- c.omitted
}

// Collect implements [prometheus.Collector].
func (c *poolCollector) Collect(ch chan<- prometheus.Metric) {
	pools := distinct(c.read())
	slices.SortStableFunc(pools, func(a, b Pool) int { return cmp.Compare(b.full(), a.full()) })
	shown := pools[:min(len(pools), maxPools)]
	for _, p := range shown {
		set := strconv.Itoa(p.Set)
		ch <- prometheus.MustNewConstMetric(c.size, prometheus.GaugeValue, p.Size, p.Network, set)
		ch <- prometheus.MustNewConstMetric(c.used, prometheus.GaugeValue, p.Used, p.Network, set)
	}
	ch <- prometheus.MustNewConstMetric(c.omitted, prometheus.GaugeValue, float64(len(pools)-len(shown)))
}

// distinct returns one pool of each name: two would spoil the whole answer to Prometheus.
func distinct(pools []Pool) (kept []Pool) {
	type key struct {
		network string
		set     int
	}
	seen := map[key]bool{}
	for _, p := range pools {
		p.Network = clean(p.Network)
		if k := (key{p.Network, p.Set}); !seen[k] {
			seen[k] = true
			kept = append(kept, p)
		}
	}
	return kept
}

// journalAge is how long what was read of the journal is good for. Each scrape would read all of it otherwise.
const journalAge = 10 * time.Second

// Journal shows what a journal has: ADDs, attachments, and the pools of the networks with host-local addresses that these
// are in. Root is where the node's file system is; empty if it is this process's.
func (m *Metrics) Journal(j *journal.Journal, root string) {
	s := &journalState{read: j.All, root: root}
	m.gauge("braid_journal_records", "ADDs whose attachments are on this node.", nil, func() float64 { return s.get().records })
	m.gauge("braid_journal_attachments", "Attachments on this node.", nil, func() float64 { return s.get().attachments })
	m.gauge("braid_journal_unfinished", "ADDs that have not come to their end: under way, or killed and not yet undone.", nil,
		func() float64 { return s.get().unfinished })
	m.Pools(func() []Pool { return s.get().pools })
}

// journalState is what was last read of the journal.
type journalState struct {
	read func() ([]*journal.Record, error)
	root string

	mu   sync.Mutex // held while the journal is read, so that scrapes at the same time read it once
	at   time.Time
	last counts
}

type counts struct {
	records, attachments, unfinished float64
	pools                            []Pool
}

func (s *journalState) get() counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() || time.Since(s.at) > journalAge {
		records, _ := s.read() // those that can be read; whoever undoes them reports the others
		s.last, s.at = count(records, s.root), time.Now()
	}
	return s.last
}

func count(records []*journal.Record, root string) (c counts) {
	c.records = float64(len(records))
	networks := map[string]*journal.Attachment{} // the latest configuration of each
	since := map[string]time.Time{}
	for _, r := range records {
		c.attachments += float64(len(r.Attachments))
		if !r.Done {
			c.unfinished++
		}
		for i := range r.Attachments {
			a := &r.Attachments[i]
			if networks[a.Name] == nil || r.Created.After(since[a.Name]) {
				networks[a.Name], since[a.Name] = a, r.Created
			}
		}
	}
	for name, a := range networks {
		c.pools = append(c.pools, poolsOf(name, a.Network, root)...)
	}
	slices.SortFunc(c.pools, func(a, b Pool) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Set, b.Set))
	})
	return c
}

// poolsOf returns the pools of a network. What they cannot be read of has none.
func poolsOf(name string, network *conf.Network, root string) (pools []Pool) {
	for _, p := range network.Plugins {
		if p.IPAM != "host-local" {
			continue
		}
		config, err := conf.With(p.Bytes, map[string]any{"cniVersion": network.CNIVersion, "name": network.Name})
		if err != nil {
			continue
		}
		sets, _ := hostlocal.Plugin{}.Pools(config, root)
		for _, s := range sets {
			pools = append(pools, Pool{name, len(pools), s.Size, s.Used})
		}
	}
	return pools
}

package metrics

import (
	"time"
)

// What the guard of the node's CNI configuration found.
const (
	Missing  = "missing"  // the file was not there
	Changed  = "changed"  // its content was another one
	Shadowed = "shadowed" // another file came before it
)

func (m *Metrics) makeUpkeep() {
	m.leaseChanges = m.counter("braid_dhcp_lease_changes_total", "DHCP leases that a server changed while a pod had them.")
	m.leasesLost = m.counter("braid_dhcp_leases_lost_total", "DHCP leases that ended while a pod had them.")
	m.sweeps = m.counters("braid_sweeps_total", "Searches for attachments that have outlived their pod.", "outcome")
	m.sweepUndone = m.counter("braid_sweep_undone_total", "ADDs that were undone because their pod was gone.")
	m.sweepFailed = m.counter("braid_sweep_failures_total", "ADDs that could not be undone, or not all of them, although their pod was gone.")
	m.sweepSucceeded = m.newGauge("braid_sweep_last_success_timestamp_seconds", "When the last search without an error ended; 0 before the first.")
	m.podsRepaired = m.counter("braid_pod_repairs_total", "ADDs of running pods of which something had been lost on the node, and was made again.")
	m.podsUnrepaired = m.newGauge("braid_pods_unrepaired", "ADDs of running pods of which something is missing on the node that could not be made again, in the last search; with --repair.")
	m.repairs = m.counters("braid_configuration_repairs_total", "Repairs of the node's CNI configuration.", "reason")
	for _, out := range []string{success, failure} {
		m.sweeps.WithLabelValues(out)
	}
	for _, reason := range []string{Missing, Changed, Shadowed} {
		m.repairs.WithLabelValues(reason)
	}
}

// DHCPLeases asks how many attachments have leases.
func (m *Metrics) DHCPLeases(held func() float64) {
	m.gauge("braid_dhcp_attachments", "Attachments that have DHCP leases, or are about to.", nil, held)
}

// DHCPLeaseChanged counts a lease that a server changed, or that was lost.
func (m *Metrics) DHCPLeaseChanged(lost bool) {
	if lost {
		m.leasesLost.Inc()
		return
	}
	m.leaseChanges.Inc()
}

// Swept counts a search for attachments that have outlived their pod: how many ADDs were undone, how many could not be,
// and why the search could not look at all of them.
func (m *Metrics) Swept(undone, failed int, err error) {
	bad := failed > 0 || err != nil
	m.sweeps.WithLabelValues(outcome(bad)).Inc()
	m.sweepUndone.Add(float64(max(undone, 0)))
	m.sweepFailed.Add(float64(max(failed, 0)))
	if !bad {
		m.sweepSucceeded.Set(float64(time.Now().UnixMilli()) / 1000)
	}
}

// Repaired counts what a search has made again of what running pods had lost on the node, and says how many have more.
func (m *Metrics) Repaired(repaired, unrepaired int) {
	m.podsRepaired.Add(float64(max(repaired, 0)))
	m.podsUnrepaired.Set(float64(unrepaired))
}

// ConfigurationRepaired counts a repair of the node's CNI configuration, because of [Missing], [Changed] or [Shadowed].
func (m *Metrics) ConfigurationRepaired(reason string) {
	m.repairs.WithLabelValues(oneOf([]string{Missing, Changed, Shadowed}, reason)).Inc()
}

// Ready asks whether the daemon can answer: what /readyz says.
func (m *Metrics) Ready(ready func() bool) {
	m.gauge("braid_ready", "Whether the daemon is ready: 1 if it is.", nil, oneIf(ready))
}

func oneIf(is func() bool) func() float64 {
	return func() float64 {
		if is() {
			return 1
		}
		return 0
	}
}

// Spans asks how many spans were exported, and how many were lost.
func (m *Metrics) Spans(exported, dropped func() float64) {
	m.counterFunc("braid_trace_spans_exported_total", "Spans that the collector took.", exported)
	m.counterFunc("braid_trace_spans_dropped_total", "Spans that were lost: the collector did not take them, or not fast enough.", dropped)
}

package delegate

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/journal"
	"github.com/braid-cni/braid/resolve"
)

// A networkStatus is one element of the annotation k8s.v1.cni.cncf.io/network-status (Network CRD specification, 5).
// It has the keys of the specification and no others: "default" is required of every element, so it is spelled out,
// and addresses are bare, as those who read the annotation expect them.
type networkStatus struct {
	Name         string          `json:"name"`
	Interface    string          `json:"interface,omitempty"`
	IPs          []string        `json:"ips,omitempty"`
	MAC          string          `json:"mac,omitempty"`
	Default      bool            `json:"default"`
	DNS          *types.DNS      `json:"dns,omitempty"`
	DefaultRoute []string        `json:"default-route,omitempty"`
	DeviceInfo   json.RawMessage `json:"device-info,omitempty"`
}

// statusOf describes an attachment.
func statusOf(a *journal.Attachment) networkStatus {
	s := networkStatus{Name: a.Name, Interface: a.IfName, Default: a.Default}
	own := podInterface(a.Result)
	if own >= 0 {
		s.Interface, s.MAC = a.Result.Interfaces[own].Name, a.Result.Interfaces[own].Mac
	}
	s.IPs = addresses(a.Result, own)
	if dns := a.Result.DNS; len(dns.Nameservers) > 0 || dns.Domain != "" || len(dns.Search) > 0 {
		s.DNS = &types.DNS{Nameservers: dns.Nameservers, Domain: dns.Domain, Search: dns.Search}
	}
	return s
}

// addresses returns those of one interface of a result, without prefix lengths.
func addresses(res *types100.Result, iface int) (ips []string) {
	for _, ip := range res.IPs {
		if *ip.Interface == iface {
			ips = append(ips, ip.Address.IP.String())
		}
	}
	return ips
}

// success reports an ADD.
//
// Network CRD specification (5.2), of the cluster-wide default network: "this network must have an entry in the status
// map even though it is not specified in the Network Attachment Selection Annotation".
//
// Info returns the device-info of attachment i.
func success(pod resolve.Pod, record *journal.Record, plan []Planned, inherited []journal.Attachment,
	info func(i int) json.RawMessage) (*resolve.Report, error) {
	r := &resolve.Report{Pod: pod}
	var statuses []networkStatus
	var added []string
	for i := range inherited {
		statuses = append(statuses, statusOf(&inherited[i]))
	}
	for i := range plan {
		a := &record.Attachments[i]
		s := statusOf(a)
		s.DeviceInfo = info(i)
		for _, gw := range plan[i].Selection.DefaultRoute {
			s.DefaultRoute = append(s.DefaultRoute, gw.String())
		}
		statuses = append(statuses, s)
		var with []string
		for _, ip := range a.Result.IPs {
			if *ip.Interface == podInterface(a.Result) {
				with = append(with, ip.Address.String())
			}
		}
		added = append(added, fmt.Sprintf("%s [%s] from %s", a.IfName, strings.Join(with, " "), a.Name))
	}
	r.Events = events("AddedInterface", "Add ", added)
	var err error
	r.Status, err = json.Marshal(statuses)
	return r, err
}

// maxMessage is how long the message of an event may be, in bytes.
const maxMessage = 1024

// events tell what went well: as few of them as possible, since each costs the cluster a write.
func events(reason, verb string, what []string) (list []resolve.Event) {
	for _, w := range what {
		if n := len(list) - 1; n >= 0 && len(list[n].Message)+len(", ")+len(w) <= maxMessage {
			list[n].Message += ", " + w
		} else {
			list = append(list, resolve.Event{Type: "Normal", Reason: reason, Message: verb + w})
		}
	}
	return list
}

package conf

import (
	"encoding/json"
	"math"
	"net/netip"
)

// Annotations that Braid reads and writes.
const (
	// AnnotationNetworks, of a pod, selects networks: "The Pod object annotation name shall be
	// "k8s.v1.cni.cncf.io/networks"".
	AnnotationNetworks = "k8s.v1.cni.cncf.io/networks"
	// AnnotationDefaultNetwork, of a pod, replaces the default network. It comes from Multus.
	AnnotationDefaultNetwork = "v1.multus-cni.io/default-network"
	// AnnotationNetworkStatus, of a pod, holds what came of the attachments: "The annotation's name shall be
	// "k8s.v1.cni.cncf.io/network-status"".
	AnnotationNetworkStatus = "k8s.v1.cni.cncf.io/network-status"
	// AnnotationResourceName, of a NetworkAttachmentDefinition, names the device plugin resource of its devices.
	AnnotationResourceName = "k8s.v1.cni.cncf.io/resourceName"
)

// A Selection is one element of a network selection annotation: a network, and what the pod wants of the attachment.
// All values are valid. As JSON it is an element of the annotation's JSON format.
type Selection struct {
	Namespace string `json:"namespace"` // of the NetworkAttachmentDefinition, the pod's own if the annotation has none
	Name      string `json:"name"`      // of the NetworkAttachmentDefinition
	IfName    string `json:"interface,omitempty"`

	IPs            []string `json:"ips,omitempty"` // each an address, or an address with a prefix length
	MAC            string   `json:"mac,omitempty"`
	InfinibandGUID string   `json:"infiniband-guid,omitempty"`
	// DefaultRoute is nil if the pod does not say, see [Selection.TakesDefaultRoute]. It has at most one gateway of a
	// family.
	DefaultRoute []netip.Addr               `json:"default-route,omitzero"`
	PortMappings []PortMapping              `json:"portMappings,omitempty"`
	Bandwidth    *Bandwidth                 `json:"bandwidth,omitempty"`
	CNIArgs      map[string]json.RawMessage `json:"cni-args,omitempty"`
	IPAMClaim    string                     `json:"ipam-claim-reference,omitempty"`
	DeviceID     string                     `json:"deviceID,omitempty"` // not of the standard: what Multus adds
}

// TakesDefaultRoute reports whether the pod wants its default route on this attachment. The gateways are those of
// DefaultRoute; if it is empty, the ones that the network itself gives.
func (s *Selection) TakesDefaultRoute() bool { return s.DefaultRoute != nil }

// A PortMapping redirects a port of the host to one of the pod, in the form of the capability "portMappings".
type PortMapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"` // "tcp", "udp" or "sctp": the reference plugin hands it to nft, which takes no capitals
	HostIP        string `json:"hostIP,omitempty"`
}

// Bandwidth limits the traffic of an attachment, in the form of the capability "bandwidth": "Rates are in bits per
// second, burst values are in bits." Zero is no limit.
type Bandwidth struct {
	IngressRate  uint64 `json:"ingressRate,omitempty"`
	IngressBurst uint64 `json:"ingressBurst,omitempty"`
	EgressRate   uint64 `json:"egressRate,omitempty"`
	EgressBurst  uint64 `json:"egressBurst,omitempty"`
}

// defaultBurst is what Kubernetes itself sends with a rate: in practice, no limit. The reference plugin refuses a rate
// without a burst.
//
// "may wish to choose reasonable default values for "ingressBurst" and "egressBurst""
const defaultBurst = math.MaxInt32

func (b Bandwidth) withBursts() Bandwidth {
	if b.IngressRate != 0 && b.IngressBurst == 0 {
		b.IngressBurst = defaultBurst
	}
	if b.EgressRate != 0 && b.EgressBurst == 0 {
		b.EgressBurst = defaultBurst
	}
	return b
}

// Capabilities returns what the selection requests by way of runtimeConfig, by capability: "ips", "mac",
// "infinibandGUID", "portMappings", "bandwidth", "deviceID". Each needs a plugin that declares it ([Network.Supports]):
//
// "If no plugin has the "ips" capability set to true the entire attachment request must fail."
func (s *Selection) Capabilities() map[string]any {
	c := map[string]any{}
	if len(s.IPs) > 0 {
		c["ips"] = s.IPs
	}
	if s.MAC != "" {
		c["mac"] = s.MAC
	}
	if s.InfinibandGUID != "" {
		c["infinibandGUID"] = s.InfinibandGUID
	}
	if len(s.PortMappings) > 0 {
		c["portMappings"] = s.PortMappings
	}
	if s.Bandwidth != nil {
		c["bandwidth"] = s.Bandwidth.withBursts()
	}
	if s.DeviceID != "" {
		c["deviceID"] = s.DeviceID
	}
	return c
}

// Package conf decodes and checks what Braid is told: its own configuration ([Parse]), the configurations of networks
// ([ParseNetwork]) and the annotations of pods ([PodNetworks]). It does no I/O.
//
// Networks and annotations are written by tenants. They are bounded, and refused if two decoders could read them
// differently; see [ParseNetwork].
//
// A configuration stays bytes: structs are read from it, and [With] changes keys of it, so that a plugin gets what was
// written, unknown keys and big integers included.
package conf

import (
	"encoding/json"
	"log/slog"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/internal/memo"
)

// Config is the configuration of the plugin itself, "type": "braid", with the defaults filled in. It is read-only.
type Config struct {
	CNIVersion   string          // that of the answer, which the runtime selected; "0.1.0" if it did not
	Name         string          // of the network as the runtime knows it
	Type         string          // "braid" or "braid-shim"
	Capabilities map[string]bool // what the runtime may pass in RuntimeConfig
	DisableCheck bool
	DisableGC    bool

	// Set by the runtime.
	PrevResult       json.RawMessage            // result of the plugin before in a chain, or of ADD; nil if there is none
	RuntimeConfig    map[string]json.RawMessage // by capability; for the default network only
	Args             json.RawMessage            // "args" as it is; nil if there is none
	ValidAttachments []types.GCAttachment       // "cni.dev/valid-attachments"; nil if the key is absent
	PodAnnotations   map[string]string          // of the capability "io.kubernetes.cri.pod-annotations"; nil if not passed

	// What a pod is attached to. Either Delegates or ClusterNetwork is set, or neither in a plugin that is chained
	// after another one: see [Config.CheckDefaultNetwork].
	Delegates       []*Network // the first is the default network
	ClusterNetwork  string     // the default network: a NetworkAttachmentDefinition, a network in ConfDir, or an absolute path
	DefaultNetworks []string   // further networks of every pod, named like ClusterNetwork

	// Where networks and pods are looked up.
	Kubeconfig string // absolute path; empty in a cluster's pod, or without Kubernetes
	Manifests  string // absolute path of a folder with Pods and NetworkAttachmentDefinitions, instead of an API server
	// PodResources is the absolute path of the socket on which the kubelet tells the devices of pods; empty for the usual one.
	PodResources string
	ConfDir      string // absolute path
	BinDir       string // absolute path; searched before CNI_PATH

	// Policy.
	NetworkNamespace   string   // of ClusterNetwork, DefaultNetworks and the pods' default networks
	SystemNamespaces   []string // whose pods do not get DefaultNetworks
	NamespaceIsolation bool     // a pod may use networks of its own namespace and of GlobalNamespaces only
	GlobalNamespaces   []string
	Policy             Policy // of what NetworkAttachmentDefinitions may say

	// How Braid works.
	CNIDir                 string    // absolute path of the journal
	ReadinessIndicatorFile string    // absolute path; ADD waits for this file
	DaemonSocket           string    // absolute path
	WaitForStatus          bool      // ADD is answered when network-status is written, though a daemon could do so later
	Result                 string    // ResultMerged or ResultDefault
	Exec                   []string  // types that are executed although Braid has a plugin of the type
	Deadlines              Deadlines // how long things may take
	Log                    Log

	// Ignored lists the keys that were found and have no effect here, for a warning.
	Ignored []string

	// Memory has what was made of configurations before; nil remembers nothing. See [ParseWith].
	Memory *memo.Memory
}

// Types of the plugin itself. They differ in the process that the runtime starts: ShimType has the daemon's worker do a call.
const (
	OwnType  = "braid"
	ShimType = "braid-shim"
)

// IsOwnType tells if a type is that of the plugin itself.
func IsOwnType(pluginType string) bool { return pluginType == OwnType || pluginType == ShimType }

// IsSelf tells if a type is that of the plugin itself, under whatever name it was installed.
func (c *Config) IsSelf(pluginType string) bool {
	return IsOwnType(pluginType) || pluginType == c.Type && c.Type != ""
}

// What ADD answers.
const (
	ResultMerged  = "merged"  // one result of all networks, the default network's first
	ResultDefault = "default" // the default network's result, for runtimes that take every address for a pod IP
)

// Deadlines are how long things may take: whole commands, undoing excluded; one third-party plugin; and one question to
// the daemon or the API server. The kubelet gives a runtime two minutes.
type Deadlines struct {
	Add, Del, Check, GC, Status time.Duration
	Plugin                      time.Duration
	Resolve                     time.Duration
}

// Log says what is logged, and where.
type Log struct {
	Level    slog.Level
	File     string // absolute path; empty for none
	ToStderr bool
}

// LevelPanic is the level "panic" of Multus: nothing less is logged.
const LevelPanic = slog.LevelError + 4

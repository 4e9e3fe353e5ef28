// Package deptest holds the table of imports of ARCHITECTURE.md, each line with its reason, and the tests that keep it.
//
// Patterns are package paths within Braid's module; a/... is a and all below it.
package deptest

// layers, from the top. A package imports what lies below its own layer; beside itself only what sideways lists.
var layers = []layer{
	{"programs", []string{"cmd/..."}},
	{"node and API", []string{"node/...", "kube/..."}},
	{"plugins", []string{
		"delegate", "bridge", "macvlan", "ipvlan", "loopback", "ipam/hostlocal/...", "ipam/static/...", "ipam/dhcp",
	}},
	{"parts", []string{
		"chain", "journal", "resolve/...", "confdir", "ipam", "ipam/dhcp/...", "netdev/...", "nft",
		"worker/...", // it serves any cni.Plugin, and knows none: the program puts the delegator in
	}},
	{"vocabulary", []string{"conf", "cni"}},
	{"internal", []string{"internal/..."}},
}

type layer struct {
	name     string
	packages []string
}

// sideways lists the imports within a layer. What is not here is forbidden: interface plugins above all never import
// each other, so that each can be read, replaced and removed alone.
var sideways = []struct{ from, to, why string }{
	{"cmd/...", "cmd/internal/own", "the table of Braid's own plugins, for all programs that run them"},
	{"node/...", "node/...", "the daemon is made of its own parts"},
	{"node/...", "kube/...", "the daemon answers from the API's objects"},
	{"kube/...", "kube/...", "a source of pods and networks, of which there are several"},
	{"ipam/hostlocal/...", "ipam/hostlocal/...", "one plugin in several packages"},
	{"ipam/static/...", "ipam/static/...", "one plugin in several packages"},
	{"ipam/dhcp/...", "ipam/dhcp/...", "clients of two protocols share the lease"},
	{"ipam/dhcp/...", "netdev", "a lease is applied to a device"},
	{"netdev/...", "netdev/...", "kinds of devices build on the handling of any device"},
	{"netdev/stacked", "ipam", "what macvlan and ipvlan have in common ends with their addresses"},
	{"nft", "netdev", "rules are written in a namespace that netdev has opened"},
	{"resolve/...", "resolve/...", "the question and what carries it"},
	{"worker/...", "worker/protocol", "what both ends say"},
	{"internal/...", "internal/...", "no layers within"},
}

// testSupport may be imported by tests only, and may import anything.
var testSupport = []string{
	"cni/cnitest", "kube/devices/devicestest", "kube/kubetest", "internal/deptest", "internal/manpage", "internal/nettest", "internal/refplugins", "e2e/...", "bench/...",
}

// reserved lists packages from outside that only some may import.
var reserved = []struct {
	imports []string // patterns of import paths
	by      []string // patterns of packages; tests and test support may import all of it
	why     string
}{
	{
		[]string{"k8s.io/...", "github.com/k8snetworkplumbingwg/..."},
		[]string{"kube/...", "node/...", "cmd/braidd"},
		"client-go in the plugin would cost every ADD tens of milliseconds",
	},
	{
		[]string{"github.com/prometheus/...", "go.opentelemetry.io/..."},
		[]string{"node/metrics", "node/tracing"},
		"the parts of the daemon tell what they do by methods, and know nothing of who watches",
	},
	{
		[]string{"google.golang.org/protobuf/..."},
		[]string{"node/metrics", "node/tracing"},
		"messages are for those who watch",
	},
	{
		[]string{"google.golang.org/grpc/..."}, nil,
		"6.6 MB for the two calls that kube/devices makes",
	},
	{
		[]string{"testing/...", "github.com/google/go-cmp/..."}, nil,
		"it does not belong in production code",
	},
	{
		[]string{"github.com/containernetworking/cni/libcni", "github.com/containernetworking/cni/pkg/invoke"}, nil,
		"cni.Exec runs plugins: these hand on the process environment, drop contexts and bring OpenTelemetry",
	},
	{
		[]string{"github.com/containernetworking/cni/pkg/skel"}, nil,
		"cni.Main is the edge: skel drops the context of errors and checks the namespace too late",
	},
	{
		[]string{"github.com/containernetworking/plugins/..."}, nil,
		"the reference plugins are what tests compare with",
	},
}

// linkedByBraid is all from outside that cmd/braid and the packages of Braid below it may import, so that it stays
// small and starts in milliseconds.
var linkedByBraid = []struct{ imports, why string }{
	{"github.com/VictoriaMetrics/easyproto", "what the kubelet answers about devices, when no daemon does; google.golang.org/protobuf reads the binary at each start"},
	{"github.com/containernetworking/cni/pkg/types/...", "results and errors of CNI"},
	{"github.com/containernetworking/cni/pkg/utils", "the rules for names"},
	{"github.com/containernetworking/cni/pkg/version", "versions of results"},
	{"github.com/goccy/go-yaml", "a kubeconfig that is YAML, when no daemon answers; other libraries take each process more to initialise"},
	{"github.com/google/nftables/...", "masquerading and spoof checks without running nft"},
	{"github.com/insomniacslk/dhcp/...", "a lease is released without the lease keeper, too"},
	{"github.com/mdlayher/arp", "address conflict detection, gratuitous ARP"},
	{"github.com/mdlayher/ethernet", "frames of ARP"},
	{"github.com/mdlayher/ndp", "unsolicited neighbour advertisements"},
	{"github.com/mdlayher/netlink", "the connection that nftables uses"},
	{"github.com/mdlayher/packet", "DHCP on an interface without an address"},
	{"github.com/vishvananda/netlink/...", "links, addresses and routes"},
	{"github.com/vishvananda/netns", "handles of namespaces"},
	{"golang.org/x/net/bpf", "DHCP answers only, of all that the interface receives"},
	{"golang.org/x/net/ipv6", "router advertisements"},
	{"golang.org/x/sync/errgroup", "attachments that go together"},
	{"golang.org/x/sys/unix", "locks and namespaces"},
}

// ofDaemonInBraid are the packages of the daemon that cmd/braid may link.
var ofDaemonInBraid = []struct{ imports, why string }{
	{"node/server", "a worker, which is cmd/braid, listens as the daemon does: for root, bounded, one after the other"},
}

// linkedByShim is all that cmd/braid-shim and the packages of Braid below it may import: a runtime executes it for each call, and it
// does little more than to start.
var linkedByShim = []struct{ imports, why string }{
	{"bytes", usual}, {"cmp", usual}, {"context", usual}, {"errors", usual}, {"fmt", usual}, {"io", usual}, {"os", usual}, {"path/filepath", usual},
	{"runtime", usual}, {"slices", usual}, {"strconv", usual}, {"strings", usual}, {"sync", usual}, {"syscall", usual}, {"time", usual}, {"unicode", usual},
	{"encoding/binary", "messages"},
	{"math/rand/v2", "names of calls"},
	{"os/exec", "plugins of others"},
	{"os/signal", "which end while they run"},
	{"golang.org/x/sys/unix", "the socket, without package net"},
	{"unsafe", "what early does before there is a runtime: system calls and the environment as the kernel has them"},
}

const usual = "os/exec links it, or it is as small"

// notInBraid are packages of the standard library that cmd/braid may not link: it is a client of the API server and of the
// kubelet, where no daemon answers, and serves nobody by HTTP.
var notInBraid = []struct{ imports, why string }{
	{"net/http/...", "but for the client of kube/api and kube/devices (httpInBraid)"},
	{"crypto/tls", "as net/http"},
	{"net/rpc/...", "it serves by HTTP"},
	{"expvar", "it serves by HTTP"},
}

// httpInBraid are the packages below cmd/braid that may import the client, and what of it. An ADD that the daemon answers, DEL,
// CHECK and GC run nothing of it.
var httpInBraid = []struct{ by, imports, why string }{
	{"kube/api", "net/http", "the API server, when no daemon answers"},
	{"kube/api", "crypto/tls", "the session with it, which is kept"},
	{"kube/devices", "net/http", "the kubelet's gRPC is HTTP/2"},
}

package kube

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/braid-cni/braid/kube/api"
	"github.com/braid-cni/braid/resolve"
)

// What a daemon writes in a second, and at once, is what a kubelet does by default. It is not limited in what it reads:
// pods wait for that, and their number limits it.
const (
	writeRate  = 50
	writeBurst = 100
)

// Options of a Resolver.
type Options struct {
	// Kubeconfig is the path of a file; empty stands for the service account of the pod that this process runs in.
	Kubeconfig string
	// Log takes what is no error of a request: events that could not be written, annotations that contradict each other.
	Log *slog.Logger
	// Daemon is for a process that outlives the ADD, as [api.Options] have it. It limits its rate of writing, too.
	Daemon bool
	// Node is the name of the node that events are of which are of no pod.
	Node string
	// Condition adds the condition [NetworksAttached] to the status of a pod when its network-status is written.
	Condition bool
	// Observe is told of every request, as soon as its answer begins or it has failed. It must not block. May be nil.
	Observe func(Request)
}

// Open is New with the options of a process that serves one ADD.
func Open(kubeconfig string, log *slog.Logger) (*Resolver, error) {
	return New(Options{Kubeconfig: kubeconfig, Log: log})
}

// New reads the kubeconfig. No request is sent. Of the files that the kubeconfig names, a token is read anew for each
// request, and a client certificate when it has changed.
func New(o Options) (*Resolver, error) {
	config, credentials, err := load(o.Kubeconfig)
	if err != nil {
		return nil, invalid("read %s: %v", credentials, err)
	}
	// Compression stays on: of thousands of networks, all alike, a twelfth is sent then. API servers compress lists from
	// 128 KB on and, since 1.37, watches that begin with what there is; nothing smaller.
	config.UserAgent = api.UserAgent()
	config.QPS = -1 // see writeRate
	config.WarningHandler = rest.NoWarnings{}
	config.Dial = (&net.Dialer{Timeout: api.DialTime, KeepAlive: 30 * time.Second}).DialContext
	config.ContentType = runtime.ContentTypeJSON
	config.NegotiatedSerializer = codecs()
	if !o.Daemon {
		config.Wrap(oneConnection)
	}
	rereads := config.BearerTokenFile != ""
	if rereads {
		config.Wrap(api.WithTokenFile(config.BearerTokenFile))
		config.BearerToken, config.BearerTokenFile = "", ""
	}
	if o.Observe != nil {
		config.Wrap(observed(o.Observe))
	}
	address, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, invalid("use %s: %v", credentials, err)
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, invalid("use %s: %v", credentials, err)
	}
	watches, err := rest.UnversionedRESTClientForConfigAndClient(config, client)
	if err != nil {
		return nil, invalid("use %s: %v", credentials, err)
	}
	options := api.Options{Log: o.Log, Daemon: o.Daemon, Node: o.Node, Condition: o.Condition}
	if o.Daemon {
		options.Statuses = flowcontrol.NewTokenBucketRateLimiter(writeRate, writeBurst)
		options.Events = flowcontrol.NewTokenBucketRateLimiter(writeRate, writeBurst)
	}
	server := &api.Server{URL: address, HTTP: client, Credentials: credentials, Rereads: rereads}
	return &Resolver{Resolver: api.New(server, options), watches: watches}, nil
}

// oneConnection makes requests wait for a connection that is being made. Each would make one of its own otherwise, of which
// all but the first to come are for nothing.
func oneConnection(through http.RoundTripper) http.RoundTripper {
	inner := through
	for {
		switch t := inner.(type) {
		case utilnet.RoundTripperWrapper:
			inner = t.WrappedRoundTripper()
			continue
		case *http.Transport:
			t.MaxConnsPerHost = 1
		}
		return through
	}
}

func load(kubeconfig string) (config *rest.Config, credentials string, err error) {
	if kubeconfig == "" {
		config, err = rest.InClusterConfig()
		return config, "the service account of the pod", err
	}
	config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	return config, "kubeconfig " + kubeconfig, err
}

func invalid(format string, args ...any) *resolve.Error {
	return &resolve.Error{Reason: resolve.Invalid, Message: fmt.Sprintf(format, args...)}
}

// codecs decode what client-go has to decode: the errors of the API server, and what is watched.
func codecs() runtime.NegotiatedSerializer {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	for _, add := range []func(*runtime.Scheme) error{metav1.AddMetaToScheme, netv1.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err) // two types of one name, in the program itself
		}
	}
	return serializer.NewCodecFactory(scheme).WithoutConversion()
}

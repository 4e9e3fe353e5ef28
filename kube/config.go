package kube

import (
	"log/slog"
	"net"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/braid-cni/braid/internal/buildinfo"
)

// dialTime is how long a connection may take: of several API servers behind one name, another may be alive.
const dialTime = 3 * time.Second

// Open reads a kubeconfig file, or, if kubeconfig is empty, the service account of the pod that this process runs in. A
// token file is read anew when its content may have changed. No request is sent.
func Open(kubeconfig string, log *slog.Logger) (*Resolver, error) {
	config, credentials, err := load(kubeconfig)
	if err != nil {
		return nil, invalid("read %s: %v", credentials, err)
	}
	config.UserAgent = "braidd/" + buildinfo.Version
	config.QPS = -1 // one ADD's worth of requests
	config.DisableCompression = true
	config.WarningHandler = rest.NoWarnings{}
	config.Dial = (&net.Dialer{Timeout: dialTime, KeepAlive: 30 * time.Second}).DialContext
	config.ContentType = runtime.ContentTypeJSON
	config.NegotiatedSerializer = statusOnly()
	client, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		return nil, invalid("use %s: %v", credentials, err)
	}
	return &Resolver{rest: client, credentials: credentials, log: log}, nil
}

func load(kubeconfig string) (config *rest.Config, credentials string, err error) {
	if kubeconfig == "" {
		config, err = rest.InClusterConfig()
		return config, "the service account of the pod", err
	}
	config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	return config, "kubeconfig " + kubeconfig, err
}

// statusOnly decodes what client-go has to decode: the errors of the API server.
func statusOnly() runtime.NegotiatedSerializer {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	return serializer.NewCodecFactory(scheme).WithoutConversion()
}

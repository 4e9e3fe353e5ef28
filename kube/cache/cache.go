// Package cache is what a node's daemon knows of the cluster: the pods of its node, by their metadata, and all
// NetworkAttachmentDefinitions. It lists and watches both, so that an ADD asks the API server nothing.
//
// A cache is behind at times, and never a reason for an ADD to fail: what it does not know is asked of the API server,
// and so is everything as long as it has not heard of everything once. When the API server is gone the cache answers with
// what it knew last, and catches up when it is back.
//
//	                                     in the cache   not in the cache
//	pod, annotations of the runtime same    cache           runtime's
//	pod, annotations of the runtime differ  asked           runtime's
//	pod, runtime hands over none            cache           asked
//	pod of another UID, or no UID given     asked           asked
//	static pod, annotations handed over     runtime's       runtime's
//	network                                 cache           asked
//
// A network that was edited a moment ago may be answered as it was before. One that the API server does not have either
// does not exist.
//
// Only what Braid reads is kept: of a pod the UID and some annotations, of a network the configuration and some
// annotations. 5,000 networks with 1 KB of configuration and 250 pods with 30 annotations and labels each take 8 MB of
// heap (TestMemory).
package cache

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/go-logr/logr"
	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientcache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/kube"
	"github.com/braid-cni/braid/kube/lookup"
	"github.com/braid-cni/braid/resolve"
)

// Options of a Source.
type Options struct {
	Node string // whose pods are watched
	Log  *slog.Logger
	// Ask asks for what is not in the cache, in the place of the API server's own resolver: it may bound how much is asked.
	// May be nil.
	Ask lookup.Source
	// Count is told of every pod and every network that was looked up, and where it was found: for a pod an
	// [lookup.Origin], for a network "cache" or "live". It must not block. May be nil.
	Count func(resource, origin string)
}

// The resources that Count is told of.
const (
	Pods     = "pods"
	Networks = "network-attachment-definitions"
)

// A Source answers from a cache, and asks the API server for what is not in it. It is safe for concurrent use.
type Source struct {
	live     *kube.Resolver
	ask      lookup.Source // live, or what bounds it
	log      *slog.Logger
	count    func(resource, origin string)
	pods     informer
	networks informer
}

var (
	_ lookup.Cache     = (*Source)(nil)
	_ resolve.Resolver = (*Source)(nil)
)

// New makes a Source that knows nothing until it runs, and asks live.
func New(live *kube.Resolver, o Options) (*Source, error) {
	if o.Node == "" {
		return nil, errors.New("the name of the node is empty: it says whose pods to watch")
	}
	s := &Source{live: live, log: o.Log, count: o.Count}
	if s.ask = o.Ask; s.ask == nil {
		s.ask = live
	}
	if s.count == nil {
		s.count = func(string, string) {}
	}
	var err error
	if s.pods, err = s.informer(live.WatchPods(o.Node), &metav1.PartialObjectMetadata{}, Pods); err != nil {
		return nil, err
	}
	s.networks, err = s.informer(live.WatchNetworks(), &netv1.NetworkAttachmentDefinition{}, Networks)
	return s, err
}

// An informer keeps the objects of one resource.
type informer = clientcache.SharedIndexInformer

func (s *Source) informer(lw clientcache.ListerWatcher, object runtime.Object, resource string) (informer, error) {
	options := clientcache.SharedIndexInformerOptions{ObjectDescription: resource}
	i := clientcache.NewSharedIndexInformerWithOptions(lw, object, options)
	if err := i.SetTransform(strip); err != nil {
		return nil, err
	}
	err := i.SetWatchErrorHandlerWithContext(func(ctx context.Context, _ *clientcache.Reflector, err error) {
		if ctx.Err() == nil && !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
			err = s.live.Explain("list and watch", resource, err)
			s.log.WarnContext(ctx, "watch ended, to be begun again", "resource", resource, "err", err)
		}
	})
	return i, err
}

// Run keeps the cache until ctx ends. It is called once.
func (s *Source) Run(ctx context.Context) {
	ctx = klog.NewContext(ctx, logr.FromSlogHandler(s.log.Handler()))
	var wg sync.WaitGroup
	for _, i := range []informer{s.pods, s.networks} {
		wg.Go(func() { i.RunWithContext(ctx) })
	}
	wg.Wait()
}

// Synced tells if all pods and networks that there were have been heard of.
func (s *Source) Synced() bool { return s.pods.HasSynced() && s.networks.HasSynced() }

// WaitForSync waits for that.
func (s *Source) WaitForSync(ctx context.Context) error {
	if clientcache.WaitFor(ctx, "", s.pods.HasSyncedChecker(), s.networks.HasSyncedChecker()) {
		return nil
	}
	return fmt.Errorf("wait for pods and network-attachment-definitions: %w", context.Cause(ctx))
}

// HasPod tells if the pod is known to exist without asking.
func (s *Source) HasPod(namespace, name, uid string) bool {
	known, synced := s.Known(namespace, name)
	return synced && known != nil && known.Is(resolve.Pod{Namespace: namespace, Name: name, UID: uid})
}

// Len returns how many pods and networks are known.
func (s *Source) Len() (pods, networks int) {
	return len(s.pods.GetStore().ListKeys()), len(s.networks.GetStore().ListKeys())
}

// All returns the networks that are known, in the order of their names. Their annotations must not be changed.
func (s *Source) All() []NamedNetwork {
	var all []NamedNetwork
	for _, object := range s.networks.GetStore().List() {
		if n, ok := object.(*netv1.NetworkAttachmentDefinition); ok {
			name := resolve.NetworkName{Namespace: n.Namespace, Name: n.Name}
			all = append(all, NamedNetwork{name, resolve.Network{Config: n.Spec.Config, Annotations: n.Annotations}})
		}
	}
	slices.SortFunc(all, func(a, b NamedNetwork) int { return strings.Compare(a.Name.String(), b.Name.String()) })
	return all
}

// A NamedNetwork is a NetworkAttachmentDefinition.
type NamedNetwork struct {
	Name resolve.NetworkName
	resolve.Network
}

// strip leaves of an object what is used of it. It may get an object twice.
func strip(object any) (any, error) {
	switch o := object.(type) {
	case *metav1.PartialObjectMetadata:
		o.TypeMeta = metav1.TypeMeta{}
		o.ObjectMeta = stripMeta(&o.ObjectMeta, lookup.Strip(o.Annotations))
	case *netv1.NetworkAttachmentDefinition:
		o.TypeMeta = metav1.TypeMeta{}
		o.ObjectMeta = stripMeta(&o.ObjectMeta, lookup.Annotations(o.Annotations))
		if len(o.Spec.Config) > conf.MaxNetwork {
			// It is refused by its length, so no more is kept than tells: a tenant can have many, as long as an object may be.
			o.Spec.Config = strings.Clone(o.Spec.Config[:conf.MaxNetwork+1])
		}
	}
	return object, nil
}

func stripMeta(m *metav1.ObjectMeta, annotations map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion, Annotations: annotations,
	}
}

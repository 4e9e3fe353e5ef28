package kube

import (
	"context"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

const (
	podsPath     = "/api/v1/pods"
	networksPath = "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"
	// The metadata alone, which API servers have offered since 1.15. A whole pod has it too. As protocol buffers, which whoever
	// stands between may not have, it takes both sides less.
	metadataOnly     = runtime.ContentTypeProtobuf + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
	metadataListOnly = runtime.ContentTypeProtobuf + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
)

// WatchPods returns what lists and watches the metadata of a node's pods, as *metav1.PartialObjectMetadata.
func (r *Resolver) WatchPods(node string) cache.ListerWatcher {
	mine := fields.OneTermEqualSelector("spec.nodeName", node).String()
	request := func(accept string, o metav1.ListOptions) *rest.Request {
		o.FieldSelector = mine
		return r.watches.Get().AbsPath(podsPath).VersionedParams(&o, metav1.ParameterCodec).SetHeader("Accept", accept)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &metav1.PartialObjectMetadataList{}
			return list, request(metadataListOnly, o).Do(ctx).Into(list)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.Watch = true
			return request(metadataOnly, o).Watch(ctx)
		},
	}
}

// WatchNetworks returns what lists and watches all NetworkAttachmentDefinitions, as *netv1.NetworkAttachmentDefinition.
func (r *Resolver) WatchNetworks() cache.ListerWatcher {
	request := func(o metav1.ListOptions) *rest.Request {
		return r.watches.Get().AbsPath(networksPath).VersionedParams(&o, metav1.ParameterCodec)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list := &netv1.NetworkAttachmentDefinitionList{}
			return list, request(o).Do(ctx).Into(list)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.Watch = true
			return request(o).Watch(ctx)
		},
	}
}

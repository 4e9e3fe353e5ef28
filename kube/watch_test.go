package kube_test

import (
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/tools/cache"

	"github.com/braid-cni/braid/kube"
)

// TestCompressed: what a daemon hears first is thousands of networks that are all alike. It takes them compressed, as a list
// and as the beginning of a watch; and has an event of a watch when it comes, though it is in the middle of what is compressed.
func TestCompressed(t *testing.T) {
	const network = `{"apiVersion":"k8s.cni.cncf.io/v1","kind":"NetworkAttachmentDefinition","metadata":{"name":"a"},"spec":{"config":"{}"}}`
	seen := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept-Encoding"); got != "gzip" {
			t.Errorf("%s: Accept-Encoding %q, want gzip", r.URL, got)
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Encoding", "gzip")
		zip := gzip.NewWriter(w)
		defer zip.Close()
		if !r.URL.Query().Has("watch") {
			_, _ = io.WriteString(zip, `{"apiVersion":"k8s.cni.cncf.io/v1","kind":"NetworkAttachmentDefinitionList","items":[`+network+`]}`)
			return
		}
		_, _ = io.WriteString(zip, `{"type":"ADDED","object":`+network+"}\n")
		_ = zip.Flush()
		_ = http.NewResponseController(w).Flush()
		select { // nothing more until that has arrived
		case <-seen:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	lw := cache.ToListerWatcherWithContext(openURL(t, server.URL).WatchNetworks())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	list, err := lw.ListWithContext(ctx, metav1.ListOptions{})
	if networks, ok := list.(*netv1.NetworkAttachmentDefinitionList); err != nil || !ok || len(networks.Items) != 1 {
		t.Errorf("list: %v, %v, want one network", list, err)
	}
	w, err := lw.WatchWithContext(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	e := <-w.ResultChan()
	if network, ok := e.Object.(*netv1.NetworkAttachmentDefinition); !ok || network.Name != "a" {
		t.Errorf("watch: %v, want the network", e)
	}
	close(seen)
}

// TestProtobuf: an API server gives the metadata of pods as protocol buffers, and errors too.
func TestProtobuf(t *testing.T) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	encode := func(object runtime.Object, kind string) []byte {
		version := metav1.SchemeGroupVersion
		if kind == "Status" {
			version = schema.GroupVersion{Version: "v1"}
		}
		object.GetObjectKind().SetGroupVersionKind(version.WithKind(kind))
		b, err := runtime.Encode(protobuf.NewSerializer(scheme, scheme), object)
		if err != nil {
			t.Error(err)
		}
		return b
	}
	pod := metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: "web", UID: "u1", ResourceVersion: "7", Annotations: map[string]string{"a": "b"},
	}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accepted, _, _ := strings.Cut(r.Header.Get("Accept"), ",")
		if !r.URL.Query().Has("watch") {
			w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
			list := &metav1.PartialObjectMetadataList{Items: []metav1.PartialObjectMetadata{pod}}
			if accepted == "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1" {
				_, _ = w.Write(encode(list, "PartialObjectMetadataList"))
			}
			return
		}
		w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf;stream=watch")
		if accepted != "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1" {
			return
		}
		frames := protobuf.LengthDelimitedFramer.NewFrameWriter(w)
		expired := apierrors.NewResourceExpired("too old").Status()
		for _, e := range []metav1.WatchEvent{
			{Type: "ADDED", Object: runtime.RawExtension{Raw: encode(pod.DeepCopy(), "PartialObjectMetadata")}},
			{Type: "ERROR", Object: runtime.RawExtension{Raw: encode(&expired, "Status")}},
		} {
			if err := protobuf.NewRawSerializer(scheme, scheme).Encode(&e, frames); err != nil {
				t.Error(err)
			}
		}
	}))
	defer server.Close()
	lw := cache.ToListerWatcherWithContext(openURL(t, server.URL).WatchPods("node"))
	list, err := lw.ListWithContext(t.Context(), metav1.ListOptions{})
	if pods, ok := list.(*metav1.PartialObjectMetadataList); err != nil || !ok || len(pods.Items) != 1 || !equality.Semantic.DeepEqual(pods.Items[0].ObjectMeta, pod.ObjectMeta) {
		t.Errorf("list: %v, %v, want %v", list, err, pod)
	}
	w, err := lw.WatchWithContext(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	e := <-w.ResultChan()
	if got, ok := e.Object.(*metav1.PartialObjectMetadata); !ok || !equality.Semantic.DeepEqual(got.ObjectMeta, pod.ObjectMeta) {
		t.Errorf("watch: %v, want %v", e, pod)
	}
	e = <-w.ResultChan()
	if got, ok := e.Object.(*metav1.Status); !ok || got.Reason != metav1.StatusReasonExpired {
		t.Errorf("watch: %v, want that the version is too old", e)
	}
}

// openURL returns who asks a server at a URL, without credentials.
func openURL(t *testing.T, url string) *kube.Resolver {
	t.Helper()
	config := filepath.Join(t.TempDir(), "kubeconfig")
	content := `{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c"}}],
		"clusters":[{"name":"c","cluster":{"server":"SERVER"}}]}`
	if err := os.WriteFile(config, []byte(strings.Replace(content, "SERVER", url, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := kube.Open(config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

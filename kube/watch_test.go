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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	config := filepath.Join(t.TempDir(), "kubeconfig")
	content := `{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c"}}],
		"clusters":[{"name":"c","cluster":{"server":"SERVER"}}]}`
	if err := os.WriteFile(config, []byte(strings.Replace(content, "SERVER", server.URL, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := kube.Open(config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	lw := cache.ToListerWatcherWithContext(r.WatchNetworks())
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

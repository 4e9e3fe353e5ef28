package api_test

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/braid-cni/braid/kube/api"
	"github.com/braid-cni/braid/kube/kubetest"
	"github.com/braid-cni/braid/resolve"
)

// TestOneConnection: all that an ADD asks at once shares the connection that is about to be made.
func TestOneConnection(t *testing.T) {
	s := kubetest.New(t)
	annotations := map[string]string{"k8s.v1.cni.cncf.io/networks": "a,b,c,d,e,f"}
	uid := s.AddPod(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", Annotations: annotations}})
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		s.AddNAD(&netv1.NetworkAttachmentDefinition{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}})
	}
	server, err := api.Login(s.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	r := api.New(server, api.Options{Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, err := r.Resolve(ctx, &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web", UID: uid}, Annotations: annotations})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Networks) != 6 {
		t.Errorf("found networks %v, want 6", a.Networks)
	}
	events := []resolve.Event{{Reason: "A"}, {Reason: "B"}, {Reason: "C"}}
	if err := r.Report(ctx, &resolve.Report{Pod: a.Pod, Status: []byte("[]"), Events: events}); err != nil {
		t.Fatal(err)
	}
	if n := s.Connections(); n != 1 {
		t.Errorf("found %d connections, want one", n)
	}
	if n := len(s.Requests()); n != 1+6+1+3 {
		t.Errorf("found requests %v, want 11", s.Requests())
	}
}

// TestLogin: what it takes leads to the server, with the credentials; what it does not, client-go may. YAML and JSON are the same.
func TestLogin(t *testing.T) {
	var authorization string
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorization = r.Header.Get("Authorization")
		_, _ = w.Write([]byte(`{"metadata":{"uid":"u"}}`))
	}))
	defer s.Close()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	dir := t.TempDir()
	for name, content := range map[string]string{"ca.crt": string(authority), "token": "from-file\n", "empty": "", "garbage": "garbage"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	const plain = `apiVersion: v1
kind: Config
preferences: {}
current-context: a
contexts: [{name: b, context: {cluster: b, user: b}}, {name: a, context: {cluster: a, user: a, namespace: kube-system}}]
clusters: [{name: a, cluster: {server: "SERVER", certificate-authority: ca.crt}}, {name: b, cluster: {server: "https://192.0.2.1"}}]
users: [{name: a, user: {tokenFile: token}}, {name: b, user: {token: wrong}}]
`
	embedded := "certificate-authority-data: " + base64.StdEncoding.EncodeToString(authority)
	for _, tt := range []struct {
		name, old, new string
		authorization  string // empty: it is not plain
	}{
		{"as it is", "", "", "Bearer from-file"},
		{"token", "tokenFile: token", "token: secret", "Bearer secret"},
		{"authority within", "certificate-authority: ca.crt", embedded, "Bearer from-file"},
		{"path before the API", `"SERVER"`, `"SERVER/behind/a/proxy"`, "Bearer from-file"},

		{"no YAML", "apiVersion: v1", "{", ""},
		{"large", "apiVersion: v1", "apiVersion: v" + strings.Repeat("1", 1<<20), ""},
		{"key that is there twice", "kind: Config", "kind: Config\nkind: Config", ""},
		{"key in another case", "current-context: a", "Current-Context: a", ""},
		{"number for a token", "tokenFile: token", "token: 17", ""},
		{"list for an object", "{cluster: a, user: a, namespace: kube-system}", "[a]", ""},
		{"object for a list", `[{name: b, context: {cluster: b, user: b}}, {name: a, context: {cluster: a, user: a, namespace: kube-system}}]`, "{}", ""},
		{"preferences", "preferences: {}", "preferences: {colors: true}", ""},
		{"no such context", "current-context: a", "current-context: c", ""},
		{"no current context", "current-context: a", "", ""},
		{"two clusters of a name", "name: b, cluster:", "name: a, cluster:", ""},
		{"two users of a name", "name: b, user:", "name: a, user:", ""},
		{"no server", `server: "SERVER", `, "", ""},
		{"without TLS", `"SERVER"`, "http://127.0.0.1:1", ""},
		{"insecure", "certificate-authority: ca.crt", "insecure-skip-tls-verify: true", ""},
		{"proxy", "certificate-authority: ca.crt", "certificate-authority: ca.crt, proxy-url: http://127.0.0.1:1", ""},
		{"no authority there", "ca.crt", "none", ""},
		{"no certificate in it", "ca.crt", "garbage", ""},
		{"two authorities", "certificate-authority: ca.crt", "certificate-authority: ca.crt, " + embedded, ""},
		{"token and file", "tokenFile: token", "tokenFile: token, token: secret", ""},
		{"password", "tokenFile: token", "username: a, password: b", ""},
		{"impersonation", "tokenFile: token", "tokenFile: token, as: admin", ""},
		{"program", "tokenFile: token", "exec: {command: x, apiVersion: client.authentication.k8s.io/v1}", ""},
		{"pipe", "tokenFile: token", "tokenFile: pipe", ""},
		{"certificate without a key", "tokenFile: token", "client-certificate: ca.crt", ""},
	} {
		text := strings.ReplaceAll(strings.Replace(plain, tt.old, tt.new, 1), "SERVER", s.URL)
		test := func(t *testing.T, content []byte) {
			path := filepath.Join(dir, "kubeconfig")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			server, err := api.Login(path)
			if tt.authorization == "" {
				if !errors.Is(err, api.ErrNotPlain) {
					t.Errorf("found error %v, want ErrNotPlain", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			r := api.New(server, api.Options{Log: slog.New(slog.DiscardHandler)})
			if _, err := r.Resolve(ctx, &resolve.Query{Pod: resolve.Pod{Namespace: "default", Name: "web"}}); err != nil {
				t.Fatal(err)
			}
			if authorization != tt.authorization {
				t.Errorf("found authorization %q, want %q", authorization, tt.authorization)
			}
		}
		t.Run(tt.name, func(t *testing.T) { test(t, []byte(text)) })
		if asJSON, err := yaml.YAMLToJSONStrict([]byte(text)); err == nil {
			t.Run(tt.name+" in JSON", func(t *testing.T) { test(t, asJSON) })
		}
	}
	for name, text := range map[string]string{
		"two documents": `{"kind": "Config"} {}`, "key that is there twice": `{"kind": "Config", "kind": "Config"}`, "empty": "", "list": "[]", "null": "null",
	} {
		path := filepath.Join(dir, "kubeconfig")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := api.Login(path); !errors.Is(err, api.ErrNotPlain) {
			t.Errorf("%s: found error %v, want ErrNotPlain", name, err)
		}
	}
	if _, err := api.Login(filepath.Join(dir, "absent")); !errors.Is(err, api.ErrNotPlain) {
		t.Errorf("no such file: found error %v, want ErrNotPlain", err)
	}
}

// Package kubetest is an API server for tests: HTTPS, HTTP/2, a bearer token, and as much of the API as Braid uses. Pods
// and NetworkAttachmentDefinitions can be read, listed and watched, the status of pods be patched, events be created. It can be told to fail
// in the ways that a real one does.
//
// It speaks JSON only. A client that would rather have protobuf gets what it accepts besides.
package kubetest

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/kube/manifests"
)

// A Server is a running API server.
type Server struct {
	t    testing.TB
	http *httptest.Server
	dir  string        // of kubeconfig and token
	done chan struct{} // closed to let handlers go that hang

	mu       sync.Mutex
	token    string
	objects  map[string]json.RawMessage // by path
	memory   map[string]json.RawMessage // what is answered from it; nil is the same as objects
	uids     int                        // given out
	events   []corev1.Event
	faults   []*Fault
	requests []Request

	version     int           // the latest resource version
	compacted   int           // changes up to it are forgotten
	changes     []change      // the oldest first
	changed     chan struct{} // closed at the next change
	broken      int           // how often watches were
	noWatchList bool

	connections int
}

// A Request is one that the server received.
type Request struct {
	Method string
	Path   string
	Body   string
	Query  url.Values
}

func (r Request) String() string { return r.Method + " " + r.Path }

// New starts a server, which ends with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir(), done: make(chan struct{}), changed: make(chan struct{}), objects: make(map[string]json.RawMessage)}
	s.http = httptest.NewUnstartedServer(s.handler())
	s.http.EnableHTTP2 = true
	s.http.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.connections++
		}
	}
	s.http.StartTLS()
	stop := sync.OnceFunc(func() {
		close(s.done)
		s.http.CloseClientConnections()
		s.http.Close()
	})
	t.Cleanup(stop)
	s.SetToken("first")
	s.writeKubeconfig()
	return s
}

// Kubeconfig is the path of a kubeconfig file. It names a file for the token, as the kubeconfig of a service account does.
func (s *Server) Kubeconfig() string { return filepath.Join(s.dir, "kubeconfig") }

// URL is where the server is.
func (s *Server) URL() string { return s.http.URL }

// TokenFile is where a client reads the token.
func (s *Server) TokenFile() string { return filepath.Join(s.dir, "token") }

// SetToken changes the token that is asked for, and the file.
func (s *Server) SetToken(token string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.token = token
	if err := os.WriteFile(s.TokenFile(), []byte(token), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *Server) writeKubeconfig() {
	ca := filepath.Join(s.dir, "ca.crt")
	block := &pem.Block{Type: "CERTIFICATE", Bytes: s.http.Certificate().Raw}
	if err := os.WriteFile(ca, pem.EncodeToMemory(block), 0o600); err != nil {
		s.t.Fatal(err)
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: test
contexts: [{name: test, context: {cluster: test, user: test}}]
clusters: [{name: test, cluster: {server: %q, certificate-authority: ca.crt}}]
users: [{name: test, user: {tokenFile: token}}]
`, s.http.URL)
	if err := os.WriteFile(s.Kubeconfig(), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// AddPod creates a pod, or replaces it. A pod without a UID gets one. It returns the UID.
func (s *Server) AddPod(pod *corev1.Pod) (uid string) {
	s.t.Helper()
	pod = pod.DeepCopy()
	pod.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	s.add(pod, podPath(pod.Namespace, pod.Name))
	return string(pod.UID)
}

// AddNode creates a node, or replaces it.
func (s *Server) AddNode(node *corev1.Node) {
	s.t.Helper()
	node = node.DeepCopy()
	node.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}
	s.add(node, nodesPath+"/"+node.Name)
}

// AddNAD creates a NetworkAttachmentDefinition, or replaces it.
func (s *Server) AddNAD(nad *netv1.NetworkAttachmentDefinition) {
	s.t.Helper()
	nad = nad.DeepCopy()
	nad.TypeMeta = metav1.TypeMeta{APIVersion: netv1.SchemeGroupVersion.String(), Kind: "NetworkAttachmentDefinition"}
	s.add(nad, nadPath(nad.Namespace, nad.Name))
}

// AddManifests creates the pods and NetworkAttachmentDefinitions of a folder of YAML files.
func (s *Server) AddManifests(dir string) {
	s.t.Helper()
	objects, err := manifests.Read(dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, pod := range objects.Pods {
		s.AddPod(pod)
	}
	for _, nad := range objects.Networks {
		s.AddNAD(nad)
	}
}

func (s *Server) add(object metav1.Object, path string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if object.GetUID() == "" {
		s.uids++
		object.SetUID(uidOf(s.uids))
	}
	doc, err := json.Marshal(object)
	if err != nil {
		s.t.Fatal(err)
	}
	s.store(path, doc)
}

// DeletePod deletes a pod.
func (s *Server) DeletePod(namespace, name string) { s.delete(podPath(namespace, name)) }

// DeleteNAD deletes a NetworkAttachmentDefinition.
func (s *Server) DeleteNAD(namespace, name string) { s.delete(nadPath(namespace, name)) }

func (s *Server) delete(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects[path] != nil {
		s.store(path, nil)
	}
}

// Pod returns a pod as it is now.
func (s *Server) Pod(namespace, name string) *corev1.Pod {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	pod := &corev1.Pod{}
	if err := json.Unmarshal(s.objects[podPath(namespace, name)], pod); err != nil {
		s.t.Fatalf("pod %s/%s: %v", namespace, name, err)
	}
	return pod
}

// Status returns the network-status annotation of a pod.
func (s *Server) Status(namespace, name string) string {
	s.t.Helper()
	return s.Pod(namespace, name).Annotations[netv1.NetworkStatusAnnot]
}

// Events returns the events that were created, the oldest first.
func (s *Server) Events() []corev1.Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// Requests returns all requests so far, also those that failed.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Connections returns how many connections clients have made.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections
}

// ResetRequests forgets the requests so far.
func (s *Server) ResetRequests() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

// Stop makes the server unreachable: connections end, and new ones are refused.
func (s *Server) Stop() {
	s.http.Listener.Close()
	s.http.CloseClientConnections()
}

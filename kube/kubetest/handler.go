package kubetest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	netv1 "github.com/k8snetworkplumbingwg/network-attachment-definition-client/pkg/apis/k8s.cni.cncf.io/v1"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	podsPath   = "/api/v1/namespaces/{namespace}/pods"
	eventsPath = "/api/v1/namespaces/{namespace}/events"
	nodesPath  = "/api/v1/nodes"
	nadsPath   = "/apis/k8s.cni.cncf.io/v1/namespaces/{namespace}/network-attachment-definitions"
)

func podPath(namespace, name string) string {
	return strings.Replace(podsPath, "{namespace}", namespace, 1) + "/" + name
}

func nadPath(namespace, name string) string {
	return strings.Replace(nadsPath, "{namespace}", namespace, 1) + "/" + name
}

func uidOf(n int) types.UID { return types.UID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n)) }

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+podsPath+"/{name}", s.get)
	mux.HandleFunc("PATCH "+podsPath+"/{name}/status", s.patchStatus)
	mux.HandleFunc("PUT "+podsPath+"/{name}/status", s.putStatus)
	for _, path := range []string{podsPath, nadsPath} {
		mux.HandleFunc("GET "+path, s.list)
		mux.HandleFunc("GET "+strings.Replace(path, "/namespaces/{namespace}", "", 1), s.list)
	}
	mux.HandleFunc("GET "+nodesPath+"/{name}", s.get)
	mux.HandleFunc("GET "+nadsPath+"/{name}", s.get)
	mux.HandleFunc("POST "+eventsPath, s.create)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client is gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.mu.Lock()
		s.requests = append(s.requests, Request{r.Method, r.URL.Path, string(body), r.URL.Query()})
		token := s.token
		s.mu.Unlock()

		if f := s.fault(r); f != nil && s.fail(f, w, r) {
			return
		}
		if r.Header.Get("Authorization") != "Bearer "+token {
			writeError(w, apierrors.NewUnauthorized("Unauthorized"))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) get(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	objects := s.objects
	if s.memory != nil && r.URL.Query().Get("resourceVersion") == "0" {
		objects = s.memory
	}
	doc, ok := objects[r.URL.Path]
	s.mu.Unlock()
	if !ok {
		writeError(w, apierrors.NewNotFound(resourceOf(r), r.PathValue("name")))
		return
	}
	writeObject(w, r, doc)
}

// putStatus is for Multus, which replaces the whole pod. What it writes, in an encoding that is not read here, is taken and
// forgotten.
func (s *Server) putStatus(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	doc, ok := s.objects[strings.TrimSuffix(r.URL.Path, "/status")]
	s.mu.Unlock()
	if !ok {
		writeError(w, apierrors.NewNotFound(resourceOf(r), r.PathValue("name")))
		return
	}
	writeObject(w, r, doc)
}

// patchStatus is the subresource status of a pod: it changes metadata and status.
func (s *Server) patchStatus(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimSuffix(r.URL.Path, "/status")
	name := r.PathValue("name")
	patch, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, ok := s.objects[path]
	if !ok {
		writeError(w, apierrors.NewNotFound(resourceOf(r), name))
		return
	}
	apply := jsonpatch.MergePatch
	switch ct := r.Header.Get("Content-Type"); ct {
	case string(types.MergePatchType):
	case string(types.StrategicMergePatchType):
		apply = strategicPatch
	default:
		writeError(w, apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "PATCH", resourceOf(r), name, "content type "+ct, 0, true))
		return
	}
	doc, err := apply(old, patch)
	if err == nil {
		doc, err = keep(old, doc)
	}
	switch {
	case errors.Is(err, errOtherUID):
		immutable := field.Invalid(field.NewPath("metadata", "uid"), string(patch), "field is immutable")
		writeError(w, apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, name, field.ErrorList{immutable}))
	case err != nil:
		writeError(w, apierrors.NewBadRequest(err.Error()))
	default:
		s.store(path, doc)
		writeObject(w, r, s.objects[path])
	}
}

// strategicPatch applies a strategic merge patch: a merge patch that finds the conditions of a pod by their type.
func strategicPatch(old, patch []byte) ([]byte, error) {
	var whole, delta struct{ Status corev1.PodStatus }
	if err := errors.Join(json.Unmarshal(old, &whole), json.Unmarshal(patch, &delta)); err != nil {
		return nil, err
	}
	conditions := whole.Status.Conditions
	for _, c := range delta.Status.Conditions {
		i := slices.IndexFunc(conditions, func(old corev1.PodCondition) bool { return old.Type == c.Type })
		if i < 0 {
			conditions = append(conditions, c)
		} else {
			conditions[i] = c
		}
	}
	merged, err := jsonpatch.MergePatch(old, patch)
	if err != nil || len(delta.Status.Conditions) == 0 {
		return merged, err
	}
	list, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": conditions}})
	if err != nil {
		return nil, err
	}
	return jsonpatch.MergePatch(merged, list)
}

var errOtherUID = errors.New("the patch has another UID")

// keep puts back what a patch of the status may not change.
func keep(old, patched json.RawMessage) (json.RawMessage, error) {
	var before, after corev1.Pod
	if err := json.Unmarshal(old, &before); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(patched, &after); err != nil {
		return nil, err
	}
	if before.UID != after.UID {
		return nil, errOtherUID
	}
	after.Spec = before.Spec
	return json.Marshal(after)
}

func (s *Server) create(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var e corev1.Event
	if err := json.Unmarshal(body, &e); err != nil {
		writeError(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	if ns := r.PathValue("namespace"); e.Name == "" || e.Namespace != ns || e.InvolvedObject.Namespace != ns {
		writeError(w, apierrors.NewBadRequest("event without a name, or of another namespace"))
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.events, func(old corev1.Event) bool { return old.Namespace == e.Namespace && old.Name == e.Name }) {
		writeError(w, apierrors.NewAlreadyExists(resourceOf(r), e.Name))
		return
	}
	s.events = append(s.events, e)
	writeJSON(w, http.StatusCreated, e)
}

func resourceOf(r *http.Request) schema.GroupResource {
	switch {
	case strings.Contains(r.URL.Path, "/network-attachment-definitions"):
		return schema.GroupResource{Group: netv1.SchemeGroupVersion.Group, Resource: "network-attachment-definitions"}
	case strings.HasPrefix(r.URL.Path, nodesPath+"/"):
		return schema.GroupResource{Resource: "nodes"}
	case strings.HasSuffix(r.URL.Path, "/events"):
		return schema.GroupResource{Resource: "events"}
	default:
		return schema.GroupResource{Resource: "pods"}
	}
}

func writeObject(w http.ResponseWriter, r *http.Request, doc json.RawMessage) {
	writeJSON(w, http.StatusOK, asWanted(r, doc))
}

// wantsMetadata tells if the client would rather have the metadata alone.
func wantsMetadata(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "application/json;as=PartialObjectMetadata")
}

// asWanted returns an object, or its metadata.
func asWanted(r *http.Request, doc json.RawMessage) json.RawMessage {
	if !wantsMetadata(r) {
		return doc
	}
	var o metav1.PartialObjectMetadata
	if json.Unmarshal(doc, &o) != nil {
		return doc // what is stored came out of json.Marshal
	}
	o.TypeMeta = metav1.TypeMeta{APIVersion: "meta.k8s.io/v1", Kind: "PartialObjectMetadata"}
	doc, _ = json.Marshal(o)
	return doc
}

func writeError(w http.ResponseWriter, err *apierrors.StatusError) {
	status := err.Status()
	status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
	writeJSON(w, int(status.Code), status)
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}

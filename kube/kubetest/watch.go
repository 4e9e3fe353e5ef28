package kubetest

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// A change is one of an object: without before it is created by it, without after deleted.
type change struct {
	version       int
	path          string
	before, after json.RawMessage
}

// store makes a change. The caller has the lock. after is nil for an object that is deleted.
func (s *Server) store(path string, after json.RawMessage) {
	s.version++
	c := change{version: s.version, path: path, before: s.objects[path]}
	if after == nil {
		delete(s.objects, path)
		c.before = withVersion(c.before, s.version)
	} else {
		c.after = withVersion(after, s.version)
		s.objects[path] = c.after
	}
	s.changes = append(s.changes, c)
	s.wake()
}

// wake lets the watches look again. The caller has the lock.
func (s *Server) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// withVersion returns an object with another resource version.
func withVersion(doc json.RawMessage, version int) json.RawMessage {
	var object, metadata map[string]json.RawMessage
	if json.Unmarshal(doc, &object) != nil || json.Unmarshal(object["metadata"], &metadata) != nil {
		return doc // what is stored came out of json.Marshal
	}
	metadata["resourceVersion"] = json.RawMessage(strconv.Quote(strconv.Itoa(version)))
	object["metadata"], _ = json.Marshal(metadata)
	doc, _ = json.Marshal(object)
	return doc
}

// BreakWatches ends all watches, as an API server that ends does.
func (s *Server) BreakWatches() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken++
	s.wake()
}

// Compact makes the server forget the changes so far: a watch that is behind, or begins at an older resource version, is
// told 410 Gone.
func (s *Server) Compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++ // of an object of another kind
	s.compacted, s.changes = s.version, nil
	s.wake()
}

// NoWatchList makes the server refuse to send what there is as the beginning of a watch, as API servers before 1.32 do.
func (s *Server) NoWatchList() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noWatchList = true
}

// A selection is what a list or a watch is of.
type selection struct {
	infix, prefix string // of the paths of the objects
	node          string // of the pods; empty means all
}

func selectionOf(r *http.Request) (s selection, err error) {
	resource := r.URL.Path[strings.LastIndex(r.URL.Path, "/"):] + "/"
	if namespace := r.PathValue("namespace"); namespace != "" {
		s.prefix = r.URL.Path + "/"
	}
	s.infix = resource
	if text := r.URL.Query().Get("fieldSelector"); text != "" {
		selector, err := fields.ParseSelector(text)
		if err != nil {
			return s, err
		}
		s.node, _ = selector.RequiresExactMatch("spec.nodeName")
	}
	return s, nil
}

// has tells if an object is selected.
func (s *selection) has(path string, doc json.RawMessage) bool {
	if doc == nil || !strings.HasPrefix(path, s.prefix) || !strings.Contains(path, s.infix) {
		return false
	}
	var object struct{ Spec struct{ NodeName string } }
	return s.node == "" || json.Unmarshal(doc, &object) == nil && object.Spec.NodeName == s.node
}

// selected returns objects in the order of their paths. The caller has the lock.
func (s *Server) selected(of *selection) (docs []json.RawMessage) {
	var paths []string
	for path, doc := range s.objects {
		if of.has(path, doc) {
			paths = append(paths, path)
		}
	}
	slices.Sort(paths)
	for _, path := range paths {
		docs = append(docs, s.objects[path])
	}
	return docs
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	of, err := selectionOf(r)
	if err != nil {
		writeError(w, apierrors.NewBadRequest(err.Error()))
		return
	}
	if r.URL.Query().Get("watch") == "true" {
		s.watch(w, r, &of)
		return
	}
	kind, apiVersion := "PodList", "v1"
	switch {
	case strings.HasSuffix(r.URL.Path, "definitions"):
		kind, apiVersion = "NetworkAttachmentDefinitionList", "k8s.cni.cncf.io/v1"
	case wantsMetadata(r):
		kind, apiVersion = "PartialObjectMetadataList", "meta.k8s.io/v1"
	}
	list := struct {
		metav1.TypeMeta `json:",inline"`
		metav1.ListMeta `json:"metadata"`
		Items           []json.RawMessage `json:"items"`
	}{TypeMeta: metav1.TypeMeta{Kind: kind, APIVersion: apiVersion}, Items: []json.RawMessage{}}
	s.mu.Lock()
	list.ResourceVersion = strconv.Itoa(s.version)
	docs := s.selected(&of)
	s.mu.Unlock()
	for _, doc := range docs {
		list.Items = append(list.Items, asWanted(r, doc))
	}
	writeJSON(w, http.StatusOK, list)
}

// watch sends changes until the client has enough of it, the watch is broken, or it is too far behind.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, of *selection) {
	query := r.URL.Query()
	version, _ := strconv.Atoi(query.Get("resourceVersion"))
	initial := query.Get("sendInitialEvents") == "true"
	s.mu.Lock()
	broken, refused := s.broken, initial && s.noWatchList
	s.mu.Unlock()
	if refused {
		writeError(w, apierrors.NewInvalid(metav1.SchemeGroupVersion.WithKind("ListOptions").GroupKind(), "", nil))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	send := func(kind string, object any) {
		_ = json.NewEncoder(w).Encode(map[string]any{"type": kind, "object": object}) // the client may be gone
	}
	if initial {
		s.mu.Lock()
		docs := s.selected(of)
		version = s.version
		s.mu.Unlock()
		for _, doc := range docs {
			send("ADDED", asWanted(r, doc))
		}
		send("BOOKMARK", asWanted(r, s.bookmark(r, version)))
	}
	for {
		s.mu.Lock()
		changes, changed := s.changes, s.changed
		gone, ended := version < s.compacted, broken != s.broken
		s.mu.Unlock()
		if gone {
			status := apierrors.NewResourceExpired("too old resource version").Status()
			status.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}
			send("ERROR", status)
			return
		}
		for _, c := range changes {
			if c.version <= version {
				continue
			}
			version = c.version
			before, after := of.has(c.path, c.before), of.has(c.path, c.after)
			switch {
			case before && after:
				send("MODIFIED", asWanted(r, c.after))
			case after:
				send("ADDED", asWanted(r, c.after))
			case before && c.after != nil:
				send("DELETED", asWanted(r, c.after))
			case before:
				send("DELETED", asWanted(r, c.before))
			}
		}
		w.(http.Flusher).Flush()
		if ended {
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-s.done:
			return
		}
	}
}

// bookmark is the end of the initial events.
func (s *Server) bookmark(r *http.Request, version int) json.RawMessage {
	kind, apiVersion := "Pod", "v1"
	if strings.HasSuffix(r.URL.Path, "definitions") {
		kind, apiVersion = "NetworkAttachmentDefinition", "k8s.cni.cncf.io/v1"
	}
	doc, err := json.Marshal(metav1.PartialObjectMetadata{
		TypeMeta: metav1.TypeMeta{Kind: kind, APIVersion: apiVersion},
		ObjectMeta: metav1.ObjectMeta{
			ResourceVersion: strconv.Itoa(version), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
		},
	})
	if err != nil {
		s.t.Error(err)
	}
	return doc
}
